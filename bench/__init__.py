"""Measures what driftline promises: `python -m bench`. README.md describes each benchmark."""
