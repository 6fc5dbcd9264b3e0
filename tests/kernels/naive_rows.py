"""References of the kernels of whole rows, in plain numpy."""

from __future__ import annotations

import numpy as np


def standardised(values: np.ndarray, scaling: np.ndarray) -> np.ndarray:
    """(rows, columns) float64: standard deviations from the mean, at most 1000; 0 for what isn't finite."""
    finite = np.where(np.isfinite(values), values, 0).astype(np.float64)
    with np.errstate(over="ignore"):
        z = np.clip((finite - scaling[:, 0]) * scaling[:, 1], -1000, 1000)
    return np.where(np.isfinite(values), z, 0)


def comoments(values: np.ndarray, scaling: np.ndarray) -> np.ndarray:
    """(columns + 1, columns + 1): the products of standardised rows that end with a 1."""
    z = np.column_stack([standardised(values, scaling), np.ones(len(values))])
    return np.asarray(z.T @ z)


def features(values: np.ndarray, scaling: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(D,): sums of cos(z W + b)."""
    phases = standardised(values, scaling) @ weights[:-1].astype(np.float64) + weights[-1]
    return np.asarray(np.cos(phases).sum(axis=0))
