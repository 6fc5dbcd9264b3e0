"""Models that are Python code, each in a process of its own."""
