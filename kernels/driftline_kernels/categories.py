"""Count codes of categories."""

from __future__ import annotations

from typing import Any

import numpy as np

from driftline_kernels.device import BLOCKS, THREADS, blocks_for, body, driver, grid, on_cpu
from driftline_kernels.sharing import rows_of_block

cuda: Any = None  # numba.cuda, bound before the first launch

HISTOGRAM = 4096
"""Categories that a CUDA block counts in shared memory, 16 KB, before it adds them to the total."""

_MIN_CODES = 16  # codes that a thread counts at least, if there are enough


def count(codes: Any, counts: Any) -> None:
    """Add the rows of `codes` to `counts`, in place.

    codes   (rows,) int32, -1 <= code < n, where -1 is missing; on cpu or cuda
    counts  (n + 1,) int64, on the same device; the last one counts missing values
    """
    if on_cpu(codes):
        _count(codes, counts)
    else:
        _count_cuda(min(-(-blocks_for(len(codes)) // _MIN_CODES), BLOCKS), codes, counts)


@body
def index_of(code: int, size: int) -> int:
    """Return where a code is counted: -1 in the last place."""
    return code if code >= 0 else size - 1


@driver
def _count(codes: Any, counts: Any) -> None:
    for row in range(len(codes)):
        counts[index_of(codes[row], len(counts))] += 1


@grid
def _count_cuda(codes: Any, counts: Any) -> None:
    histogram = cuda.shared.array(HISTOGRAM, np.int32)
    fits_shared = len(counts) <= HISTOGRAM
    start, stop = rows_of_block(len(codes), cuda.blockIdx.x, cuda.gridDim.x)
    for index in range(cuda.threadIdx.x, HISTOGRAM, THREADS):
        histogram[index] = 0
    cuda.syncthreads()
    for row in range(start + cuda.threadIdx.x, stop, THREADS):
        index = index_of(codes[row], len(counts))
        if fits_shared:
            cuda.atomic.add(histogram, index, 1)
        else:
            cuda.atomic.add(counts, index, 1)
    cuda.syncthreads()
    for index in range(cuda.threadIdx.x, min(HISTOGRAM, len(counts)), THREADS):
        if histogram[index] > 0:
            cuda.atomic.add(counts, index, np.int64(histogram[index]))
