"""Bytes from the wire to tensors, and back."""
