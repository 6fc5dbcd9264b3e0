"""What the detectors promise, by simulation through the public Monitor: rows to a signal, false or true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from driftline.monitor.monitor import Monitor
from driftline.monitor.profile import Profile
from driftline.monitor.signals import Signal

LOOK_ROWS = 100
FALSE_ALARM_ROWS = 20_000
CAP_ROWS = 60_000
STEPS = 16
"""Steps of the density that a drift tilts: the rank bins."""

Random = np.random.Generator
Draw = Callable[[Random, int], dict[str, object]]
"""So many rows, as columns."""


@dataclass(frozen=True, slots=True)
class Case:
    """A reference and what comes after it.

    name       of the case
    rows       of the reference, m
    reference  draws it
    live       draws what is observed
    """

    name: str
    rows: int
    reference: Draw
    live: Draw


@dataclass(slots=True)
class Delays:
    """Rows to the first change and to the first alarm of each path; CAP_ROWS where there was none."""

    change: list[int] = field(default_factory=list)
    alarm: list[int] = field(default_factory=list)


def uniform(random: Random, rows: int) -> dict[str, object]:
    """One continuous column."""
    return {"x": random.random(rows, np.float32)}


def tilted(psi: float) -> Draw:
    """The uniform column, its density tilted exponentially, in steps, to a drift of this PSI."""
    steps = np.linspace(-1, 1, STEPS)
    low, high = 0.0, 4.0
    for _ in range(60):
        slope = (low + high) / 2
        shares = np.exp(slope * steps) / np.exp(slope * steps).sum()
        less = ((shares - 1 / STEPS) * np.log(shares * STEPS)).sum() < psi
        low, high = (slope, high) if less else (low, slope)

    def draw(random: Random, rows: int) -> dict[str, object]:
        step = random.choice(STEPS, rows, p=shares)
        return {"x": ((step + random.random(rows)) / STEPS).astype(np.float32)}

    return draw


def beyond(share: float) -> Draw:
    """The uniform column, a share of it beyond anything that the reference has."""

    def draw(random: Random, rows: int) -> dict[str, object]:
        x = random.random(rows, np.float32)
        return {"x": np.where(random.random(rows) < share, np.float32(2), x)}

    return draw


def simulate(case: Case, paths: int, cap: int = CAP_ROWS, seed: int = 0) -> Delays:
    """Many references and streams: how long each takes to its first signals."""
    delays = Delays()
    for path in range(paths):
        random = np.random.default_rng((seed, path))
        first: dict[str, int] = {}

        def note(signal: Signal, first: dict[str, int] = first) -> None:
            first.setdefault(signal.kind, signal.rows)

        monitor = Monitor(
            Profile.fit(case.reference(random, case.rows)),
            false_alarm_rows=FALSE_ALARM_ROWS,
            look_rows=LOOK_ROWS,
            on_signal=note,
        )
        while monitor.rows < cap and len(first) < 2:
            monitor.observe(case.live(random, LOOK_ROWS * 10))
        delays.change.append(min(first.get("change", cap), cap))
        delays.alarm.append(min(first.get("alarm", cap), cap))
    return delays


QUIET = [Case(f"no drift, m = {m:,}", m, uniform, uniform) for m in (500, 2_000, 10_000, 100_000)]
DRIFTS = [
    Case(f"PSI {psi}, m = {m:,}", m, uniform, tilted(psi))
    for psi, sizes in ((0.01, (10_000,)), *((psi, (2_000, 10_000, 100_000)) for psi in (0.05, 0.1, 0.25)))
    for m in sizes
]
NEW_VALUES = [
    Case(f"{share:.1%} never seen, m = 10,000", 10_000, uniform, beyond(share))
    for share in (0.002, 0.01, 0.05)
]
