"""Columns of arrays to columns of one matrix."""

from __future__ import annotations

from typing import Any

from driftline_kernels.device import blocks_for, body, driver, grid, on_cpu

cuda: Any = None  # numba.cuda, bound before the first launch


def move(source: Any, rows: int, moves: Any, matrix: Any, across: bool = False) -> None:
    """Write the first rows of some columns into a matrix; what is beyond float32 becomes infinite.

    source  (at least rows, columns) of numbers, or with `across` (columns, at least rows); on cpu or cuda
    moves   (n, 2) int64, on the same device; a column of `source`, and the column of `matrix` that it becomes
    matrix  (at least rows, columns) float32, on the same device
    """
    if on_cpu(source):
        _move(source, rows, moves, across, matrix)
    else:
        _move_cuda(blocks_for(len(matrix) * len(moves)), source, rows, moves, across, matrix)


@body
def move_one(source: Any, row: int, moves: Any, place: int, across: bool, matrix: Any) -> None:
    """One value."""
    column, into = moves[place, 0], moves[place, 1]
    matrix[row, into] = source[column, row] if across else source[row, column]


@driver
def _move(source: Any, rows: int, moves: Any, across: bool, matrix: Any) -> None:
    for row in range(rows):
        for place in range(len(moves)):
            move_one(source, row, moves, place, across, matrix)


@grid
def _move_cuda(source: Any, rows: int, moves: Any, across: bool, matrix: Any) -> None:
    at = cuda.grid(1)
    if at < rows * len(moves):
        # Neighbouring threads read what lies side by side, which differs between the two forms.
        row, place = (at % rows, at // rows) if across else (at // len(moves), at % len(moves))
        move_one(source, row, moves, place, across, matrix)
