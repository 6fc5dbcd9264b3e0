"""Random Fourier features of whole rows; the difference of two samples' mean features is their MMD.

Rahimi, Recht: Random features for large-scale kernel machines (2007).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from driftline_kernels.device import body, driver
from driftline_kernels.standard import ROW_STEP, standardise

_ROUND = np.float32(1.5 * 2**23)  # adding and subtracting it rounds a float32 to an integer


def update(values: Any, scaling: Any, weights: Any, sums: Any) -> None:
    """Add cos(z W + b) of the standardised rows z to `sums`, in place.

    values   (rows, columns) float32 or float64
    scaling  (columns, 2) float64; mean and 1 / sd of the reference
    weights  (columns + 1, D) float32; W, and the phases b as its last row
    sums     (D,) float64
    """
    _update(values, scaling, weights, sums)


@body
def cosine(x: Any) -> Any:
    """Return cos(x) of a float32, to 3e-7 and the rounding of x / 2 pi; branchless, so loops are vectorised.

    y, a quarter turn minus the distance from the nearest whole turn, is within [-1/4, 1/4], where
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
def add_features(z: Any, rows: int, weights: Any, phases: Any, sums: Any) -> None:
    """Add the features of the first rows of z, ROW_STEP at most, that `standardise` wrote.

    phases  (ROW_STEP, D) float32, overwritten
    """
    phases[:] = 0
    for column in range(len(weights)):
        z0, z1 = np.float32(z[0, column]), np.float32(z[1, column])
        z2, z3 = np.float32(z[2, column]), np.float32(z[3, column])
        for d in range(len(sums)):
            weight = weights[column, d]
            phases[0, d] += z0 * weight
            phases[1, d] += z1 * weight
            phases[2, d] += z2 * weight
            phases[3, d] += z3 * weight
    for row in range(min(rows, ROW_STEP)):
        for d in range(len(sums)):
            sums[d] += cosine(phases[row, d])


@driver
def _update(values: Any, scaling: Any, weights: Any, sums: Any) -> None:
    rows, columns = values.shape
    z, phases = np.empty((ROW_STEP, columns + 1)), np.empty((ROW_STEP, len(sums)), np.float32)
    means, scales = scaling[:, 0].copy(), scaling[:, 1].copy()
    for row in range(0, rows, ROW_STEP):
        standardise(values, row, rows, means, scales, z)
        add_features(z, rows - row, weights, phases, sums)
