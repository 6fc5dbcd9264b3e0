"""The observing proxy in front of another server."""
