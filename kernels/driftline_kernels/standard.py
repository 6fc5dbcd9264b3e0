"""Values in standard deviations from the reference's mean: what whole rows are compared in."""

from __future__ import annotations

from typing import Any

import numpy as np

from driftline_kernels.device import body

LIMIT = 1000.0
"""Standard deviations that a value is clipped to, so that no row outweighs all others or overflows."""


@body
def standardised(x: float, column: int, scaling: Any) -> float:
    """(x - mean) / sd, at most 1000 away from 0; 0, the mean, if x is missing or infinite.

    scaling  (columns, 2) float64; mean and 1 / sd of the reference, 0 for a column that never varied
    """
    z = (np.float64(x) - scaling[column, 0]) * scaling[column, 1]
    z = z if z < LIMIT else LIMIT
    z = z if z > -LIMIT else -LIMIT
    return z if x - x == 0 else 0.0


@body
def standardise(values: Any, row: int, scaling: Any, z: Any) -> None:
    """Set the first of z to a row, standardised."""
    for column in range(len(scaling)):
        z[column] = standardised(values[row, column], column, scaling)
