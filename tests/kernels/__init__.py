"""One module of adapters per engine between the numeric fixtures and its public functions."""
