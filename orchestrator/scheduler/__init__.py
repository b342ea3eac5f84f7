"""The pure core: events in, commands out. It knows neither store, plan, grid, clock nor Ray."""
