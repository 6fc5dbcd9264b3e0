"""When requests are to be sent, and the loop that sends them then.

In a closed loop each connection asks again once it has its answer: a server that stalls is asked less, and
its stall is one long answer. In an open loop requests are due at a fixed rate whatever the server does, and
each takes from when it was due: a stall is seen by all that were due in it. Not to see it is what Gil Tene
calls coordinated omission.
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
"""How long after the end of an open loop what was due before is still sent."""
WATCH_NS = SECOND // 4
UNSENT = "not sent: all connections waited"


class Answer(NamedTuple):
    """What came of a request: when it was due and when it ended, in nanoseconds, and why it failed if so."""

    due: int
    at: int
    failure: str | None


class Wire(Protocol):
    """Connections to a server, a request at a time on each."""

    @property
    def free(self) -> bool:
        """Whether one has nothing to do."""

    @property
    def pending(self) -> bool:
        """Whether one waits for an answer."""

    def now(self) -> int:
        """The time, in nanoseconds."""

    def send(self, due: int) -> None:
        """Send a request that was due then on a free connection."""

    def wait(self, until: int) -> Iterable[Answer]:
        """The next answers; none if there are none until then, or earlier."""


@dataclass(slots=True)
class Outcome:
    """What came of a stretch of load: durations of answers of status 2xx, failures by reason; nanoseconds."""

    latency: Histogram = field(default_factory=Histogram)
    failures: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    took_ns: int = 0

    @property
    def failed(self) -> int:
        """Requests without an answer of status 2xx."""
        return self.failures.total()

    @property
    def per_second(self) -> float:
        """Answers of status 2xx."""
        return self.answered * SECOND / self.took_ns if self.took_ns else 0.0

    def ms(self, q: float) -> float:
        """A quantile of the durations in milliseconds."""
        return self.latency.quantile(q) / 1e6

    def add(self, answer: Answer) -> None:
        """Count what came of a request."""
        if answer.failure is None:
            self.answered += 1
            self.latency.add(answer.at - answer.due)
        else:
            self.failures[answer.failure] += 1


class Closed:
    """A request whenever a connection is free, from `start` on for so many nanoseconds."""

    def __init__(self, start: int, length: int) -> None:
        self.end = start + length

    def take(self, now: int) -> int | None:
        """When the request to be sent now was due; None if none is."""
        return now if now < self.end else None

    def left(self, now: int) -> int:
        """At least how many will still be due."""
        return int(now < self.end)

    def wake(self) -> int:
        """When there is something to do at the latest."""
        return self.end


class Open:
    """Requests at equal distances, so many a second, from `start` on for so many nanoseconds."""

    def __init__(self, start: int, length: int, rate: float) -> None:
        self.end = start + length
        self._start, self._rate = start, rate
        self._taken, self._total = 0, ceil(length / SECOND * rate)

    def take(self, now: int) -> int | None:
        """When the request to be sent now was due; None if none is."""
        due = self.wake()
        if due > now or self._taken == self._total:
            return None
        self._taken += 1
        return due

    def left(self, now: int) -> int:
        """How many are not taken yet."""
        return self._total - self._taken

    def wake(self) -> int:
        """When the next is due, or was."""
        return self._start + int(self._taken * SECOND / self._rate)


def drive(pace: Closed | Open, wire: Wire, outcome: Outcome, watch: Callable[[], object]) -> None:
    """Send what is due while connections are free, and count what comes of it until all have ended.

    What is due and finds no free connection waits, and its time runs; a second after the end it fails.
    `watch` is called four times a second. On KeyboardInterrupt the outcome holds what was counted so far.
    """
    began = wire.now()
    stop, watched = pace.end + GRACE_NS, began
    try:
        while True:
            now = wire.now()
            sending = now < stop
            while sending and wire.free and (due := pace.take(now)) is not None:
                wire.send(due)
            over = not sending or not pace.left(now)
            if over and not wire.pending:
                break
            if now >= watched:
                watch()
                watched = now + WATCH_NS
            until = min(watched, pace.wake()) if wire.free and not over else watched
            for answer in wire.wait(until):
                outcome.add(answer)
        if isinstance(pace, Open) and (unsent := pace.left(now)):
            outcome.failures[UNSENT] += unsent
    finally:
        outcome.took_ns = wire.now() - began
