"""Count codes of categories."""

from __future__ import annotations

from typing import Any

import numpy as np

from driftline_kernels.device import BLOCKS, THREADS, blocks_for, body, driver, grid, on_cpu
from driftline_kernels.sharing import share

cuda: Any = None  # numba.cuda, bound before the first launch

HISTOGRAM = 4096
"""Categories that a CUDA block counts in shared memory, 16 KB, before it adds them to the total."""

_DEPTH = 16  # codes that a thread counts at least, if there are enough


def count(codes: Any, counts: Any) -> None:
    """Add the rows of `codes` to `counts`, in place.

    codes   (rows,) int32, -1 <= code < n, where -1 is missing; on cpu or cuda
    counts  (n + 1,) int64, on the same device; the last one counts missing values
    """
    if on_cpu(codes):
        _count(codes, counts)
    else:
        _count_cuda(min(-(-blocks_for(len(codes)) // _DEPTH), BLOCKS), codes, counts)


@body
def place_of(code: int, places: int) -> int:
    """Return where a code is counted: -1 in the last place."""
    return code if code >= 0 else places - 1


@driver
def _count(codes: Any, counts: Any) -> None:
    for row in range(len(codes)):
        counts[place_of(codes[row], len(counts))] += 1


@grid
def _count_cuda(codes: Any, counts: Any) -> None:
    histogram = cuda.shared.array(HISTOGRAM, np.int32)
    few = len(counts) <= HISTOGRAM
    start, stop = share(len(codes), cuda.blockIdx.x, cuda.gridDim.x)
    for place in range(cuda.threadIdx.x, HISTOGRAM, THREADS):
        histogram[place] = 0
    cuda.syncthreads()
    for row in range(start + cuda.threadIdx.x, stop, THREADS):
        place = place_of(codes[row], len(counts))
        if few:
            cuda.atomic.add(histogram, place, 1)
        else:
            cuda.atomic.add(counts, place, 1)
    cuda.syncthreads()
    for place in range(cuda.threadIdx.x, min(HISTOGRAM, len(counts)), THREADS):
        if histogram[place] > 0:
            cuda.atomic.add(counts, place, np.int64(histogram[place]))
