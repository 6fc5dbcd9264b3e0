"""Models on NVIDIA cards."""
