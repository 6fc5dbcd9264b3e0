"""Several workers on one port."""
