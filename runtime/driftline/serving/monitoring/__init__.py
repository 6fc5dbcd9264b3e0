"""The monitor of each served version, and where its results go."""
