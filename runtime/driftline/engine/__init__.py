"""A version's files become something that predicts."""
