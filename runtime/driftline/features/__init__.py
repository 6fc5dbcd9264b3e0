"""Raw columns to a model's features: what to compute, fitted once, the same in training and in serving."""
