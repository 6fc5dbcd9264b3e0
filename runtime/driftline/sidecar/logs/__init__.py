"""Sources of another server's payload logs, posted or in files."""
