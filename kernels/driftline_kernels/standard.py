"""Values in standard deviations from the reference's mean, as whole rows are compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from driftline_kernels.device import body

_MAX_SCALE = 3e38  # the largest scale in float32

LIMIT = 1000.0
"""Standard deviations that a value is clipped to, so that no row outweighs all others or overflows."""

ROW_STEP = 4
"""Rows that the CPU processes together: the sums that they are added to are loaded and stored only once."""


@body
def standardised(x: float, mean: float, scale: Any) -> Any:
    """Return (x - mean) * scale, limited to 1000 from 0; 0, the mean, if x is missing or infinite.

    A reference's scaling is (columns, 2) float64: mean and 1 / sd, 0 for a column that never varied.
    """
    z = (np.float64(x) - mean) * scale
    z = z if z < LIMIT else LIMIT
    z = z if z > -LIMIT else -LIMIT
    return z if x - x == 0 else 0.0


@body
def standardise(values: Any, first: int, stop: int, means: Any, scales: Any, z: Any) -> None:
    """Set z to the rows first:stop, standardised, each with a 1 at its end.

    means, scales  (columns,) float64, contiguous, so that this is vectorised
    z              (ROW_STEP, columns + 1); rows after `stop` become 0, and add nothing to sums of products
    """
    for row in range(len(z)):
        if first + row < stop:
            for column in range(len(means)):
                z[row, column] = standardised(values[first + row, column], means[column], scales[column])
            z[row, len(means)] = 1.0
        else:
            for column in range(len(means) + 1):
                z[row, column] = 0.0


@body
def split_scaling(mean: float, scale: float, zero: Any) -> Any:
    """Return a mean in two parts and a scale, for `standardised_split`.

    The second part is the rounding error of the first.

    zero  of the type that they become
    """
    kind = type(zero)
    high = kind(mean)
    return high, kind(mean - np.float64(high)), kind(min(scale, _MAX_SCALE))


@body
def standardised_split(x: Any, high: Any, low: Any, scale: Any) -> Any:
    """As `standardised`, in the precision of x: most units of a GPU are for float32. See `split_scaling`."""
    limit = type(x)(LIMIT)
    z = ((x - high) - low) * scale
    z = z if z < limit else limit
    z = z if z > -limit else -limit
    return z if abs(x) < np.inf else type(x)(0)
