"""Drift: a reference, counts over time, distances between them, and alarms with a guarantee."""
