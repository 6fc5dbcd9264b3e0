"""How CUDA blocks share rows."""

from __future__ import annotations

from driftline_kernels.device import body


@body
def share(rows: int, block: int, blocks: int) -> tuple[int, int]:
    """The first row of a CUDA block, and the one behind its last, where all blocks share some rows."""
    each = (rows + blocks - 1) // blocks
    return min(block * each, rows), min((block + 1) * each, rows)
