"""The monitor of each served version, and who is told what it found."""
