"""Transforms of raw columns to a model's features: fitted once, the same in training and in serving."""
