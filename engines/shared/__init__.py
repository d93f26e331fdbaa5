"""What three engines or more use."""
