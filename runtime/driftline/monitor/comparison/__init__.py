"""Compare counts with the reference: how far apart they are, and the change in words."""
