"""Signals that wait."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until this is left.

    One that comes while a process is being started would leave it behind: nobody knows it yet.
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
