"""Loads one server, or several in turn, with wrk, and returns what it measured."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import median, quantiles
from typing import Self

from bench.common import CLIENT_CORE, HERE, HOST, pinned, program
from bench.requests import Request


@dataclass(frozen=True, slots=True)
class Load:
    """wrk's figures of one round: successful requests/s, latencies, and the part of requests that failed."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    failed: float = 0.0

    @classmethod
    def median(cls, loads: Sequence[Load]) -> Load:
        """Return the median of each figure."""
        return cls(*(median(getattr(load, field.name) for load in loads) for field in fields(cls)))


def load(port: int, request: Request, connections: int, seconds: int) -> Load:
    """Send one request repeatedly over this many connections, from the client's core.

    Raises RuntimeError if any of them fails: a figure with errors in it is worthless.
    """
    figures = attempt(port, request, connections, seconds)
    if figures.failed or not figures.requests_per_second:
        raise RuntimeError(f"of the requests to {request.path}, {figures.failed:.2%} failed: {figures}")
    return figures


def attempt(port: int, request: Request, connections: int, seconds: int) -> Load:
    """Do the same for a server that may fail."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(request.body)
        body.flush()
        options = ("-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", HERE / "post.lua")
        length = "-" if request.json_length is None else request.json_length
        url = f"http://{HOST}:{port}{request.path}"
        command = pinned(CLIENT_CORE, program("wrk"), *options, url, "--", body.name, str(length))
        completed = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(completed.stdout.splitlines()[-1])
    rate = figures["answered"] / figures["microseconds"] * 1e6
    failed = figures["failures"] / max(figures["answered"] + figures["failures"], 1)
    return Load(rate, figures["p50_us"] / 1e3, figures["p99_us"] / 1e3, failed)


def in_turn(
    ports: Mapping[str, int], request: Request, connections: int, times: int, pause: float = 0.0
) -> dict[str, list[Load]]:
    """Load several servers on one core in turn, for a second each, repeatedly.

    The machine's own changes are slower than that, so ratios within a turn hardly contain them.

    pause  seconds after each turn
    """
    loads: dict[str, list[Load]] = {name: [] for name in ports}
    for _ in range(times):
        for name, port in ports.items():
            loads[name].append(load(port, request, connections, 1))
        time.sleep(pause)
    return loads


@dataclass(frozen=True, slots=True)
class Ratios:
    """The requests/s of one server divided by another's, turn by turn. Formats as median and quartiles."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, ours: Sequence[Load], theirs: Sequence[Load]) -> Self:
        """Return the ratios of two servers' loads from `in_turn`."""
        pairs = zip(ours, theirs, strict=True)
        return cls(tuple(our.requests_per_second / their.requests_per_second for our, their in pairs))

    @property
    def median(self) -> float:
        """The median."""
        return median(self.values)

    def __format__(self, spec: str) -> str:
        low, middle, high = quantiles(self.values, n=4)
        return f"{middle:{spec}} ({low:{spec}} to {high:{spec}})"
