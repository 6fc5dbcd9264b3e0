"""Slow, obviously correct references for the kernels, in plain numpy; and the device that the kernels run on.

The same tests run for both drivers: compiled on the CPU, or, with NUMBA_ENABLE_CUDASIM=1, as CUDA threads in
Numba's simulator, which are Python threads and so get fewer and smaller examples.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from hypothesis import settings
from numba import cuda

from driftline_kernels import rows
from driftline_kernels.bins import Bins

ROUNDING = 2e-6
"""The most that a GPU's sums in float32 may be off, relative to the summands."""

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


def examples(number: int) -> settings:
    """Return settings for this many examples on the CPU, few in the simulator."""
    return settings(max_examples=max(number // 15, 5) if SIMULATED else number)


def there(array: Any) -> Any:
    """Copy an array, or all arrays of a named tuple, to the device under test."""
    if isinstance(array, tuple):
        return type(array)(*map(there, array))
    return cuda.to_device(array) if SIMULATED else array.copy(order="K")


def back(array: Any) -> Any:
    """Return what `there` copied, as numpy arrays."""
    if isinstance(array, tuple):
        return type(array)(*map(back, array))
    return array.copy_to_host() if SIMULATED else array


def observed(
    batches: list[np.ndarray],
    bins: Bins,
    width: int,
    scaling: np.ndarray,
    weights: np.ndarray,
    correlate: bool = False,
    counts: np.ndarray | None = None,
) -> rows.State:
    """Return a GPU's counts of some batches, settled; starting from `counts`, if given."""
    state = rows.start(bins, width, scaling, weights, correlate)
    state = rows.to_device(state if counts is None else state._replace(counts=counts.copy()), there)
    parts = rows.Parts.of(state)
    for batch in batches:
        contiguous = batch if batch.flags.f_contiguous else np.ascontiguousarray(batch)
        rows.observe_on_device(there(contiguous), len(batch), parts)
    rows.settle(parts)
    return rows.State(*map(back, state))


def bin_counts(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(columns, E + 4) int64: the finite values of each bin, then NaN, +inf, -inf."""
    columns, width = edges.shape
    counts = np.zeros((columns, width + 4), np.int64)
    for column in range(columns):
        x = values[:, column]
        bins = np.searchsorted(edges[column], x[np.isfinite(x)], side="right")
        counts[column, : width + 1] = np.bincount(bins, minlength=width + 1)
        counts[column, width + 1 :] = np.isnan(x).sum(), (x == np.inf).sum(), (x == -np.inf).sum()
    return counts


def moments(values: np.ndarray) -> np.ndarray:
    """(columns, 5) float64: count, mean, sum of squared deviations, least, greatest of the finite values."""
    found = []
    for column in values.T:
        x = [float(value) for value in column if np.isfinite(value)]
        mean = math.fsum(x) / len(x) if x else 0.0
        squares = math.fsum((value - mean) ** 2 for value in x)
        found.append([len(x), mean, squares, min(x, default=math.inf), max(x, default=-math.inf)])
    return np.array(found, np.float64).reshape(-1, 5)


def distance(p: np.ndarray, b: np.ndarray) -> np.ndarray:
    """sqrt(sum (p - b)^2 / b) over the last axis."""
    return np.sqrt(((p - b) ** 2 / b).sum(-1))


def project(q: np.ndarray, b: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return the p with distance(p, b) <= radius that minimises sum q log(q / p), by two nested bisections.

    All of shape (..., bins), radius (..., 1).
    """

    def at(multiplier: np.ndarray) -> np.ndarray:
        low, high = -11 * (1 + multiplier), 11 * (1 + multiplier)
        for _ in range(60):
            s = (low + high) / 2
            root = np.sqrt(s * s + 4 * multiplier * q / b)
            p = np.where(s > 0, b * (s + root) / (2 * multiplier), 2 * q / (root - s))
            big = p.sum(-1, keepdims=True) > 1
            low, high = np.where(big, low, s), np.where(big, s, high)
        return p

    low, high = np.full(radius.shape, 1e-12), np.full(radius.shape, 1e12)
    for _ in range(55):
        middle = np.sqrt(low * high)
        far = distance(at(middle), b)[..., None] > radius
        low, high = np.where(far, middle, low), np.where(far, high, middle)
    p = at(high)
    return np.where(distance(q, b)[..., None] <= radius, q, p / p.sum(-1, keepdims=True))
