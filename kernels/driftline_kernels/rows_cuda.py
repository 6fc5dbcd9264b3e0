"""All statistics of a matrix on a GPU, in one launch: some thread blocks compute bins and moments of columns,
some products of columns, some features of rows.

All code that waits for other threads is in this module, with each shared array on a line of its own: Numba's
simulator requires both. Array indices are unsigned: threads would check whether signed ones are negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from driftline_kernels.bins import CELLS, cell_of, finite_cell, search_step
from driftline_kernels.device import THREADS, blocks_for, body, grid
from driftline_kernels.fourier import cosine
from driftline_kernels.moments import FIELDS
from driftline_kernels.sharing import (
    GROUP,
    GROUPS,
    HISTOGRAM,
    ROW_STRIDE,
    ROWS,
    SHARED_WORDS,
    SIDE,
    UNROLL,
    WARP,
    columns_layout,
    features_layout,
    products_layout,
    rows_of_block,
)
from driftline_kernels.standard import split_scaling, standardised_split

if TYPE_CHECKING:
    from driftline_kernels.rows import Parts

cuda: Any = None  # numba.cuda, bound before the first launch

REGISTERS = 128
"""The most registers of a thread: so four blocks fit on a multiprocessor; without a limit, three would."""

_WEIGHTS = ROWS * ROW_STRIDE  # the features' weights in shared memory are after the rows
_COUNT, _NUMBER, _SUM = np.dtype(np.int32), np.dtype(np.float32), np.dtype(np.float64)  # in shared memory
_CANCELLED = 1e-13  # a remainder that is this small a part of a sum of squares may be rounding
_MIN_SQUARES = 1e-30  # a smaller sum of squares has lost digits in float32, or all of them


def observe(values: Any, rows: int, parts: Parts) -> None:
    """Add the first rows of a matrix on a GPU to a state there; see `rows.to_device`, and `settle`."""
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


# All threads of a block do each part together. `position` is (index among the blocks that share the rows,
# number of these blocks, index of the block's tile of columns, products or features); `shared` is the block's
# shared memory, as numbers of four bytes and as sums of eight.


@body
def observe_columns(
    values: Any,
    rows: int,
    position: Any,
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
    (block, blocks, tile), (histogram, sums) = position, shared
    thread, cells, first_column = cuda.threadIdx.x, counts.shape[1], tile * width
    lane, lanes, offset = thread // width, THREADS // width, thread % width
    columns = min(width, len(counts) - first_column)
    is_active = lane < lanes and offset < columns
    column, base = np.uint64(first_column + offset), np.uint32(offset * cells)
    start, stop = rows_of_block(rows, block, blocks)
    for index in range(thread, columns * cells, THREADS):
        histogram[np.uint32(index)] = 0
    cuda.syncthreads()
    number, total, squares, least, greatest = 0, 0.0, 0.0, np.inf, -np.inf
    if is_active:
        number, total, squares, least, greatest = observe_column(
            values, column, start + lane, stop, lanes, bins, centres[column], histogram, base
        )
    cuda.syncthreads()
    if is_active:
        for cell in range(np.uint32(lane), np.uint32(cells), np.uint32(lanes)):
            count = histogram[base + cell]
            if count > 0:
                cuda.atomic.add(counts, (column, np.uint64(cell)), np.int64(count))
    cuda.syncthreads()
    base = np.uint32(offset * FIELDS)
    if thread < columns:
        for field in range(FIELDS):
            sums[base + np.uint32(field)] = 0.0 if field < 3 else (np.inf if field == 3 else -np.inf)
    cuda.syncthreads()
    if number > 0:
        cuda.atomic.add(sums, base, np.float64(number))
        cuda.atomic.add(sums, base + np.uint32(1), total)
        cuda.atomic.add(sums, base + np.uint32(2), squares)
        cuda.atomic.min(sums, base + np.uint32(3), least)
        cuda.atomic.max(sums, base + np.uint32(4), greatest)
    cuda.syncthreads()
    if thread < columns and sums[base] > 0:
        for field in range(3):
            cuda.atomic.add(moments, (column, np.uint64(field)), sums[base + np.uint32(field)])
        cuda.atomic.min(moments, (column, np.uint64(3)), sums[base + np.uint32(3)])
        cuda.atomic.max(moments, (column, np.uint64(4)), sums[base + np.uint32(4)])


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
    base: Any,
) -> tuple[int, float, float, float, float]:
    """Count every `step`-th row of a column into the histogram, which starts at `base`; by one thread.

    Returns how many values are finite, the sums of their distances from `centre` and of the squares of these,
    the least and the greatest. UNROLL distances at a time, from one of the values, are summed in the values'
    own precision: GPUs for inference have 64 times as many units for float32 as for float64.
    """
    kind, edges, first = values.dtype.type, bins[0][column], bins[1][column]
    low, scale, levels = edges[0], edges[1], int(edges[2])
    buffer, indexes = cuda.local.array(UNROLL, values.dtype), cuda.local.array(UNROLL, np.uint32)
    number, total, squares, least, greatest = 0, 0.0, 0.0, kind(np.inf), kind(-np.inf)
    for row in range(start, stop, step * UNROLL):
        remaining = load(values, column, row, stop, step, buffer)
        finite, origin = 0, kind(0)
        for k in range(UNROLL):
            if abs(buffer[k]) < np.inf:
                finite, origin = finite + 1, buffer[k]
        if finite > 0:
            narrow_sum, narrow_squares = kind(0), kind(0)
            for k in range(UNROLL):
                x = buffer[k] if abs(buffer[k]) < np.inf else origin
                narrow_sum += x - origin
                narrow_squares += (x - origin) * (x - origin)
                least, greatest = min(least, x), max(greatest, x)
            wide_sum, wide_squares = float(narrow_sum), float(narrow_squares)
            if not _MIN_SQUARES < narrow_squares < np.inf:
                wide_sum, wide_squares = 0.0, 0.0
                for k in range(UNROLL):
                    x = buffer[k] if abs(buffer[k]) < np.inf else origin
                    distance = float(x) - float(origin)
                    wide_sum, wide_squares = wide_sum + distance, wide_squares + distance * distance
            shift = float(origin) - centre
            number += finite
            total += wide_sum + finite * shift
            squares += wide_squares + shift * (2 * wide_sum + finite * shift)
        for k in range(UNROLL):
            indexes[k] = first[np.uint32(finite_cell(buffer[k], low, scale, kind(0), kind(CELLS - 1)))]
        for level in range(levels - 1, -1, -1):
            for k in range(UNROLL):
                indexes[k] = search_step(indexes[k], buffer[k], np.uint32(level), edges)
        if finite < UNROLL:
            for k in range(UNROLL):
                if not abs(buffer[k]) < np.inf:
                    indexes[k] = first[np.uint32(cell_of(buffer[k], low, scale, kind(0), kind(CELLS - 1)))]
        for k in range(UNROLL):
            target = base + indexes[k] if np.int32(k * step) < remaining else HISTOGRAM
            cuda.atomic.add(histogram, np.uint32(target), 1)
    return number, total, squares, float(least), float(greatest)


@body
def load(values: Any, column: Any, start: int, stop: int, step: int, buffer: Any) -> Any:
    """Load UNROLL values of a column, `step` rows apart, into `buffer`; NaN after the last row.

    Returns the number of rows left, at most the step * UNROLL that these span.
    """
    remaining = np.int32(min(stop - start, step * UNROLL))
    if remaining == np.int32(step * UNROLL):
        for k in range(UNROLL):
            buffer[k] = values[np.uint64(start + k * step), column]
    else:
        for k in range(UNROLL):
            buffer[k] = values.dtype.type(np.nan)
            if np.int32(k * step) < remaining:
                buffer[k] = values[np.uint64(start + k * step), column]
    return remaining


@body
def add_products(values: Any, rows: int, position: Any, scaling: Any, comoments: Any, shared: Any) -> None:
    """Add products of standardised rows; a thread has those of SIDE columns with SIDE others, on or above the
    diagonal, of every `groups`-th row. Those of the rows that are read at a time are summed in float32.
    """
    (block, blocks, tile), (z, sums) = position, shared
    thread, width = cuda.threadIdx.x, len(comoments)
    strips = (width + SIDE - 1) // SIDE
    squares, stride = strips * (strips + 1) // 2, strips * SIDE
    depth = SHARED_WORDS // stride
    groups = max(THREADS // squares, 1)
    group = thread // squares if groups > 1 else 0
    square = thread - group * squares if groups > 1 else tile * THREADS + thread
    is_active = square < squares and group < groups
    i, j = 0, square
    while is_active and j >= strips - i:
        i, j = i + 1, j - (strips - i)
    j += i
    totals, products = cuda.local.array((SIDE, SIDE), np.float64), cuda.local.array((SIDE, SIDE), np.float32)
    for a in range(SIDE):
        for b in range(SIDE):
            totals[a, b] = 0.0
    first, stop = rows_of_block(rows, block, blocks)
    for start in range(first, stop, depth):
        count = min(depth, stop - start)
        standardise_rows(values, start, count, 0, width, stride, scaling, z)
        cuda.syncthreads()
        if is_active:
            for a in range(SIDE):
                for b in range(SIDE):
                    products[a, b] = np.float32(0)
            for row in range(group, count, groups):
                left, right = np.uint32(row * stride + i * SIDE), np.uint32(row * stride + j * SIDE)
                for a in range(SIDE):
                    for b in range(SIDE):
                        products[a, b] += z[left + np.uint32(a)] * z[right + np.uint32(b)]
            for a in range(SIDE):
                for b in range(SIDE):
                    totals[a, b] += np.float64(products[a, b])
        cuda.syncthreads()
    base = (thread - squares) * SIDE * SIDE
    if is_active and group > 0:
        for a in range(SIDE):
            for b in range(SIDE):
                sums[np.uint32(base + a * SIDE + b)] = totals[a, b]
    cuda.syncthreads()
    if is_active and group == 0:
        for peer in range(1, groups):
            base = ((peer - 1) * squares + square) * SIDE * SIDE
            for a in range(SIDE):
                for b in range(SIDE):
                    totals[a, b] += sums[np.uint32(base + a * SIDE + b)]
        for a in range(SIDE):
            for b in range(SIDE):
                column, other_column = np.uint64(i * SIDE + a), np.uint64(j * SIDE + b)
                if column < np.uint64(width) and other_column < np.uint64(width):
                    cuda.atomic.add(comoments, (column, other_column), totals[a, b])
                    if i != j:
                        cuda.atomic.add(comoments, (other_column, column), totals[a, b])


@body
def add_features(
    values: Any, rows: int, position: Any, scaling: Any, weights: Any, features: Any, shared: Any
) -> None:
    """Add features of rows; a thread computes GROUP of the block's, for UNROLL of the ROWS read at a time."""
    (block, blocks, tile), (z, sums) = position, shared
    thread, columns, last = cuda.threadIdx.x, len(scaling), len(features) - 1
    lane, d = thread // GROUPS, thread % GROUPS * GROUP
    totals, phases = cuda.local.array(GROUP, np.float64), cuda.local.array((UNROLL, GROUP), np.float32)
    for g in range(GROUP):
        totals[g] = 0.0
    first, stop = rows_of_block(rows, block, blocks)
    for start in range(first, stop, ROWS):
        count = min(ROWS, stop - start)
        for g in range(GROUP):
            for k in range(UNROLL):
                phases[k, g] = weights[np.uint64(columns), np.uint64(min(tile * WARP + d + g, last))]
        for first_column in range(0, columns, WARP):
            strip = min(WARP, columns - first_column)
            standardise_rows(values, start, count, first_column, strip, ROW_STRIDE, scaling, z)
            for column in range(thread // WARP, strip, THREADS // WARP):
                offset = thread % WARP
                weight = weights[np.uint64(first_column + column), np.uint64(min(tile * WARP + offset, last))]
                z[np.uint32(_WEIGHTS + column * WARP + offset)] = weight
            cuda.syncthreads()
            for column in range(strip):
                z_base = np.uint32(lane * UNROLL * ROW_STRIDE + column)
                weight_base = np.uint32(_WEIGHTS + column * WARP + d)
                for k in range(UNROLL):
                    for g in range(GROUP):
                        phases[k, g] += z[z_base + np.uint32(k * ROW_STRIDE)] * z[weight_base + np.uint32(g)]
            cuda.syncthreads()
        for g in range(GROUP):
            total = np.float32(0)
            for k in range(UNROLL):
                if lane * UNROLL + k < count:
                    total += cosine(phases[k, g])
            totals[g] += np.float64(total)
    for g in range(GROUP):
        sums[np.uint32(thread * GROUP + g)] = totals[g]
    cuda.syncthreads()
    if thread < WARP and tile * WARP + thread <= last:
        for peer in range(1, THREADS // GROUPS):
            sums[np.uint32(thread)] += sums[np.uint32(peer * WARP + thread)]
        cuda.atomic.add(features, np.uint64(tile * WARP + thread), sums[np.uint32(thread)])


@body
def standardise_rows(
    values: Any, start: int, count: int, first_column: int, width: int, stride: int, scaling: Any, z: Any
) -> None:
    """Write standardised columns of rows to shared memory, row by row, `stride` numbers apart; after the last
    column comes a 1. A thread does one column, or some.
    """
    kind, columns, step = values.dtype.type, len(scaling), min(stride, THREADS)
    lane, lanes = cuda.threadIdx.x // step, THREADS // step
    buffer = cuda.local.array(UNROLL, values.dtype)
    if lane < lanes:
        for offset in range(cuda.threadIdx.x % step, width, step):
            column = np.uint64(min(first_column + offset, columns - 1))
            is_column = first_column + offset < columns
            mean, scale = scaling[column, np.uint64(0)], scaling[column, np.uint64(1)]
            high, low, narrow_scale = split_scaling(mean, scale, kind(0))
            for row in range(lane, count, lanes * UNROLL):
                remaining = load(values, column, start + row, start + count, lanes, buffer)
                for k in range(UNROLL):
                    value = standardised_split(buffer[k], high, low, narrow_scale) if is_column else kind(1)
                    if np.int32(k * lanes) < remaining:
                        z[np.uint32((row + k * lanes) * stride + offset)] = np.float32(value)


@grid(shared=4 * SHARED_WORDS, registers=REGISTERS)
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
    block, strips = cuda.blockIdx.x, (len(comoments) + SIDE - 1) // SIDE
    product_block = block - column_blocks * ((len(counts) + width - 1) // width)
    feature_block = product_block - product_blocks * ((strips * (strips + 1) // 2 + THREADS - 1) // THREADS)
    if product_block < 0:
        position, shared = (block % column_blocks, column_blocks, block // column_blocks), (histogram, sums)
        observe_columns(values, rows, position, width, (edges, first), counts, centres, moments, shared)
    elif feature_block < 0:
        add_products(
            values,
            rows,
            (product_block % product_blocks, product_blocks, product_block // product_blocks),
            scaling,
            comoments,
            (z, sums),
        )
    else:
        position = (feature_block % feature_blocks, feature_blocks, feature_block // feature_blocks)
        add_features(values, rows, position, scaling, weights, features, (z, sums))


@grid
def _settle_cuda(centres: Any, moments: Any) -> None:
    column = cuda.grid(1)
    if column < len(moments) and moments[column, 0] > 0:
        count, total = moments[column, 0], moments[column, 1]
        squares = moments[column, 2] - total * total / count
        centres[column] += total / count
        moments[column, 1] = centres[column]
        moments[column, 2] = squares if squares > _CANCELLED * moments[column, 2] else 0.0
