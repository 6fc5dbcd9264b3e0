"""Logs of another server, posted or in files."""
