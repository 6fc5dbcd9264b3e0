"""How thread blocks on a GPU share the rows of a matrix and its statistics: see `rows_cuda`."""

from __future__ import annotations

from typing import Any

from driftline_kernels.device import BLOCKS, THREADS, blocks_for, body

UNROLL = 8
"""Values that a thread loads before it uses the first: GPU memory has a high latency, which only enough loads
in flight can hide."""

MIN_COLUMN_VALUES = 2 * UNROLL
"""Values of a column that a thread has at least, if there are enough."""

SIDE = 4
"""A thread has the products of SIDE columns with SIDE columns: it reads 2 SIDE values for SIDE^2 products."""

MIN_PRODUCT_ROWS = 64
"""Rows whose products a block computes at least: several blocks share small batches, too."""

WARP = 32
"""Features that a block has, and columns that it reads for them at a time."""

GROUP = 4
"""Features that a thread has, of UNROLL rows."""

GROUPS = WARP // GROUP
"""Threads that have the features of the same rows."""

ROWS = THREADS // GROUPS * UNROLL
"""Rows that a block reads for features at a time."""

ROW_STRIDE = WARP + 1
"""Numbers from one of these rows to the next: rows that are read together are in different banks."""

SHARED_WORDS = ROWS * ROW_STRIDE + WARP * WARP
"""Numbers of four bytes in a block's shared memory. It holds rows and the features' weights, or rows for
products, or counts of bins; and at the end, in their place, sums of eight bytes."""

HISTOGRAM = SHARED_WORDS - 1
"""Counts of bins that fit there, beside one for values that are not counted."""


def columns_layout(values: Any, cells: int) -> tuple[tuple[int, int], int]:
    """Return the layout for bins and moments: blocks by rows and by columns, and the columns of a block.

    Neighbouring threads have adjacent values: of one column if those are contiguous, else of one row. Like
    all layouts, it is for all rows of the matrix, however few are counted: Numba sets up a launch for each
    number of blocks.

    cells  the number of counts of a column
    """
    rows, columns = values.shape
    if rows == 0 or columns == 0:
        return (0, 0), 1
    max_width = 1 if values.strides[0] < values.strides[1] else min(columns, THREADS, HISTOGRAM // cells)
    tiles = -(-columns // max_width)
    width = -(-columns // tiles)
    return (min(-(-rows // (MIN_COLUMN_VALUES * (THREADS // width))), -(-BLOCKS // tiles)), tiles), width


def products_layout(rows: int, columns: int) -> tuple[int, int]:
    """Return the layout for products of columns: blocks by rows and by squares of SIDE x SIDE columns."""
    strips = -(-columns // SIDE)
    tiles = blocks_for(strips * (strips + 1) // 2)
    if not rows or not tiles:
        return 0, 0
    return min(-(-rows // MIN_PRODUCT_ROWS), -(-BLOCKS // tiles)), tiles


def features_layout(rows: int, features: int) -> tuple[int, int]:
    """Return the layout for features: blocks by rows and by features."""
    tiles = -(-features // WARP)
    return (min(-(-rows // ROWS), -(-BLOCKS // tiles)), tiles) if rows and tiles else (0, 0)


@body
def rows_of_block(rows: int, block: int, blocks: int) -> tuple[int, int]:
    """Return the first row of a block and the one after its last, if all blocks share the rows."""
    rows_per_block = (rows + blocks - 1) // blocks
    return min(block * rows_per_block, rows), min((block + 1) * rows_per_block, rows)
