"""What a grid owes, and what it will cost."""
