"""The queue of the logging process, between its reader and the threads of its sink."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import inf
from threading import Condition
from time import monotonic

from driftline.child_process import SharedCounts
from driftline.serving.payloads.exchange import Exchange


class Queue:
    """A queue of exchanges, filled by one thread and emptied by several. The server limits its size.

    shared  counts what was taken and logged, for the server; see `log.COUNT_NAMES`
    """

    def __init__(self, shared: SharedCounts) -> None:
        self._exchanges: deque[Exchange] = deque()
        self._shared = shared
        self._closed = False
        self._deadline = inf
        self._changed = Condition()

    def put(self, exchanges: Iterable[Exchange]) -> None:
        """Add exchanges."""
        with self._changed:
            self._exchanges.extend(exchanges)
            self._changed.notify_all()

    def take(self, seconds: float, max_payloads: int, max_bytes: int) -> list[Exchange]:
        """Take the oldest exchanges, until they have `max_payloads` or `max_bytes`, or none is left.

        Waits up to `seconds` for the first one. Returns [] if none comes, or if the queue is closed and
        empty or late.
        """
        wait_until = monotonic() + seconds
        exchanges: list[Exchange] = []
        with self._changed:
            while not self._exchanges and not self._closed and (remaining := wait_until - monotonic()) > 0:
                self._changed.wait(remaining)
            if self.late:
                return exchanges
            taken_bytes = 0
            while self._exchanges and max_payloads > 0 and taken_bytes < max_bytes:
                exchange = self._exchanges.popleft()
                exchanges.append(exchange)
                max_payloads -= exchange.halves
                taken_bytes += exchange.size
            self._shared.add("taken_bytes", taken_bytes)
        return exchanges

    def count_done(self, sent: int = 0, given_up: int = 0, size: int = 0) -> None:
        """Count taken payloads as logged or given up.

        size  bytes of the exchanges of which all payloads are done now
        """
        with self._changed:
            self._shared.add("done_bytes", size)
            self._shared.add("sent", sent)
            self._shared.add("given_up", given_up)

    def end(self, seconds: float) -> None:
        """Begin to end: the queue is `late` after `seconds`; until it is closed, exchanges may be added."""
        self._deadline = monotonic() + seconds

    def close(self, seconds: float) -> None:
        """Close the queue; it is `late` after `seconds`."""
        with self._changed:
            self.end(seconds)
            self._closed = True
            self._changed.notify_all()

    @property
    def ending(self) -> bool:
        """Whether the server stops: there is no time for long waits."""
        return self._deadline < inf

    @property
    def closed(self) -> bool:
        """Whether no more exchanges will be added."""
        return self._closed

    @property
    def late(self) -> bool:
        """Whether the time to log what still waits is over."""
        return monotonic() >= self._deadline
