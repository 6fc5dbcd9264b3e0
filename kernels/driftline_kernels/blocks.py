"""Bins and moments of all columns of a matrix on a GPU: what CUDA blocks do together, in one launch.

All that waits for other threads is in this module, each of its arrays in a line of its own: Numba's simulator
has it so.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from driftline_kernels.bins import CELLS, Bins, bin_of, cell_of
from driftline_kernels.device import BLOCKS, THREADS, body, grid, zeros
from driftline_kernels.moments import FIELDS, add, add_one, summary
from driftline_kernels.sharing import share

cuda: Any = None  # numba.cuda, bound before the first launch

DEPTH = 16
"""Values that a thread has at least, where there are as many."""

HISTOGRAM = 4096
"""Counts that a block keeps in its own memory, 16 KB, before it adds them to those of all blocks."""


def count(values: Any, rows: int, bins: Bins, counts: Any) -> None:
    """As bins.count, of the first rows of what lies on a GPU."""
    blocks, width = layout(values, counts.shape[1])
    _count_cuda(blocks, values, rows, width, *bins, counts)


def update(values: Any, rows: int, moments: Any) -> None:
    """As moments.update, of the first rows of what lies on a GPU."""
    blocks, width = layout(values, 1)
    _update_cuda(blocks, values, rows, width, zeros((room(len(moments)),), np.float64), moments)


def observe(values: Any, rows: int, bins: Bins, counts: Any, scratch: Any, moments: Any) -> None:
    """Both at once; `scratch` is float64 of a GPU, see `room`."""
    blocks, width = layout(values, counts.shape[1])
    _observe_cuda(blocks, values, rows, width, *bins, counts, scratch, moments)


def room(columns: int) -> int:
    """Numbers that blocks need to merge what each has found, zeros at first: see `gather`."""
    return columns * (BLOCKS * FIELDS + 1)


def layout(values: Any, cells: int) -> tuple[tuple[int, int], int]:
    """How threads share the columns of a matrix: blocks by rows and by columns, and columns of a block.

    Neighbouring threads have neighbouring values: of one column, if that is how they lie, else of one row.
    They are for all rows of the matrix, however few count: Numba prepares for each number of blocks.
    """
    rows, columns = values.shape
    if rows == 0 or columns == 0:
        return (0, 0), 1
    most = 1 if values.strides[0] < values.strides[1] else min(columns, THREADS, HISTOGRAM // cells)
    tiles = -(-columns // most)
    width = -(-columns // tiles)
    return (min(-(-rows // (DEPTH * (THREADS // width))), -(-BLOCKS // tiles)), tiles), width


# What a block does, with its histogram: (HISTOGRAM,) int32, the bins of its columns behind each other.


@body
def clear(histogram: Any) -> None:
    """Begin anew; by all threads."""
    for place in range(cuda.threadIdx.x, HISTOGRAM, THREADS):
        histogram[place] = 0


@body
def tally(
    values: Any,
    column: int,
    start: int,
    stop: int,
    step: int,
    edges: Any,
    first: Any,
    histogram: Any,
    at: int,
) -> None:
    """Count every so many rows of a column into the histogram, from place `at` on; by one thread."""
    low, scale, levels = edges[column, 0], edges[column, 1], int(edges[column, 2])
    lowest, highest = edges.dtype.type(0), edges.dtype.type(CELLS - 1)
    for row in range(start, stop, step):
        x = values[row, column]
        found = bin_of(x, cell_of(x, low, scale, lowest, highest), column, edges, first, levels)
        cuda.atomic.add(histogram, at + np.int64(found), 1)


@body
def pour(histogram: Any, column: int, width: int, counts: Any) -> None:
    """Add the histogram of `width` columns from `column` on to the counts of all blocks; by all threads."""
    cells = counts.shape[1]
    for place in range(cuda.threadIdx.x, width * cells, THREADS):
        number = histogram[place]
        if number > 0:
            cuda.atomic.add(counts, (column + place // cells, place % cells), np.int64(number))


# What a block does, with a moment of each of its threads: `own` (THREADS, FIELDS) float64. Each of its
# `width` columns has `lanes` threads, `width` apart.


@body
def restart(own: Any) -> None:
    """Begin anew; by each thread for itself."""
    thread = cuda.threadIdx.x
    own[thread, 0], own[thread, 1], own[thread, 2] = 0.0, 0.0, 0.0
    own[thread, 3], own[thread, 4] = np.inf, -np.inf


@body
def add_rows(values: Any, column: int, start: int, stop: int, step: int, own: Any) -> None:
    """Add every so many rows of a column to one's own moment; by one thread."""
    some = values[start:stop:step, column]
    count, mean, squares, least, greatest = summary(some, 0, len(some))
    add(own, cuda.threadIdx.x, count, mean, squares, least, greatest)


@body
def fold(own: Any, width: int, lanes: int) -> None:
    """Merge the moments of a column's threads into that of its first; by all threads."""
    thread, number = cuda.threadIdx.x, lanes
    while number > 1:
        half = (number + 1) // 2
        if thread // width < number // 2:
            add_one(own, thread, own[thread + half * width])
        cuda.syncthreads()
        number = half


@body
def gather(own: Any, column: int, width: int, lanes: int, last: Any, scratch: Any, moments: Any) -> None:
    """Merge the moments of all blocks' threads into those of columns; by all threads.

    The block that comes last merges what all have left in `scratch`, always in the same order, and leaves it
    as it was; see `room`. `last` is (1,) int32 of this block.
    """
    thread, blocks, columns = cuda.threadIdx.x, cuda.gridDim.x, len(moments)
    mine = thread < width and column < columns
    parts, arrived = scratch[columns:], scratch[:columns]
    fold(own, width, lanes)
    if mine:
        at = (cuda.blockIdx.x * columns + column) * FIELDS
        for field in range(FIELDS):
            parts[at + field] = own[thread, field]
    cuda.threadfence()
    cuda.syncthreads()
    if thread == 0:
        before = cuda.atomic.add(arrived, cuda.blockIdx.y, 1.0)
        last[0] = 1 if before == blocks - 1 else 0
    cuda.threadfence()  # what is read next is what the other blocks have left there
    cuda.syncthreads()
    if last[0] == 1:
        restart(own)
        if thread // width < lanes and column < columns:
            for block in range(thread // width, blocks, lanes):
                at = (block * columns + column) * FIELDS
                add_one(own, thread, parts[at : at + FIELDS])
        cuda.syncthreads()
        fold(own, width, lanes)
        if mine:
            add_one(moments, column, own[thread])
        if thread == 0:
            arrived[cuda.blockIdx.y] = 0.0


@grid
def _count_cuda(values: Any, rows: int, width: int, edges: Any, first: Any, counts: Any) -> None:
    histogram = cuda.shared.array(HISTOGRAM, np.int32)
    place, lane, lanes = cuda.threadIdx.x % width, cuda.threadIdx.x // width, THREADS // width
    column = cuda.blockIdx.y * width + place
    start, stop = share(rows, cuda.blockIdx.x, cuda.gridDim.x)
    clear(histogram)
    cuda.syncthreads()
    if lane < lanes and column < len(counts):
        tally(values, column, start + lane, stop, lanes, edges, first, histogram, place * counts.shape[1])
    cuda.syncthreads()
    pour(histogram, cuda.blockIdx.y * width, min(width, len(counts) - cuda.blockIdx.y * width), counts)


@grid
def _update_cuda(values: Any, rows: int, width: int, scratch: Any, moments: Any) -> None:
    own = cuda.shared.array((THREADS, FIELDS), np.float64)
    last = cuda.shared.array(1, np.int32)
    lane, lanes = cuda.threadIdx.x // width, THREADS // width
    column = cuda.blockIdx.y * width + cuda.threadIdx.x % width
    first, stop = share(rows, cuda.blockIdx.x, cuda.gridDim.x)
    restart(own)
    if lane < lanes and column < len(moments):
        for start in range(first, stop, lanes * DEPTH):
            add_rows(values, column, start + lane, min(start + lanes * DEPTH, stop), lanes, own)
    cuda.syncthreads()
    gather(own, column, width, lanes, last, scratch, moments)


@grid
def _observe_cuda(
    values: Any, rows: int, width: int, edges: Any, first: Any, counts: Any, scratch: Any, moments: Any
) -> None:
    histogram = cuda.shared.array(HISTOGRAM, np.int32)
    own = cuda.shared.array((THREADS, FIELDS), np.float64)
    last = cuda.shared.array(1, np.int32)
    place, lane, lanes = cuda.threadIdx.x % width, cuda.threadIdx.x // width, THREADS // width
    left = cuda.blockIdx.y * width
    column, cells = left + place, counts.shape[1]
    begin, end = share(rows, cuda.blockIdx.x, cuda.gridDim.x)
    clear(histogram)
    restart(own)
    cuda.syncthreads()
    if lane < lanes and column < len(counts):
        for start in range(begin, end, lanes * DEPTH):  # few enough to be in the cache the second time
            stop = min(start + lanes * DEPTH, end)
            tally(values, column, start + lane, stop, lanes, edges, first, histogram, place * cells)
            add_rows(values, column, start + lane, stop, lanes, own)
    cuda.syncthreads()
    pour(histogram, left, min(width, len(counts) - left), counts)
    gather(own, column, width, lanes, last, scratch, moments)
