"""Random Fourier features of whole rows; the difference of two samples' mean features is their MMD.

Rahimi, Recht: Random features for large-scale kernel machines (2007).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from driftline_kernels.device import STRIPE, body, driver, grid, on_cpu, stripes
from driftline_kernels.standard import standardise, standardised

cuda: Any = None  # numba.cuda, bound by `grid` at the first launch

_ROUND = np.float32(1.5 * 2**23)  # added and taken away again, it rounds a float32 to an integer


def update(values: Any, scaling: Any, weights: Any, sums: Any) -> None:
    """Add cos(z W + b) of the standardised rows z to `sums`, in place.

    values   (rows, columns) float32 or float64, on cpu or cuda
    scaling  (columns, 2) float64, on the same device; mean and 1 / sd of the reference
    weights  (columns + 1, D) float32, on the same device; W, and the phases b as its last row
    sums     (D,) float64, on the same device
    """
    if on_cpu(values):
        _update(values, scaling, weights, sums)
    else:
        _update_cuda(stripes(len(values)) * len(sums), values, scaling, weights, sums)


@body
def cosine(x: Any) -> Any:
    """cos(x) of a float32, to 3e-7 and the rounding of x / 2 pi, without branches: loops become vectors.

    y, a quarter turn less the distance from the nearest whole turn, is within [-1/4, 1/4], and there
    cos(x) = sin(2 pi y) is a polynomial of degree 9 (minimax, 3.4e-9).
    """
    turns = x * np.float32(0.15915494309189535)
    turns = turns - ((turns + _ROUND) - _ROUND)
    y = np.float32(0.25) - abs(turns)
    u = y * y
    p = np.float32(39.536705) * u + np.float32(-76.54978)
    p = p * u + np.float32(81.601004)
    p = p * u + np.float32(-41.341655)
    return y * (p * u + np.float32(6.2831852))


@body
def add_features(z: Any, weights: Any, phases: Any, sums: Any) -> None:
    """Add the features of one standardised row; `phases` (D,) float32 is overwritten."""
    for d in range(len(sums)):
        phases[d] = weights[len(weights) - 1, d]
    for column in range(len(weights) - 1):
        zc = np.float32(z[column])
        for d in range(len(sums)):
            phases[d] += zc * weights[column, d]
    for d in range(len(sums)):
        sums[d] += cosine(phases[d])


@driver
def _update(values: Any, scaling: Any, weights: Any, sums: Any) -> None:
    rows, columns = values.shape
    z, phases = np.empty(columns), np.empty(len(sums), np.float32)
    for row in range(rows):
        standardise(values, row, scaling, z)
        add_features(z, weights, phases, sums)


@grid
def _update_cuda(values: Any, scaling: Any, weights: Any, sums: Any) -> None:
    at = cuda.grid(1)
    stripe, d = at // len(sums), at % len(sums)
    rows, columns = values.shape
    total = 0.0
    for row in range(stripe * STRIPE, min((stripe + 1) * STRIPE, rows)):
        phase = weights[columns, d]
        for column in range(columns):
            phase += np.float32(standardised(values[row, column], column, scaling)) * weights[column, d]
        total += np.float64(cosine(phase))
    cuda.atomic.add(sums, d, total)
