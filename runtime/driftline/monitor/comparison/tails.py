"""Distribution functions of binned values: linear within a bin, but falling as a power in the two tails.

The outer bins reach from an outer quantile to an extreme, which is far away in a long tail: spread evenly,
values would lie much too far out. What is known of a tail is how many values are beyond its inner end, how
many beyond the reference's extreme, and where its own last value is. Between these, the logarithm of the
number farther out falls linearly with that of the distance from the median, as in Pareto's law.
"""

from __future__ import annotations

import numpy as np

from driftline.tensors import Array

_TAIL_POINTS = 12
"""Points in each part of a tail: within the reference's extreme, and beyond it."""

_ROWS_BEYOND_LAST = 0.5
"""Rows assumed to be farther out than the last one."""


def distribution_functions(
    edges: Array, last: Array, counts: Array, least: Array, greatest: Array
) -> tuple[Array, Array]:
    """Return points, and the shares of values below them of samples in the same bins.

    edges            (columns, E) ascending; the first and last real ones are the reference's extremes
    last             (columns,) the index of the last real edge
    counts           (samples, columns, E + 1 or more) of finite values, at least one in each column
    least, greatest  (samples, columns) values

    Returns (columns, points) ascending, and (samples, columns, points), linear between the points.
    """
    row = np.arange(len(edges))
    below = np.cumsum(counts, axis=2, dtype=np.float64)
    rows = below[:, :, -1]
    low = np.minimum(1, last // 2)
    high = last - low
    inner, outer = edges[row, low], edges[row, high]
    middle = edges[row, (last + 1) // 2]
    left, left_counts = _tail(-inner, -middle, -edges[:, 0], -least, (below[:, row, low], below[:, :, 0]))
    right, right_counts = _tail(
        outer, middle, edges[row, last], greatest, tuple(rows - below[:, row, edge] for edge in (high, last))
    )
    index = np.clip(np.arange(edges.shape[1]) + low[:, None], low[:, None], high[:, None])
    points = [-left[:, ::-1], np.take_along_axis(edges, index, axis=1), right]
    counts_below = [left_counts[:, :, ::-1], below[:, row[:, None], index], rows[:, :, None] - right_counts]
    return np.concatenate(points, axis=1), np.concatenate(counts_below, axis=2) / rows[:, :, None]


def _tail(
    start: Array, middle: Array, extreme: Array, sample_extreme: Array, beyond: tuple[Array, ...]
) -> tuple[Array, Array]:
    """Return points of an upper tail from `start` on, and how many values of each sample are above them.

    middle   where distances are measured from
    extreme  the reference's; `sample_extreme` is each sample's
    beyond   how many values of each sample are above the start, and above the extreme
    """
    scale = start - middle
    scale = np.where(scale > 0, scale, np.maximum(extreme - start, 1.0))
    stops = 1 + np.stack([extreme - start, np.max(sample_extreme, axis=0) - start]) / scale
    border, far = np.log(np.maximum.accumulate(stops))
    ends = np.log(np.maximum(1 + (sample_extreme - start) / scale, 1.0))
    parts = [
        _tail_part(np.zeros_like(border), border, ends, beyond[0], beyond[1]),
        _tail_part(border, far, ends, beyond[1], np.zeros_like(beyond[1])),
    ]
    distances, above = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    return start[:, None] + scale[:, None] * np.expm1(distances), above


def _tail_part(
    begin: Array, end: Array, sample_end: Array, counts: Array, beyond: Array
) -> tuple[Array, Array]:
    """Return logarithmic distances from `begin` to `end`, and how many values are farther out.

    There are `counts` at the beginning and `beyond` at the end or, if that is 0, half a row at the sample's
    last value, `sample_end`.
    """
    positions = begin[:, None] + np.linspace(0, 1, _TAIL_POINTS) * (end - begin)[:, None]
    stop = np.where(beyond > 0, end, np.clip(sample_end, begin, end))
    slope = np.log(
        np.maximum(beyond, _ROWS_BEYOND_LAST) / np.maximum(counts, _ROWS_BEYOND_LAST)
    ) / np.maximum(stop - begin, 1e-12)
    above = counts[:, :, None] * np.exp(slope[:, :, None] * (positions - begin[:, None]))
    return positions, np.where(positions > stop[:, :, None] + 1e-12, 0.0, above)
