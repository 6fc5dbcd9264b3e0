"""What Arrow takes in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

_POOLS: list[Any] = []
"""Threads of Arrow may use a pool after what was read with it is there; if it is gone by then, they crash."""


@contextmanager
def counted() -> Iterator[Any]:
    """A memory pool that Arrow uses meanwhile, and that knows how much that was at most."""
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)
    _POOLS.append(pool)
    pa.set_memory_pool(pool)
    try:
        yield pool
    finally:
        pa.set_memory_pool(usual)
