"""Measures what driftline promises: `python -m bench`. README.md says what each benchmark is."""
