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
def value_of(block: Any, kind: int, at: int) -> Any:
    """Return a value of a block by its kind."""
    if kind == FLOAT32:
        return block.view(np.float32)[at]
    if kind == FLOAT64:
        return np.float32(block.view(np.float64)[at])
    if kind == INT64:
        return np.float32(block.view(np.int64)[at])
    if kind == INT32:
        return np.float32(block.view(np.int32)[at])
    if kind == INT16:
        return np.float32(block.view(np.int16)[at])
    if kind == INT8:
        return np.float32(block.view(np.int8)[at])
    if kind == UINT64:
        return np.float32(block.view(np.uint64)[at])
    if kind == UINT32:
        return np.float32(block.view(np.uint32)[at])
    if kind == UINT16:
        return np.float32(block.view(np.uint16)[at])
    return np.float32(block[at])


@body
def move_one(one: Any, other: Any, row: int, move: Any, matrix: Any) -> None:
    """Move one value."""
    at = move[FIRST] + row * move[STEP]
    matrix[row, move[INTO]] = value_of(one if move[BLOCK] == 0 else other, move[KIND], at)


@driver
def _move(one: Any, other: Any, rows: int, moves: Any, matrix: Any) -> None:
    for row in range(rows):
        for place in range(len(moves)):
            move_one(one, other, row, moves[place], matrix)


@grid
def _move_cuda(one: Any, other: Any, rows: int, moves: Any, matrix: Any) -> None:
    at = cuda.grid(1)
    if at < rows * len(moves):
        # Neighbouring threads read adjacent values: of a column if they are contiguous, else of a row.
        columns = moves[0, STEP] == 1
        row, place = (at % rows, at // rows) if columns else (at // len(moves), at % len(moves))
        move_one(one, other, row, moves[place], matrix)
