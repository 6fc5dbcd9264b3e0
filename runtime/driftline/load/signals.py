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
    received: list[int] = []
    handlers = {
        signum: signal.signal(signum, lambda signum, frame: received.append(signum))
        for signum in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    for number in received:
        signal.raise_signal(number)
