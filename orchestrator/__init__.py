"""Decides and records: the grid, the plan, the scheduler, the driver, the store, and the views of the store."""
