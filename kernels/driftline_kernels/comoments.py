"""Sums of products of standardised columns, for correlations."""

from __future__ import annotations

from typing import Any

import numpy as np

from driftline_kernels.device import STRIPE, body, driver, grid, on_cpu, stripes
from driftline_kernels.standard import standardise, standardised

cuda: Any = None  # numba.cuda, bound by `grid` at the first launch


def update(values: Any, scaling: Any, comoments: Any) -> None:
    """Add the outer products zz' of the standardised rows z, each with a 1 at its end, in place.

    So the last column holds the sums of each column and the number of rows; covariances of z are
    comoments[i, j] / rows - sums[i] sums[j] / rows^2. A missing or infinite value counts as the
    reference's mean, z = 0, which pulls correlations of columns with many of them to 0. Merges by addition.

    values     (rows, columns) float32 or float64, on cpu or cuda
    scaling    (columns, 2) float64, on the same device; mean and 1 / sd of the reference
    comoments  (columns + 1, columns + 1) float64, on the same device; symmetric. Filling both triangles is
               faster than one: all vectors are of one length
    """
    if on_cpu(values):
        _update(values, scaling, comoments)
    else:
        _update_cuda(stripes(len(values)) * comoments.size, values, scaling, comoments)


@body
def add_products(z: Any, comoments: Any) -> None:
    """Add the products of one standardised row, unless `comoments` is (0, 0)."""
    for i in range(len(comoments)):
        for j in range(len(comoments)):
            comoments[i, j] += z[i] * z[j]


@driver
def _update(values: Any, scaling: Any, comoments: Any) -> None:
    rows, columns = values.shape
    z = np.ones(columns + 1)
    for row in range(rows):
        standardise(values, row, scaling, z)
        add_products(z, comoments)


@grid
def _update_cuda(values: Any, scaling: Any, comoments: Any) -> None:
    at = cuda.grid(1)
    stripe, i, j = at // comoments.size, at // len(comoments) % len(comoments), at % len(comoments)
    rows, columns = values.shape
    total = 0.0
    for row in range(stripe * STRIPE, min((stripe + 1) * STRIPE, rows)):
        left = standardised(values[row, i], i, scaling) if i < columns else 1.0
        right = standardised(values[row, j], j, scaling) if j < columns else 1.0
        total += left * right
    cuda.atomic.add(comoments, (i, j), total)
