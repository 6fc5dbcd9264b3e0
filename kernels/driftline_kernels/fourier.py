"""Random Fourier features of whole rows; the difference of two samples' mean features is their MMD.

Rahimi, Recht: Random features for large-scale kernel machines (2007).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from driftline_kernels.device import BLOCKS, THREADS, body, driver, grid, on_cpu
from driftline_kernels.sharing import share
from driftline_kernels.standard import ABREAST, standardise, standardised

cuda: Any = None  # numba.cuda, bound before the first launch

WARP = 32
"""CUDA threads that have neighbouring features of the same rows, and columns that are in a block's memory."""

EACH = 8
"""Rows of a CUDA thread at a time: a weight is read once for all of them."""

_LANES = THREADS // WARP
_ROWS = _LANES * EACH
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
        update_there(values, len(values), scaling, weights, sums)


def update_there(values: Any, rows: int, scaling: Any, weights: Any, sums: Any) -> None:
    """As `update`, of the first rows of what lies on a GPU."""
    warps = -(-len(sums) // WARP)
    if rows and warps:
        blocks = min(-(-values.shape[0] // _ROWS), -(-BLOCKS // warps))
        _update_cuda((blocks, warps), values, rows, scaling, weights, sums)


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
def add_features(z: Any, rows: int, weights: Any, phases: Any, sums: Any) -> None:
    """Add the features of the first rows of z, as `standardise` leaves them, of ABREAST at most.

    phases  (ABREAST, D) float32 is overwritten
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
    for row in range(min(rows, ABREAST)):
        for d in range(len(sums)):
            sums[d] += cosine(phases[row, d])


@driver
def _update(values: Any, scaling: Any, weights: Any, sums: Any) -> None:
    rows, columns = values.shape
    z, phases = np.empty((ABREAST, columns + 1)), np.empty((ABREAST, len(sums)), np.float32)
    means, scales = scaling[:, 0].copy(), scaling[:, 1].copy()
    for row in range(0, rows, ABREAST):
        standardise(values, row, rows, means, scales, z)
        add_features(z, rows - row, weights, phases, sums)


@grid
def _update_cuda(values: Any, rows: int, scaling: Any, weights: Any, sums: Any) -> None:
    z = cuda.shared.array((_ROWS, WARP), np.float32)
    phases = cuda.local.array(EACH, np.float32)
    lane, columns = cuda.threadIdx.x // WARP, len(scaling)
    d = cuda.blockIdx.y * WARP + cuda.threadIdx.x % WARP
    mine = d if d < len(sums) else 0
    first, stop = share(rows, cuda.blockIdx.x, cuda.gridDim.x)
    total = 0.0
    for start in range(first, stop, _ROWS):
        for each in range(EACH):
            phases[each] = weights[columns, mine]
        for left in range(0, columns, WARP):
            some = min(WARP, columns - left)
            for place in range(cuda.threadIdx.x, _ROWS * WARP, THREADS):
                row, column = place // WARP, place % WARP
                if start + row < stop and column < some:
                    x = values[start + row, left + column]
                    mean, scale = scaling[left + column, 0], scaling[left + column, 1]
                    z[row, column] = np.float32(standardised(x, mean, scale))
            cuda.syncthreads()
            for column in range(some):
                weight = weights[left + column, mine]
                for each in range(EACH):
                    phases[each] += z[lane * EACH + each, column] * weight
            cuda.syncthreads()
        for each in range(EACH):
            if start + lane * EACH + each < stop:
                total += np.float64(cosine(phases[each]))
    if d < len(sums):
        cuda.atomic.add(sums, d, total)
