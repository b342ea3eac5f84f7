"""Why a cell or draw is complete or owed."""
