"""Search for better settings: many simulated runs, one coordinator, any number of stateless workers."""
