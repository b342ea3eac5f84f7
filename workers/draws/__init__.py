"""A draw on its way through an engine: whether it may begin, what it asks for, and its commit."""
