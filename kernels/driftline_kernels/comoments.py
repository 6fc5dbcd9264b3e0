"""Sums of products of standardised columns, for correlations."""

from __future__ import annotations

from typing import Any

import numpy as np

from driftline_kernels.device import body, driver
from driftline_kernels.standard import ROW_STEP, standardise


def update(values: Any, scaling: Any, comoments: Any) -> None:
    """Add the outer products zz' of the standardised rows z, each with a 1 at its end, in place.

    So the last column holds the sums of each column and the number of rows; covariances of z are
    comoments[i, j] / rows - sums[i] sums[j] / rows^2. A missing or infinite value counts as the
    reference's mean, z = 0, which pulls correlations of columns with many of them to 0. Merges by addition.

    values     (rows, columns) float32 or float64
    scaling    (columns, 2) float64; mean and 1 / sd of the reference
    comoments  (columns + 1, columns + 1) float64; symmetric. Filling both triangles is
               faster than filling one: all vectors have one length
    """
    _update(values, scaling, comoments)


@body
def add_products(z: Any, comoments: Any) -> None:
    """Add the products of rows that `standardise` wrote, unless `comoments` is (0, 0)."""
    for i in range(len(comoments)):
        z0, z1, z2, z3 = z[0, i], z[1, i], z[2, i], z[3, i]
        for j in range(len(comoments)):
            comoments[i, j] += z0 * z[0, j] + z1 * z[1, j] + z2 * z[2, j] + z3 * z[3, j]


@driver
def _update(values: Any, scaling: Any, comoments: Any) -> None:
    rows, columns = values.shape
    z = np.empty((ROW_STEP, columns + 1))
    means, scales = scaling[:, 0].copy(), scaling[:, 1].copy()
    for row in range(0, rows, ROW_STEP):
        standardise(values, row, rows, means, scales, z)
        add_products(z, comoments)
