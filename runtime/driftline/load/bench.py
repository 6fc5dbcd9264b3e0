"""Measure one request at one server: closed loops, open loops, and the highest rate that meets a target."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from driftline.load import tools
from driftline.load.connections import Connections
from driftline.load.knee import knee
from driftline.load.pace import SECOND, ClosedLoop, OpenLoop, Outcome, drive
from driftline.load.request import Request

OWN = "own"
AUTO = "auto"
SENDERS = (AUTO, *tools.TOOLS, OWN)
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
MOST_BUSY = 0.9
"""The share of a core above which our own sender, not the server, may be what is measured."""
_FIRST_SECONDS = 1.0
_FIRST_CONNECTIONS = 64
_FIRST_SHARE = 1 / 8

Watch = Callable[[str, float, Outcome], object]
"""Called four times a second: with what is being done, how much of it is, and what was counted so far."""


@dataclass(frozen=True, slots=True)
class Point:
    """One line of the table: what was asked, and what came of it.

    rate    requests a second that were due, in an open loop; None for a closed one
    sender  who sent
    busy    the share of a core that our own sender took; 0 for others
    """

    connections: int
    rate: float | None
    sender: str
    outcome: Outcome
    busy: float = 0.0

    @property
    def name(self) -> str:
        """What was asked, in words."""
        if self.rate is not None:
            return f"{self.rate:,.4g}/s" if self.rate < 1000 else f"{self.rate:,.0f}/s"
        return f"{self.connections:,} connection{'s' * (self.connections > 1)}"

    def meets(self, p99_ms: float) -> bool:
        """Whether 99 % were answered in that time and nothing failed."""
        return self.outcome.answered > 0 and not self.outcome.failed and self.outcome.ms(0.99) <= p99_ms

    def as_json(self) -> dict[str, Any]:
        """All of it, with the histogram of durations as [milliseconds, count]."""
        return {
            "loop": "closed" if self.rate is None else "open",
            "connections": self.connections,
            "rate": self.rate,
            "sender": self.sender,
            "sender_busy": round(self.busy, 3),
            "answered": self.outcome.answered,
            "failures": dict(self.outcome.failures),
            "seconds": self.outcome.took_ns / SECOND,
            "per_second": self.outcome.per_second,
            "ms": {name: self.outcome.ms(q) for name, q in QUANTILES.items()},
            "histogram_ms": [[ns / 1e6, count] for ns, count in self.outcome.latency],
        }


@dataclass(slots=True)
class Bench:
    """One request, and how long to measure with it.

    seconds  of load for one point
    warm_up  seconds of the same load before, which are not counted
    timeout  seconds that an answer may take
    sender   of closed loops: a tool's name, OWN, or AUTO for the first that is installed, else our own
    points   what was measured so far, that which an interrupt cut short too
    """

    request: Request
    seconds: float
    warm_up: float
    timeout: float
    sender: str
    watch: Watch
    points: list[Point]

    def closed(self, connections: int) -> Point:
        """Connections that ask again as soon as they are answered."""
        sender = (tools.installed() or OWN) if self.sender == AUTO else self.sender
        name = Point(connections, None, sender, Outcome()).name
        if sender == OWN:
            return self._send(name, connections, None)
        if self.warm_up:
            self._tool(sender, f"{name}, warm-up", connections, self.warm_up, Outcome())
        point = Point(connections, None, sender, Outcome())
        self.points.append(point)
        self._tool(sender, name, connections, self.seconds, point.outcome)
        return point

    def open(self, rate: float, connections: int) -> Point:
        """Requests at a fixed rate, on at most so many connections."""
        return self._send(Point(connections, rate, OWN, Outcome()).name, connections, rate)

    def find_knee(self, p99_ms: float, first: float | None, connections: int) -> Point | None:
        """The highest rate at which 99 % are answered in `p99_ms` and none fails, within 5 %.

        first  the rate to begin with; None for `first_rate`

        None if no rate does. All that was tried is in `points`.
        """
        met: dict[float, Point] = {}

        def meets(rate: float) -> bool:
            point = self.open(rate, connections)
            if point.meets(p99_ms):
                met[rate] = point
            return rate in met

        found = knee(meets, first or self.first_rate())
        return None if found is None else met[found]

    def first_rate(self) -> float:
        """A rate to begin with: an eighth of what a second of a closed loop reaches."""
        shortly = Bench(self.request, _FIRST_SECONDS, 0.0, self.timeout, self.sender, self.watch, [])
        return shortly.closed(_FIRST_CONNECTIONS).outcome.per_second * _FIRST_SHARE

    def _tool(self, sender: str, what: str, connections: int, seconds: float, outcome: Outcome) -> None:
        began, nothing = time.monotonic(), Outcome()

        def watch() -> None:
            self.watch(what, min(1.0, (time.monotonic() - began) / seconds), nothing)

        tools.run(sender, self.request, connections, seconds, self.timeout, outcome, watch)

    def _send(self, name: str, connections: int, rate: float | None) -> Point:
        address = self.request.address()
        with closing(Connections(address, self.request.message, connections, self.timeout)) as transport:
            if self.warm_up:
                self._drive(transport, f"{name}, warm-up", self.warm_up, rate, Outcome())
            outcome, used, began = Outcome(), time.process_time(), time.perf_counter()
            try:
                self._drive(transport, name, self.seconds, rate, outcome)
            finally:
                busy = (time.process_time() - used) / (time.perf_counter() - began)
                point = Point(connections, rate, OWN, outcome, busy)
                self.points.append(point)
        return point

    def _drive(
        self, transport: Connections, what: str, seconds: float, rate: float | None, outcome: Outcome
    ) -> None:
        start, length = transport.now(), int(seconds * SECOND)
        pace = ClosedLoop(start, length) if rate is None else OpenLoop(start, length, rate)

        def watch() -> None:
            self.watch(what, min(1.0, (transport.now() - start) / length), outcome)

        drive(pace, transport, outcome, watch)
