"""Text to image: the pocket model that several methods stand on, as a method of its own."""
