"""Copy columns from anywhere in two blocks of memory to columns of one matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from driftline_kernels.device import blocks_for, body, driver, grid, on_cpu
from driftline_kernels.memory import (
    FLOAT32,
    FLOAT64,
    INT8,
    INT16,
    INT32,
    INT64,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
)

cuda: Any = None  # numba.cuda, bound before the first launch

FIELDS = 5
"""Numbers of one move; their indices follow."""
BLOCK, KIND, FIRST, STEP, INTO = range(FIELDS)
"""The fields of a row of moves, int64: which of the two blocks the column is in; its kind; its first value,
and the distance between its values, in values of the kind; and the column of the matrix that it becomes."""

KINDS: Mapping[Any, int] = {
    np.dtype(np.float32): FLOAT32,
    np.dtype(np.float64): FLOAT64,
    np.dtype(np.int8): INT8,
    np.dtype(np.int16): INT16,
    np.dtype(np.int32): INT32,
    np.dtype(np.int64): INT64,
    np.dtype(np.uint8): UINT8,
    np.dtype(np.uint16): UINT16,
    np.dtype(np.uint32): UINT32,
    np.dtype(np.uint64): UINT64,
    np.dtype(np.bool_): UINT8,
}
"""The dtypes that can be moved. The CPU must widen half precision: Numba hardly supports it."""


def move(blocks: tuple[Any, Any], rows: int, moves: Any, matrix: Any) -> None:
    """Write the first rows of some columns into a matrix; values beyond float32 become infinite.

    blocks  two of (bytes,) uint8, on cpu or cuda; aligned to eight bytes, with a multiple of eight bytes
    moves   (n, FIELDS) int64, on the same device; see BLOCK
    matrix  (at least rows, columns) float32, on the same device
    """
    if on_cpu(matrix):
        _move(*blocks, rows, moves, matrix)
    else:
        _move_cuda(blocks_for(len(matrix) * len(moves)), *blocks, rows, moves, matrix)


@body
def value_of(block: Any, kind: int, index: int) -> Any:
    """Return a value of a block by its kind."""
    if kind == FLOAT32:
        return block.view(np.float32)[index]
    if kind == FLOAT64:
        return np.float32(block.view(np.float64)[index])
    if kind == INT64:
        return np.float32(block.view(np.int64)[index])
    if kind == INT32:
        return np.float32(block.view(np.int32)[index])
    if kind == INT16:
        return np.float32(block.view(np.int16)[index])
    if kind == INT8:
        return np.float32(block.view(np.int8)[index])
    if kind == UINT64:
        return np.float32(block.view(np.uint64)[index])
    if kind == UINT32:
        return np.float32(block.view(np.uint32)[index])
    if kind == UINT16:
        return np.float32(block.view(np.uint16)[index])
    return np.float32(block[index])


@body
def move_value(first_block: Any, second_block: Any, row: int, move: Any, matrix: Any) -> None:
    """Move one value."""
    index = move[FIRST] + row * move[STEP]
    matrix[row, move[INTO]] = value_of(first_block if move[BLOCK] == 0 else second_block, move[KIND], index)


@driver
def _move(first_block: Any, second_block: Any, rows: int, moves: Any, matrix: Any) -> None:
    for row in range(rows):
        for number in range(len(moves)):
            move_value(first_block, second_block, row, moves[number], matrix)


@grid
def _move_cuda(first_block: Any, second_block: Any, rows: int, moves: Any, matrix: Any) -> None:
    thread = cuda.grid(1)
    if thread < rows * len(moves):
        # Neighbouring threads read adjacent values: of a column if they are contiguous, else of a row.
        by_column = moves[0, STEP] == 1
        count = len(moves)
        row, number = (thread % rows, thread // rows) if by_column else (thread // count, thread % count)
        move_value(first_block, second_block, row, moves[number], matrix)
