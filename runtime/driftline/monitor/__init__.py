"""Drift: a reference, counts in time, distances between them, and alarms with a guarantee."""
