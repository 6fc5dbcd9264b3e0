"""Sums of products of standardised columns, for correlations."""

from __future__ import annotations

from typing import Any

import numpy as np

from driftline_kernels.device import BLOCKS, THREADS, blocks_for, body, driver, grid, on_cpu
from driftline_kernels.sharing import share
from driftline_kernels.standard import ABREAST, standardise, standardised

cuda: Any = None  # numba.cuda, bound before the first launch

TILE = 2048
"""Standardised values that a CUDA block keeps in its own memory, 16 KB: rows of up to so many."""


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
        update_there(values, len(values), scaling, comoments)


def update_there(values: Any, rows: int, scaling: Any, comoments: Any) -> None:
    """As `update`, of the first rows of what lies on a GPU; rows of fewer than TILE columns."""
    pairs = blocks_for(comoments.size)
    if rows and pairs:
        blocks = min(-(-values.shape[0] // (TILE // len(comoments))), -(-BLOCKS // pairs))
        _update_cuda((blocks, pairs), values, rows, scaling, comoments)


@body
def add_products(z: Any, comoments: Any) -> None:
    """Add the products of rows as `standardise` leaves them, unless `comoments` is (0, 0)."""
    for i in range(len(comoments)):
        z0, z1, z2, z3 = z[0, i], z[1, i], z[2, i], z[3, i]
        for j in range(len(comoments)):
            comoments[i, j] += z0 * z[0, j] + z1 * z[1, j] + z2 * z[2, j] + z3 * z[3, j]


@driver
def _update(values: Any, scaling: Any, comoments: Any) -> None:
    rows, columns = values.shape
    z = np.empty((ABREAST, columns + 1))
    means, scales = scaling[:, 0].copy(), scaling[:, 1].copy()
    for row in range(0, rows, ABREAST):
        standardise(values, row, rows, means, scales, z)
        add_products(z, comoments)


@grid
def _update_cuda(values: Any, rows: int, scaling: Any, comoments: Any) -> None:
    z = cuda.shared.array(TILE, np.float64)  # some rows; a thread has a pair of columns
    width, columns = len(comoments), len(comoments) - 1
    depth = TILE // width
    pair = cuda.blockIdx.y * THREADS + cuda.threadIdx.x
    i, j = pair // width, pair % width
    first, stop = share(rows, cuda.blockIdx.x, cuda.gridDim.x)
    total = 0.0
    for start in range(first, stop, depth):
        some = min(depth, stop - start)
        for place in range(cuda.threadIdx.x, some * width, THREADS):
            row, column = start + place // width, place % width
            z[place] = 1.0
            if column < columns:
                z[place] = standardised(values[row, column], scaling[column, 0], scaling[column, 1])
        cuda.syncthreads()
        if i < width:
            for row in range(some):
                total += z[row * width + i] * z[row * width + j]
        cuda.syncthreads()
    if i < width:
        cuda.atomic.add(comoments, (i, j), total)
