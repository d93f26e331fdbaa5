"""Where workers live: local processes today; the interface is `base.Executor`."""
