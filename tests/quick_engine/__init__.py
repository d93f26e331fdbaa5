"""A small real engine without torch, for tests of everything around engines: deterministic, resumable, breakable."""
