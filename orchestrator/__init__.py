"""What decides and records: grid, identity, plan, core, driver, store, and the views derived from the store."""
