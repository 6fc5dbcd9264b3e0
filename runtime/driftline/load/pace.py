"""Schedules of requests, and the loop that sends them.

In a closed loop each connection sends its next request once it has a response: a server that stalls gets
fewer requests, and its stall is one slow response. In an open loop requests are due at a fixed rate, whatever
the server does, and durations count from when requests were due: a stall affects all that were due in it.
Missing that is what Gil Tene calls coordinated omission.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple, Protocol

from driftline.load.histogram import Histogram

SECOND = 1_000_000_000
GRACE_NS = SECOND
"""How long after the end of an open loop late requests are still sent."""
WATCH_NS = SECOND // 4
"""Time between two calls of `watch`."""
UNSENT = "not sent: all connections waited"


class Answer(NamedTuple):
    """The end of a request: when it was due and when it ended, in nanoseconds; why it failed, or None."""

    due: int
    ended: int
    failure: str | None


class Transport(Protocol):
    """Connections to a server; each has one request at a time. Implemented by `connections.Connections`."""

    @property
    def has_free(self) -> bool:
        """Whether a connection has no request."""

    @property
    def has_pending(self) -> bool:
        """Whether a connection waits for a response."""

    def now(self) -> int:
        """Return the time, in nanoseconds."""

    def send(self, due: int) -> None:
        """Send a request on a free connection; it was due at `due`."""

    def wait(self, until: int) -> Iterable[Answer]:
        """Wait for responses, at most until `until`; may return none, earlier."""


@dataclass(slots=True)
class Outcome:
    """The result of some load: durations of responses of status 2xx, and failures by reason.

    elapsed_ns  nanoseconds from the first request to the last response
    """

    latency: Histogram = field(default_factory=Histogram)
    failures: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    elapsed_ns: int = 0

    @property
    def failed(self) -> int:
        """Requests without a response of status 2xx."""
        return self.failures.total()

    @property
    def per_second(self) -> float:
        """Responses of status 2xx a second."""
        return self.answered * SECOND / self.elapsed_ns if self.elapsed_ns else 0.0

    def ms(self, q: float) -> float:
        """Return a quantile of the durations in milliseconds."""
        return self.latency.quantile(q) / 1e6

    def add(self, answer: Answer) -> None:
        """Count the end of a request."""
        if answer.failure is None:
            self.answered += 1
            self.latency.add(answer.ended - answer.due)
        else:
            self.failures[answer.failure] += 1


class ClosedLoop:
    """A request is due whenever a connection is free, from `start` on for `length` nanoseconds."""

    def __init__(self, start: int, length: int) -> None:
        self.end = start + length

    def take(self, now: int) -> int | None:
        """Take a request to send now, and return when it was due; None if none is due."""
        return now if now < self.end else None

    def remaining(self, now: int) -> int:
        """Return a lower bound of the number of requests still to be due."""
        return int(now < self.end)

    def next_due(self) -> int:
        """Return when to check again at the latest."""
        return self.end


class OpenLoop:
    """`rate` requests a second are due at equal intervals, from `start` on for `length` nanoseconds."""

    def __init__(self, start: int, length: int, rate: float) -> None:
        self.end = start + length
        self._start, self._rate = start, rate
        self._taken, self._total = 0, ceil(length / SECOND * rate)

    def take(self, now: int) -> int | None:
        """Take a request to send now, and return when it was due; None if none is due."""
        due = self.next_due()
        if due > now or self._taken == self._total:
            return None
        self._taken += 1
        return due

    def remaining(self, now: int) -> int:
        """Return the number of requests not taken yet."""
        return self._total - self._taken

    def next_due(self) -> int:
        """Return when the next request is or was due."""
        return self._start + int(self._taken * SECOND / self._rate)


def drive(
    pace: ClosedLoop | OpenLoop, transport: Transport, outcome: Outcome, watch: Callable[[], object]
) -> None:
    """Send requests when they are due, and count their ends in `outcome`, until all have ended.

    A request that is due while no connection is free waits, and its time runs; if it still waits GRACE_NS
    after the end, it fails. `watch` is called four times a second. On KeyboardInterrupt, `outcome` has the
    counts so far.
    """
    start = transport.now()
    stop, next_watch = pace.end + GRACE_NS, start
    try:
        while True:
            now = transport.now()
            is_sending = now < stop
            while is_sending and transport.has_free and (due := pace.take(now)) is not None:
                transport.send(due)
            is_over = not is_sending or not pace.remaining(now)
            if is_over and not transport.has_pending:
                break
            if now >= next_watch:
                watch()
                next_watch = now + WATCH_NS
            until = min(next_watch, pace.next_due()) if transport.has_free and not is_over else next_watch
            for answer in transport.wait(until):
                outcome.add(answer)
        if isinstance(pace, OpenLoop) and (unsent := pace.remaining(now)):
            outcome.failures[UNSENT] += unsent
    finally:
        outcome.elapsed_ns = transport.now() - start
