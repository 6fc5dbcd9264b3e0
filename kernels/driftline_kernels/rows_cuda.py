"""All statistics of a matrix on a GPU, in one launch: some thread blocks compute bins and moments of columns,
some products of columns, some features of rows.

All code that waits for other threads is in this module, with each shared array on a line of its own: Numba's
simulator requires both. Array indices are unsigned: threads would check whether signed ones are negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from driftline_kernels.bins import CELLS, cell_among, cell_of, closer
from driftline_kernels.device import THREADS, blocks_for, body, grid
from driftline_kernels.fourier import cosine
from driftline_kernels.moments import FIELDS
from driftline_kernels.sharing import (
    GROUP,
    GROUPS,
    HISTOGRAM,
    ROW_STRIDE,
    ROWS,
    SIDE,
    TILE,
    UNROLL,
    WARP,
    columns_layout,
    features_layout,
    products_layout,
    share,
)
from driftline_kernels.standard import parted, standard

if TYPE_CHECKING:
    from driftline_kernels.rows import Parts

cuda: Any = None  # numba.cuda, bound before the first launch

REGISTERS = 128
"""The most registers of a thread: so four blocks fit on a multiprocessor; without a limit, three would."""

_WEIGHTS = ROWS * ROW_STRIDE  # the features' weights in shared memory are after the rows
_COUNT, _NUMBER, _SUM = np.dtype(np.int32), np.dtype(np.float32), np.dtype(np.float64)  # in shared memory
_LOST = 1e-13  # a remainder that is this small a part of a sum of squares may be rounding
_TINY = 1e-30  # a smaller sum of squares has lost digits in float32, or all of them


def observe(values: Any, rows: int, parts: Parts) -> None:
    """Add the first rows of a matrix on a GPU to a state there; see `rows.sent`, and `settle`."""
    state = parts.state
    (column_blocks, column_tiles), width = columns_layout(values, state.counts.shape[1])
    product_blocks, product_tiles = products_layout(len(values), len(parts.comoments))
    feature_blocks, feature_tiles = features_layout(len(values), len(parts.features))
    _observe_cuda(
        column_blocks * column_tiles + product_blocks * product_tiles + feature_blocks * feature_tiles,
        values, rows, width, column_blocks, product_blocks, feature_blocks,
        state.edges, state.first, state.counts, parts.centres, parts.moments,
        state.scaling, parts.comoments, state.weights, parts.features,
    )  # fmt: skip


def settle(parts: Parts) -> None:
    """Turn the sums of `observe` into moments, in place; once, after all rows.

    Rows observed after that are summed from these means.
    """
    _settle_cuda(blocks_for(len(parts.moments)), parts.centres, parts.moments)


# All threads of a block do each part together. `place` is (index among the blocks that share the rows, number
# of these blocks, index of the block's tile of columns, products or features); `shared` is the block's shared
# memory, as numbers of four bytes and as sums of eight.


@body
def observe_columns(
    values: Any,
    rows: int,
    place: Any,
    width: int,
    bins: Any,
    counts: Any,
    centres: Any,
    moments: Any,
    shared: Any,
) -> None:
    """Add bins and moments of up to `width` columns; each column has threads that are `width` apart.

    centres  (columns,) near the values; see `settle`
    moments  (columns, FIELDS); until `settle`, the second and third number are sums of distances from the
             centre and of their squares
    """
    (block, blocks, tile), (histogram, sums) = place, shared
    thread, cells, left = cuda.threadIdx.x, counts.shape[1], tile * width
    lane, lanes, at = thread // width, THREADS // width, thread % width
    columns = min(width, len(counts) - left)
    active, column, spot = lane < lanes and at < columns, np.uint64(left + at), np.uint32(at * cells)
    start, stop = share(rows, block, blocks)
    for other in range(thread, columns * cells, THREADS):
        histogram[np.uint32(other)] = 0
    cuda.syncthreads()
    number, total, squares, least, greatest = 0, 0.0, 0.0, np.inf, -np.inf
    if active:
        number, total, squares, least, greatest = observe_column(
            values, column, start + lane, stop, lanes, bins, centres[column], histogram, spot
        )
    cuda.syncthreads()
    if active:
        for cell in range(np.uint32(lane), np.uint32(cells), np.uint32(lanes)):
            found = histogram[spot + cell]
            if found > 0:
                cuda.atomic.add(counts, (column, np.uint64(cell)), np.int64(found))
    cuda.syncthreads()
    spot = np.uint32(at * FIELDS)
    if thread < columns:
        for field in range(FIELDS):
            sums[spot + np.uint32(field)] = 0.0 if field < 3 else (np.inf if field == 3 else -np.inf)
    cuda.syncthreads()
    if number > 0:
        cuda.atomic.add(sums, spot, np.float64(number))
        cuda.atomic.add(sums, spot + np.uint32(1), total)
        cuda.atomic.add(sums, spot + np.uint32(2), squares)
        cuda.atomic.min(sums, spot + np.uint32(3), least)
        cuda.atomic.max(sums, spot + np.uint32(4), greatest)
    cuda.syncthreads()
    if thread < columns and sums[spot] > 0:
        for field in range(3):
            cuda.atomic.add(moments, (column, np.uint64(field)), sums[spot + np.uint32(field)])
        cuda.atomic.min(moments, (column, np.uint64(3)), sums[spot + np.uint32(3)])
        cuda.atomic.max(moments, (column, np.uint64(4)), sums[spot + np.uint32(4)])


@body
def observe_column(
    values: Any,
    column: Any,
    start: int,
    stop: int,
    step: int,
    bins: Any,
    centre: float,
    histogram: Any,
    spot: Any,
) -> tuple[int, float, float, float, float]:
    """Count every `step`-th row of a column into the histogram, which starts at `spot`; by one thread.

    Returns how many values are finite, the sums of their distances from `centre` and of the squares of these,
    the least and the greatest. UNROLL distances at a time, from one of the values, are summed in the values'
    own precision: GPUs for inference have 64 times as many units for float32 as for float64.
    """
    kind, edges, first = values.dtype.type, bins[0][column], bins[1][column]
    low, scale, levels = edges[0], edges[1], int(edges[2])
    some, found = cuda.local.array(UNROLL, values.dtype), cuda.local.array(UNROLL, np.uint32)
    number, total, squares, least, greatest = 0, 0.0, 0.0, kind(np.inf), kind(-np.inf)
    for row in range(start, stop, step * UNROLL):
        left = load(values, column, row, stop, step, some)
        finite, origin = 0, kind(0)
        for k in range(UNROLL):
            if abs(some[k]) < np.inf:
                finite, origin = finite + 1, some[k]
        if finite > 0:
            near, square = kind(0), kind(0)
            for k in range(UNROLL):
                x = some[k] if abs(some[k]) < np.inf else origin
                near, square = near + (x - origin), square + (x - origin) * (x - origin)
                least, greatest = min(least, x), max(greatest, x)
            wide, wide_square = float(near), float(square)
            if not _TINY < square < np.inf:
                wide, wide_square = 0.0, 0.0
                for k in range(UNROLL):
                    x = some[k] if abs(some[k]) < np.inf else origin
                    distance = float(x) - float(origin)
                    wide, wide_square = wide + distance, wide_square + distance * distance
            far = float(origin) - centre
            number += finite
            total += wide + finite * far
            squares += wide_square + far * (2 * wide + finite * far)
        for k in range(UNROLL):
            found[k] = first[np.uint32(cell_among(some[k], low, scale, kind(0), kind(CELLS - 1)))]
        for level in range(levels - 1, -1, -1):
            for k in range(UNROLL):
                found[k] = closer(found[k], some[k], np.uint32(level), edges)
        if finite < UNROLL:
            for k in range(UNROLL):
                if not abs(some[k]) < np.inf:
                    found[k] = first[np.uint32(cell_of(some[k], low, scale, kind(0), kind(CELLS - 1)))]
        for k in range(UNROLL):
            at = spot + found[k] if np.int32(k * step) < left else HISTOGRAM
            cuda.atomic.add(histogram, np.uint32(at), 1)
    return number, total, squares, float(least), float(greatest)


@body
def load(values: Any, column: Any, start: int, stop: int, step: int, some: Any) -> Any:
    """Load UNROLL values of a column, `step` rows apart, into `some`; NaN after the last row.

    Returns the number of rows left, at most the step * UNROLL that these span.
    """
    left = np.int32(min(stop - start, step * UNROLL))
    if left == np.int32(step * UNROLL):
        for k in range(UNROLL):
            some[k] = values[np.uint64(start + k * step), column]
    else:
        for k in range(UNROLL):
            some[k] = values.dtype.type(np.nan)
            if np.int32(k * step) < left:
                some[k] = values[np.uint64(start + k * step), column]
    return left


@body
def add_products(values: Any, rows: int, place: Any, scaling: Any, comoments: Any, shared: Any) -> None:
    """Add products of standardised rows; a thread has those of SIDE columns with SIDE others, on or above the
    diagonal, of every `groups`-th row. Those of the rows that are read at a time are summed in float32.
    """
    (block, blocks, tile), (z, sums) = place, shared
    thread, width = cuda.threadIdx.x, len(comoments)
    strips = (width + SIDE - 1) // SIDE
    squares, stride = strips * (strips + 1) // 2, strips * SIDE
    depth = TILE // stride
    groups = max(THREADS // squares, 1)
    group = thread // squares if groups > 1 else 0
    square = thread - group * squares if groups > 1 else tile * THREADS + thread
    active = square < squares and group < groups
    i, j = 0, square
    while active and j >= strips - i:
        i, j = i + 1, j - (strips - i)
    j += i
    totals, products = cuda.local.array((SIDE, SIDE), np.float64), cuda.local.array((SIDE, SIDE), np.float32)
    for a in range(SIDE):
        for b in range(SIDE):
            totals[a, b] = 0.0
    first, stop = share(rows, block, blocks)
    for start in range(first, stop, depth):
        some = min(depth, stop - start)
        standardise_rows(values, start, some, 0, width, stride, scaling, z)
        cuda.syncthreads()
        if active:
            for a in range(SIDE):
                for b in range(SIDE):
                    products[a, b] = np.float32(0)
            for row in range(group, some, groups):
                left, right = np.uint32(row * stride + i * SIDE), np.uint32(row * stride + j * SIDE)
                for a in range(SIDE):
                    for b in range(SIDE):
                        products[a, b] += z[left + np.uint32(a)] * z[right + np.uint32(b)]
            for a in range(SIDE):
                for b in range(SIDE):
                    totals[a, b] += np.float64(products[a, b])
        cuda.syncthreads()
    spot = (thread - squares) * SIDE * SIDE
    if active and group > 0:
        for a in range(SIDE):
            for b in range(SIDE):
                sums[np.uint32(spot + a * SIDE + b)] = totals[a, b]
    cuda.syncthreads()
    if active and group == 0:
        for other in range(1, groups):
            spot = ((other - 1) * squares + square) * SIDE * SIDE
            for a in range(SIDE):
                for b in range(SIDE):
                    totals[a, b] += sums[np.uint32(spot + a * SIDE + b)]
        for a in range(SIDE):
            for b in range(SIDE):
                one, two = np.uint64(i * SIDE + a), np.uint64(j * SIDE + b)
                if one < np.uint64(width) and two < np.uint64(width):
                    cuda.atomic.add(comoments, (one, two), totals[a, b])
                    if i != j:
                        cuda.atomic.add(comoments, (two, one), totals[a, b])


@body
def add_features(
    values: Any, rows: int, place: Any, scaling: Any, weights: Any, features: Any, shared: Any
) -> None:
    """Add features of rows; a thread computes GROUP of the block's, for UNROLL of the ROWS read at a time."""
    (block, blocks, tile), (z, sums) = place, shared
    thread, columns, last = cuda.threadIdx.x, len(scaling), len(features) - 1
    lane, d = thread // GROUPS, thread % GROUPS * GROUP
    totals, phases = cuda.local.array(GROUP, np.float64), cuda.local.array((UNROLL, GROUP), np.float32)
    for g in range(GROUP):
        totals[g] = 0.0
    first, stop = share(rows, block, blocks)
    for start in range(first, stop, ROWS):
        some = min(ROWS, stop - start)
        for g in range(GROUP):
            for k in range(UNROLL):
                phases[k, g] = weights[np.uint64(columns), np.uint64(min(tile * WARP + d + g, last))]
        for left in range(0, columns, WARP):
            across = min(WARP, columns - left)
            standardise_rows(values, start, some, left, across, ROW_STRIDE, scaling, z)
            for column in range(thread // WARP, across, THREADS // WARP):
                at = thread % WARP
                weight = weights[np.uint64(left + column), np.uint64(min(tile * WARP + at, last))]
                z[np.uint32(_WEIGHTS + column * WARP + at)] = weight
            cuda.syncthreads()
            for column in range(across):
                spot, own_weights = (
                    np.uint32(lane * UNROLL * ROW_STRIDE + column),
                    np.uint32(_WEIGHTS + column * WARP + d),
                )
                for k in range(UNROLL):
                    for g in range(GROUP):
                        phases[k, g] += z[spot + np.uint32(k * ROW_STRIDE)] * z[own_weights + np.uint32(g)]
            cuda.syncthreads()
        for g in range(GROUP):
            total = np.float32(0)
            for k in range(UNROLL):
                if lane * UNROLL + k < some:
                    total += cosine(phases[k, g])
            totals[g] += np.float64(total)
    for g in range(GROUP):
        sums[np.uint32(thread * GROUP + g)] = totals[g]
    cuda.syncthreads()
    if thread < WARP and tile * WARP + thread <= last:
        for other in range(1, THREADS // GROUPS):
            sums[np.uint32(thread)] += sums[np.uint32(other * WARP + thread)]
        cuda.atomic.add(features, np.uint64(tile * WARP + thread), sums[np.uint32(thread)])


@body
def standardise_rows(
    values: Any, start: int, number: int, left: int, width: int, stride: int, scaling: Any, z: Any
) -> None:
    """Write standardised columns of rows to shared memory, row by row, `stride` numbers apart; after the last
    column comes a 1. A thread does one column, or some.
    """
    kind, columns, across = values.dtype.type, len(scaling), min(stride, THREADS)
    lane, lanes = cuda.threadIdx.x // across, THREADS // across
    some = cuda.local.array(UNROLL, values.dtype)
    if lane < lanes:
        for at in range(cuda.threadIdx.x % across, width, across):
            column = np.uint64(min(left + at, columns - 1))
            high, low, scale = parted(scaling[column, np.uint64(0)], scaling[column, np.uint64(1)], kind(0))
            for row in range(lane, number, lanes * UNROLL):
                loaded = load(values, column, start + row, start + number, lanes, some)
                for k in range(UNROLL):
                    found = np.float32(
                        standard(some[k], high, low, scale) if left + at < columns else kind(1)
                    )
                    if np.int32(k * lanes) < loaded:
                        z[np.uint32((row + k * lanes) * stride + at)] = found


@grid(shared=4 * TILE, registers=REGISTERS)
def _observe_cuda(
    values: Any,
    rows: int,
    width: int,
    column_blocks: int,
    product_blocks: int,
    feature_blocks: int,
    edges: Any,
    first: Any,
    counts: Any,
    centres: Any,
    moments: Any,
    scaling: Any,
    comoments: Any,
    weights: Any,
    features: Any,
) -> None:
    """Divide the launch's blocks: first those for columns, then products, then features. For each, the given
    number of blocks shares the rows, once for each tile.
    """
    histogram = cuda.shared.array(0, _COUNT)
    z = cuda.shared.array(0, _NUMBER)
    sums = cuda.shared.array(0, _SUM)
    here, strips = cuda.blockIdx.x, (len(comoments) + SIDE - 1) // SIDE
    products = here - column_blocks * ((len(counts) + width - 1) // width)
    projections = products - product_blocks * ((strips * (strips + 1) // 2 + THREADS - 1) // THREADS)
    if products < 0:
        place, shared = (here % column_blocks, column_blocks, here // column_blocks), (histogram, sums)
        observe_columns(values, rows, place, width, (edges, first), counts, centres, moments, shared)
    elif projections < 0:
        add_products(
            values,
            rows,
            (products % product_blocks, product_blocks, products // product_blocks),
            scaling,
            comoments,
            (z, sums),
        )
    else:
        place = (projections % feature_blocks, feature_blocks, projections // feature_blocks)
        add_features(values, rows, place, scaling, weights, features, (z, sums))


@grid
def _settle_cuda(centres: Any, moments: Any) -> None:
    column = cuda.grid(1)
    if column < len(moments) and moments[column, 0] > 0:
        count, total = moments[column, 0], moments[column, 1]
        squares = moments[column, 2] - total * total / count
        centres[column] += total / count
        moments[column, 1] = centres[column]
        moments[column, 2] = squares if squares > _LOST * moments[column, 2] else 0.0
