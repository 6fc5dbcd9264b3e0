"""How the blocks of a card's threads share the rows of a matrix, and what is kept of them: see `blocks`."""

from __future__ import annotations

from typing import Any

from driftline_kernels.device import BLOCKS, THREADS, blocks_for, body

UNROLL = 8
"""Values that a thread loads before it looks at the first of them: a card's memory is far away, and as much
has to be on its way as would arrive meanwhile."""

DEPTH = 2 * UNROLL
"""Values of a column that a thread has at least, where there are as many."""

SIDE = 4
"""A thread has the products of so many columns with so many: it reads 2 SIDE values for SIDE^2 of them."""

SHALLOW = 64
"""Rows of which a block has products at least: of small batches too, several blocks have some."""

WARP = 32
"""Features that a block has, and columns that it reads for them at a time."""

GROUP = 4
"""A thread has so many of the features, of UNROLL rows."""

GROUPS = WARP // GROUP
"""Threads that have the features of the same rows."""

ROWS = THREADS // GROUPS * UNROLL
"""Rows that a block reads for features at a time."""

ROW_STRIDE = WARP + 1
"""Numbers from one of these rows to the next: rows that are read together lie in different banks."""

TILE = ROWS * ROW_STRIDE + WARP * WARP
"""Numbers of four bytes in a block's own memory. There are rows and the features' weights, or rows for
products, or counts of bins; and in their place, at the end, sums of eight bytes."""

HISTOGRAM = TILE - 1
"""Counts of bins that find room there, beside one for what is not counted."""


def columns_layout(values: Any, cells: int) -> tuple[tuple[int, int], int]:
    """For bins and moments: blocks by rows and by columns, and the columns of a block.

    Neighbouring threads have neighbouring values: of one column, if that is how they lie, else of one row.
    As all layouts, it is for all rows of the matrix, however few count: Numba prepares for each number of
    blocks.

    cells  counts of a column
    """
    rows, columns = values.shape
    if rows == 0 or columns == 0:
        return (0, 0), 1
    most = 1 if values.strides[0] < values.strides[1] else min(columns, THREADS, HISTOGRAM // cells)
    tiles = -(-columns // most)
    width = -(-columns // tiles)
    return (min(-(-rows // (DEPTH * (THREADS // width))), -(-BLOCKS // tiles)), tiles), width


def products_layout(rows: int, columns: int) -> tuple[int, int]:
    """For products of columns: blocks by rows and by squares of SIDE columns on each side."""
    strips = -(-columns // SIDE)
    tiles = blocks_for(strips * (strips + 1) // 2)
    if not rows or not tiles:
        return 0, 0
    return min(-(-rows // SHALLOW), -(-BLOCKS // tiles)), tiles


def features_layout(rows: int, features: int) -> tuple[int, int]:
    """For features: blocks by rows and by features."""
    tiles = -(-features // WARP)
    return (min(-(-rows // ROWS), -(-BLOCKS // tiles)), tiles) if rows and tiles else (0, 0)


@body
def share(rows: int, block: int, blocks: int) -> tuple[int, int]:
    """The first row of a block, and the one behind its last, where all blocks share some rows."""
    each = (rows + blocks - 1) // blocks
    return min(block * each, rows), min((block + 1) * each, rows)
