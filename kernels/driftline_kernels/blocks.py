"""What is kept of a matrix on a GPU, in one launch: some CUDA blocks have bins and moments of columns, some
products of columns, some features of rows.

All that waits for other threads is in this module, each of its arrays in a line of its own: Numba's simulator
has it so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from driftline_kernels.bins import CELLS, Bins, bin_of, cell_of
from driftline_kernels.device import BLOCKS, THREADS, blocks_for, body, grid, zeros
from driftline_kernels.fourier import cosine
from driftline_kernels.moments import FIELDS, add, add_one, summary
from driftline_kernels.sharing import share
from driftline_kernels.standard import standardised

if TYPE_CHECKING:
    from driftline_kernels.rows import Parts

cuda: Any = None  # numba.cuda, bound before the first launch

DEPTH = 16
"""Values that a thread has at least, where there are as many."""

TILE = 2048
"""Numbers of eight bytes in a block's own memory, 16 KB: standardised rows of up to so many columns, or"""

HISTOGRAM = 2 * TILE
"""so many counts, before they are added to those of all blocks."""

WARP = 32
"""Threads that have neighbouring features of the same rows, and columns of these in a block's memory."""

EACH = 8
"""Rows of a thread that has a feature, at a time: a weight is read once for all of them."""

_LANES = THREADS // WARP
_ROWS = _LANES * EACH


def count(values: Any, rows: int, bins: Bins, counts: Any) -> None:
    """As bins.count, of the first rows of what lies on a GPU."""
    blocks, width = layout(values, counts.shape[1])
    _count_cuda(blocks, values, rows, width, *bins, counts)


def update(values: Any, rows: int, moments: Any) -> None:
    """As moments.update, of the first rows of what lies on a GPU."""
    blocks, width = layout(values, 1)
    _update_cuda(blocks, values, rows, width, zeros((room(len(moments)),), np.float64), moments)


def multiply(values: Any, rows: int, scaling: Any, comoments: Any) -> None:
    """As comoments.update, of the first rows of what lies on a GPU; rows of fewer than TILE columns."""
    _multiply_cuda(products_layout(values, comoments), values, rows, scaling, comoments)


def project(values: Any, rows: int, scaling: Any, weights: Any, sums: Any) -> None:
    """As fourier.update, of the first rows of what lies on a GPU."""
    _project_cuda(features_layout(values, sums), values, rows, scaling, weights, sums)


def observe(values: Any, rows: int, parts: Parts) -> None:
    """All of these at once, of a state on a GPU; see `rows.sent`."""
    state = parts.state
    (across, tiles), width = layout(values, state.counts.shape[1])
    deep, pairs = products_layout(values, parts.comoments)
    long, warps = features_layout(values, parts.features)
    _observe_cuda(
        across * tiles + deep * pairs + long * warps, values, rows, width, across, deep, long,
        state.edges, state.first, state.counts, state.scratch, parts.moments,
        state.scaling, parts.comoments, state.weights, parts.features,
    )  # fmt: skip


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


def products_layout(values: Any, comoments: Any) -> tuple[int, int]:
    """Blocks by rows and by pairs of columns."""
    rows, pairs = len(values), blocks_for(comoments.size)
    return (
        (min(-(-rows // (TILE // len(comoments))), -(-BLOCKS // pairs)), pairs) if rows and pairs else (0, 0)
    )


def features_layout(values: Any, sums: Any) -> tuple[int, int]:
    """Blocks by rows and by features."""
    rows, warps = len(values), -(-len(sums) // WARP)
    return (min(-(-rows // _ROWS), -(-BLOCKS // warps)), warps) if rows and warps else (0, 0)


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
def gather(
    own: Any, tile: int, width: int, block: int, blocks: int, last: Any, scratch: Any, moments: Any
) -> None:
    """Merge the moments of all blocks' threads into those of columns; by all threads.

    The block that comes last merges what all have left in `scratch`, always in the same order, and leaves it
    as it was; see `room`. `last` is (1,) int32 of this block.
    """
    thread, columns, lanes = cuda.threadIdx.x, len(moments), THREADS // width
    column = tile * width + thread % width
    mine = thread < width and column < columns
    parts, arrived = scratch[columns:], scratch[:columns]
    fold(own, width, lanes)
    if mine:
        at = (block * columns + column) * FIELDS
        for field in range(FIELDS):
            parts[at + field] = own[thread, field]
    cuda.threadfence()
    cuda.syncthreads()
    if thread == 0:
        before = cuda.atomic.add(arrived, tile, 1.0)
        last[0] = 1 if before == blocks - 1 else 0
    cuda.threadfence()  # what is read next is what the other blocks have left there
    cuda.syncthreads()
    if last[0] == 1:
        restart(own)
        if thread // width < lanes and column < columns:
            for other in range(thread // width, blocks, lanes):
                at = (other * columns + column) * FIELDS
                add_one(own, thread, parts[at : at + FIELDS])
        cuda.syncthreads()
        fold(own, width, lanes)
        if mine:
            add_one(moments, column, own[thread])
        if thread == 0:
            arrived[tile] = 0.0


# What a block does of its share of rows: `place` is which of the blocks that share them, how many these are,
# and which of the columns, pairs or features are its own. `shared` is (TILE,) float64.


@body
def observe_columns(
    values: Any,
    rows: int,
    place: Any,
    width: int,
    bins: Any,
    counts: Any,
    scratch: Any,
    moments: Any,
    own: Any,
) -> None:
    """Bins and moments of `width` columns; by all threads. `own`: shared, moments, last; see `gather`."""
    (block, blocks, tile), (edges, first), (shared, mine, last) = place, bins, own
    histogram, lane, lanes = shared.view(np.int32), cuda.threadIdx.x // width, THREADS // width
    at, left, cells = cuda.threadIdx.x % width, tile * width, counts.shape[1]
    column = left + at
    begin, end = share(rows, block, blocks)
    clear(histogram)
    restart(mine)
    cuda.syncthreads()
    if lane < lanes and column < len(counts):
        for start in range(begin, end, lanes * DEPTH):  # few enough to be in the cache the second time
            stop = min(start + lanes * DEPTH, end)
            tally(values, column, start + lane, stop, lanes, edges, first, histogram, at * cells)
            add_rows(values, column, start + lane, stop, lanes, mine)
    cuda.syncthreads()
    pour(histogram, left, min(width, len(counts) - left), counts)
    gather(mine, tile, width, block, blocks, last, scratch, moments)


@body
def add_products(values: Any, rows: int, place: Any, scaling: Any, comoments: Any, shared: Any) -> None:
    """Products of standardised rows, some at a time; a thread has a pair of columns."""
    block, blocks, tile = place
    width, columns = len(comoments), len(comoments) - 1
    depth = TILE // width
    pair = tile * THREADS + cuda.threadIdx.x
    i, j = pair // width, pair % width
    first, stop = share(rows, block, blocks)
    total = 0.0
    for start in range(first, stop, depth):
        some = min(depth, stop - start)
        for at in range(cuda.threadIdx.x, some * width, THREADS):
            row, column = start + at // width, at % width
            shared[at] = 1.0
            if column < columns:
                shared[at] = standardised(values[row, column], scaling[column, 0], scaling[column, 1])
        cuda.syncthreads()
        if i < width:
            for row in range(some):
                total += shared[row * width + i] * shared[row * width + j]
        cuda.syncthreads()
    if i < width:
        cuda.atomic.add(comoments, (i, j), total)


@body
def add_features(
    values: Any, rows: int, place: Any, scaling: Any, weights: Any, sums: Any, shared: Any
) -> None:
    """Features of rows; a thread has one of EACH rows at a time."""
    block, blocks, tile = place
    z, phases = shared.view(np.float32), cuda.local.array(EACH, np.float32)
    lane, columns = cuda.threadIdx.x // WARP, len(scaling)
    d = tile * WARP + cuda.threadIdx.x % WARP
    mine = d if d < len(sums) else 0
    first, stop = share(rows, block, blocks)
    total = 0.0
    for start in range(first, stop, _ROWS):
        for each in range(EACH):
            phases[each] = weights[columns, mine]
        for left in range(0, columns, WARP):
            some = min(WARP, columns - left)
            for at in range(cuda.threadIdx.x, _ROWS * WARP, THREADS):
                row, column = start + at // WARP, left + at % WARP
                if row < stop and column < columns:
                    mean, scale = scaling[column, 0], scaling[column, 1]
                    z[at] = np.float32(standardised(values[row, column], mean, scale))
            cuda.syncthreads()
            for column in range(some):
                weight = weights[left + column, mine]
                for each in range(EACH):
                    phases[each] += z[(lane * EACH + each) * WARP + column] * weight
            cuda.syncthreads()
        for each in range(EACH):
            if start + lane * EACH + each < stop:
                total += np.float64(cosine(phases[each]))
    if d < len(sums):
        cuda.atomic.add(sums, d, total)


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
    gather(own, cuda.blockIdx.y, width, cuda.blockIdx.x, cuda.gridDim.x, last, scratch, moments)


@grid
def _multiply_cuda(values: Any, rows: int, scaling: Any, comoments: Any) -> None:
    shared = cuda.shared.array(TILE, np.float64)
    place = (cuda.blockIdx.x, cuda.gridDim.x, cuda.blockIdx.y)
    add_products(values, rows, place, scaling, comoments, shared)


@grid
def _project_cuda(values: Any, rows: int, scaling: Any, weights: Any, sums: Any) -> None:
    shared = cuda.shared.array(TILE, np.float64)
    place = (cuda.blockIdx.x, cuda.gridDim.x, cuda.blockIdx.y)
    add_features(values, rows, place, scaling, weights, sums, shared)


@grid
def _observe_cuda(
    values: Any,
    rows: int,
    width: int,
    across: int,
    deep: int,
    long: int,
    edges: Any,
    first: Any,
    counts: Any,
    scratch: Any,
    moments: Any,
    scaling: Any,
    comoments: Any,
    weights: Any,
    features: Any,
) -> None:
    """Blocks one behind the other: `across` share the rows for columns, `deep` for products, `long` for
    features, as often as each has tiles."""
    shared = cuda.shared.array(TILE, np.float64)
    mine = cuda.shared.array((THREADS, FIELDS), np.float64)
    last = cuda.shared.array(1, np.int32)
    here = cuda.blockIdx.x
    products = here - across * ((len(counts) + width - 1) // width)
    projections = products - deep * ((comoments.size + THREADS - 1) // THREADS)
    if products < 0:
        place, bins, own = (here % across, across, here // across), (edges, first), (shared, mine, last)
        observe_columns(values, rows, place, width, bins, counts, scratch, moments, own)
    elif projections < 0:
        pairs = (products % deep, deep, products // deep)
        add_products(values, rows, pairs, scaling, comoments, shared)
    else:
        warps = (projections % long, long, projections // long)
        add_features(values, rows, warps, scaling, weights, features, shared)
