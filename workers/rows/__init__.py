"""The rows that workers commit to the store, and what the rows of a context say together."""
