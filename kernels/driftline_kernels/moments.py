"""Count, mean, spread and range of the finite values of columns; moments of batches merge accurately.

A moment is (count, mean, M2, least, greatest), M2 the sum of squared deviations from the mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline_kernels.device import BLOCK, blocks_for, body, driver, grid, on_cpu

cuda: Any = None  # numba.cuda, bound before the first launch

FIELDS = 5
"""Numbers of one moment: count, mean, M2, least, greatest."""


def start(columns: int) -> NDArray[np.float64]:
    """Return moments (columns, 5) float64 of no rows: range +inf to -inf."""
    return np.tile(np.array([0, 0, 0, np.inf, -np.inf]), (columns, 1))


def update(values: Any, moments: Any) -> None:
    """Add the finite values of `values` to `moments`, in place; NaN and infinities are ignored.

    values   (rows, columns) float32 or float64; squares of deviations above 1e308 overflow
    moments  (columns, 5) float64: count, mean, M2, least, greatest

    In a block, deviations are taken from its first finite value x: (x - mean)^2 <= M2, so the rounding error
    of M2 is at most rows * 1e-16 of it, whatever the mean. Merging blocks rounds their means, which adds a
    relative error of up to about 1e-15 |mean| / sd.
    """
    _update(values, moments)


def merge(moments: Any, others: Any) -> None:
    """Add `others` to `moments`, in place; both (columns, 5) float64 on the same device.

    Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances (1979).
    """
    if on_cpu(moments):
        _merge(moments, others)
    else:
        _merge_cuda(blocks_for(len(moments)), moments, others)


@body
def summary(values: Any, first: int, stop: int) -> tuple[float, float, float, float, float]:
    """Return the moment of some rows of one column."""
    count, origin, total, squares, least, greatest = 0, 0.0, 0.0, 0.0, np.inf, -np.inf
    for row in range(first, stop):
        x = np.float64(values[row])
        if x - x == 0:  # finite
            if count == 0:
                origin = x
            count += 1
            deviation = x - origin
            total += deviation
            squares += deviation * deviation
            least = min(least, x)
            greatest = max(greatest, x)
    if count == 0:
        return 0.0, 0.0, 0.0, np.inf, -np.inf
    return float(count), origin + total / count, max(squares - total * total / count, 0.0), least, greatest


@body
def add(
    moments: Any, column: int, count: float, mean: float, squares: float, least: float, greatest: float
) -> None:
    """Merge one moment into a column's."""
    if count > 0:
        previous = moments[column, 0]
        total = previous + count
        delta = mean - moments[column, 1]
        moments[column, 0] = total
        moments[column, 1] += delta * (count / total)
        moments[column, 2] += squares + delta * delta * (previous * count / total)
        moments[column, 3] = min(moments[column, 3], least)
        moments[column, 4] = max(moments[column, 4], greatest)


@body
def add_moment(moments: Any, column: int, other: Any) -> None:
    """Merge a moment, given as an array, into a column's."""
    add(moments, column, other[0], other[1], other[2], other[3], other[4])


@driver
def _update(values: Any, moments: Any) -> None:
    rows, columns = values.shape
    for first in range(0, rows, BLOCK):
        stop = min(first + BLOCK, rows)
        for column in range(columns):
            count, mean, squares, least, greatest = summary(values[:, column], first, stop)
            add(moments, column, count, mean, squares, least, greatest)


@driver
def _merge(moments: Any, others: Any) -> None:
    for column in range(len(moments)):
        add_moment(moments, column, others[column])


@grid
def _merge_cuda(moments: Any, others: Any) -> None:
    column = cuda.grid(1)
    if column < len(moments):
        add_moment(moments, column, others[column])
