"""Measures one request at one server: closed loops, open loops, and the highest rate within a target."""

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
MAX_BUSY = 0.9
"""Share of a core above which our own sender, not the server, may be the bottleneck."""
_PROBE_SECONDS = 1.0
_PROBE_CONNECTIONS = 64
_PROBE_SHARE = 1 / 8

Watch = Callable[[str, float, Outcome], object]
"""Called four times a second with what is being measured, the part that is done, and the counts so far."""


@dataclass(frozen=True, slots=True)
class Point:
    """One line of the table: the load and its outcome.

    rate    requests due per second in an open loop; None for a closed one
    sender  what sent the requests
    busy    the share of a core that our own sender used; 0 for others
    """

    connections: int
    rate: float | None
    sender: str
    outcome: Outcome
    busy: float = 0.0

    @property
    def name(self) -> str:
        """The load, in words."""
        if self.rate is not None:
            return f"{self.rate:,.4g}/s" if self.rate < 1000 else f"{self.rate:,.0f}/s"
        return f"{self.connections:,} connection{'s' * (self.connections > 1)}"

    def meets(self, p99_ms: float) -> bool:
        """Whether the p99 is within this time and no request failed."""
        return self.outcome.answered > 0 and not self.outcome.failed and self.outcome.ms(0.99) <= p99_ms

    def as_json(self) -> dict[str, Any]:
        """Return all figures, with the histogram of durations as [milliseconds, count]."""
        return {
            "loop": "closed" if self.rate is None else "open",
            "connections": self.connections,
            "rate": self.rate,
            "sender": self.sender,
            "sender_busy": round(self.busy, 3),
            "answered": self.outcome.answered,
            "failures": dict(self.outcome.failures),
            "seconds": self.outcome.elapsed_ns / SECOND,
            "per_second": self.outcome.per_second,
            "ms": {name: self.outcome.ms(q) for name, q in QUANTILES.items()},
            "histogram_ms": [[ns / 1e6, count] for ns, count in self.outcome.latency],
        }


@dataclass(slots=True)
class Bench:
    """One request and how to measure it.

    seconds  of load for one point
    warm_up  seconds of the same load before that, not counted
    timeout  seconds that a response may take
    sender   of closed loops: a tool's name, OWN, or AUTO for the first installed tool, else our own
    points   all measurements so far, including an interrupted one
    """

    request: Request
    seconds: float
    warm_up: float
    timeout: float
    sender: str
    watch: Watch
    points: list[Point]

    def closed(self, connections: int) -> Point:
        """Measure connections that send the next request as soon as they have a response."""
        sender = (tools.installed() or OWN) if self.sender == AUTO else self.sender
        name = Point(connections, None, sender, Outcome()).name
        if sender == OWN:
            return self._run_own(name, connections, None)
        if self.warm_up:
            self._run_tool(sender, f"{name}, warm-up", connections, self.warm_up, Outcome())
        point = Point(connections, None, sender, Outcome())
        self.points.append(point)
        self._run_tool(sender, name, connections, self.seconds, point.outcome)
        return point

    def open(self, rate: float, connections: int) -> Point:
        """Measure requests at a fixed rate, on at most so many connections."""
        return self._run_own(Point(connections, rate, OWN, Outcome()).name, connections, rate)

    def find_knee(self, p99_ms: float, start_rate: float | None, connections: int) -> Point | None:
        """Find the highest rate with a p99 of at most `p99_ms` and no failures, to within 5 %.

        start_rate  None for `first_rate`

        Returns None if no rate meets the target. `points` has all attempts.
        """
        passed: dict[float, Point] = {}

        def meets(rate: float) -> bool:
            point = self.open(rate, connections)
            if point.meets(p99_ms):
                passed[rate] = point
            return rate in passed

        rate = knee(meets, start_rate or self.first_rate())
        return None if rate is None else passed[rate]

    def first_rate(self) -> float:
        """Return a rate to start with: an eighth of the rate of a closed loop in one second."""
        probe = Bench(self.request, _PROBE_SECONDS, 0.0, self.timeout, self.sender, self.watch, [])
        return probe.closed(_PROBE_CONNECTIONS).outcome.per_second * _PROBE_SHARE

    def _run_tool(self, sender: str, what: str, connections: int, seconds: float, outcome: Outcome) -> None:
        start, no_outcome = time.monotonic(), Outcome()

        def watch() -> None:
            self.watch(what, min(1.0, (time.monotonic() - start) / seconds), no_outcome)

        tools.run(sender, self.request, connections, seconds, self.timeout, outcome, watch)

    def _run_own(self, name: str, connections: int, rate: float | None) -> Point:
        address = self.request.address()
        with closing(Connections(address, self.request.message, connections, self.timeout)) as transport:
            if self.warm_up:
                self._drive(transport, f"{name}, warm-up", self.warm_up, rate, Outcome())
            outcome, cpu_start, start = Outcome(), time.process_time(), time.perf_counter()
            try:
                self._drive(transport, name, self.seconds, rate, outcome)
            finally:
                busy = (time.process_time() - cpu_start) / (time.perf_counter() - start)
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
