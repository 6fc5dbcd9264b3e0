"""Exchanges that the threads of a sink take, one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from threading import Condition
from time import monotonic

from driftline.child_process import SharedCounts
from driftline.serving.payloads.exchange import Exchange


class Queue:
    """Where one thread puts what several take. Who hands exchanges over sees to it that not too many wait.

    shared  counts what was taken, and what became of it; see `log.COUNTED`
    """

    def __init__(self, shared: SharedCounts) -> None:
        self._waiting: deque[Exchange] = deque()
        self._shared = shared
        self._closed = False
        self._until = 0.0
        self._came = Condition()

    def put(self, exchanges: Iterable[Exchange]) -> None:
        """Leave exchanges to be logged."""
        with self._came:
            self._waiting.extend(exchanges)
            self._came.notify_all()

    def take(self, seconds: float, payloads: int, size: int) -> list[Exchange]:
        """The oldest, until they have so many payloads or bytes, or none waits any more.

        Empty if none comes in so many seconds, or if the queue is closed and empty.
        """
        until = monotonic() + seconds
        found: list[Exchange] = []
        with self._came:
            while not self._waiting and not self._closed and (left := until - monotonic()) > 0:
                self._came.wait(left)
            if self.late:
                return found
            taken = 0
            while self._waiting and payloads > 0 and taken < size:
                exchange = self._waiting.popleft()
                found.append(exchange)
                payloads -= exchange.halves
                taken += exchange.size
            self._shared.add("taken_bytes", taken)
        return found

    def done(self, sent: int = 0, given_up: int = 0) -> None:
        """Say what became of payloads that were taken."""
        with self._came:
            self._shared.add("sent", sent)
            self._shared.add("given_up", given_up)

    def close(self, seconds: float) -> None:
        """What waits has so long to be logged; nothing more comes."""
        with self._came:
            self._until = monotonic() + seconds
            self._closed = True
            self._came.notify_all()

    @property
    def closed(self) -> bool:
        """Whether nothing more comes."""
        return self._closed

    @property
    def late(self) -> bool:
        """Whether what still waits is not to be logged any more."""
        return self._closed and monotonic() >= self._until
