"""Why a cell or a draw is complete or owed, and why the scheduler decided as it did."""
