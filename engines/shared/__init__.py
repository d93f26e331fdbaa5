"""What three engines or more use. Empty until a third user appears."""
