"""Count codes of categories."""

from __future__ import annotations

from typing import Any

from driftline_kernels.device import body, driver, grid, on_cpu

cuda: Any = None  # numba.cuda, bound by `grid` at the first launch


def count(codes: Any, counts: Any) -> None:
    """Add the rows of `codes` to `counts`, in place.

    codes   (rows,) int32, -1 <= code < n, where -1 is missing; on cpu or cuda
    counts  (n + 1,) int64, on the same device; the last one counts what is missing
    """
    if on_cpu(codes):
        _count(codes, counts)
    else:
        _count_cuda(len(codes), codes, counts)


@body
def place_of(code: int, places: int) -> int:
    """Where a code is counted: -1 in the last place."""
    return code if code >= 0 else places - 1


@driver
def _count(codes: Any, counts: Any) -> None:
    for row in range(len(codes)):
        counts[place_of(codes[row], len(counts))] += 1


@grid
def _count_cuda(codes: Any, counts: Any) -> None:
    row = cuda.grid(1)
    if row < len(codes):
        cuda.atomic.add(counts, place_of(codes[row], len(counts)), 1)
