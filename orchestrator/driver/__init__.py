"""The loop around the scheduler, where clock, store, backend and views meet."""
