"""Defers SIGINT and SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deferred() -> Iterator[None]:
    """Handle SIGINT and SIGTERM only at the end of the block.

    A signal while a child process is being started would end this process without it: no variable holds the
    child yet, so nothing would stop it.
    """
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for taken, handler in before.items():
            signal.signal(taken, handler)
    for number in came:
        signal.raise_signal(number)
