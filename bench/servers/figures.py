"""The arithmetic: what all rounds together say of a server, and of two beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from bench.common import Sample
from bench.servers.visit import NEIGHBOURS, Seen
from bench.servers.works import BINARY_64, MEMORY, OPEN_LOOP, ROW_1, ROW_64, ROWS_64, START, WIDE_4


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing to compare servers by: a figure of a work; `sign` is 1 if more is better, -1 if less is."""

    title: str
    work: str
    figure: str
    sign: int
    unit: str

    def better(self, ratio: float) -> float:
        """How many times better the first is, given its figure over the other's."""
        return ratio if self.sign > 0 else 1 / ratio


MEASURES = (
    Measure("1 x 30 JSON, c=64", ROW_64.name, "rate", 1, "requests/s"),
    Measure("1 x 30 JSON, c=1, p50", ROW_1.name, "p50_ms", -1, "ms"),
    Measure("32 x 30 JSON, c=64", ROWS_64.name, "rate", 1, "requests/s"),
    Measure("1 x 30 binary, c=64", BINARY_64.name, "rate", 1, "requests/s"),
    Measure("1 x 150,528 JSON, c=4", WIDE_4.name, "rate", 1, "requests/s"),
    Measure("open loop at 70 % of its own peak, p99", OPEN_LOOP, "p99_ms", -1, "ms"),
    Measure("cold start", START, "seconds", -1, "s"),
    Measure("memory, RSS", MEMORY, "rss_mb", -1, "MB"),
)
MAX_FAILED = 0.001
"""The part of requests that may fail before a figure is none."""


class Figures:
    """All that was seen, by server, work and figure."""

    def __init__(self, seen: Iterable[Seen]) -> None:
        self._values: dict[tuple[str, str, str], dict[int, float]] = {}
        self._reasons: dict[tuple[str, str], str] = {}
        for one in seen:
            for figure, value in one.figures.items():
                self._values.setdefault((one.server, one.work, figure), {})[one.round] = value
            if one.reason:
                self._reasons[one.server, one.work] = one.reason

    def rounds(self, server: str, work: str, figure: str) -> dict[int, float]:
        """The values by round, without those that are no figure: nothing was answered, or too much failed."""
        failed = self._values.get((server, work, "failed"), {})
        values = self._values.get((server, work, figure), {})
        if figure in ("failed", "cores"):
            return values
        good = {number for number in values if failed.get(number, 0.0) <= MAX_FAILED and values[number] > 0}
        return {number: values[number] for number in sorted(good)}

    def sample(self, server: str, work: str, figure: str) -> Sample | None:
        """A figure in all rounds that have it; None if none has."""
        values = self.rounds(server, work, figure)
        return Sample.of(list(values.values())) if values else None

    def ratio(self, one: str, other: str, work: str, figure: str) -> Sample | None:
        """One server's figure over another's, round by round, where both have it; None if they never do."""
        return _ratio(self.rounds(one, work, figure), self.rounds(other, work, figure))

    def across(self, server: str, work: str, other: str, figure: str) -> Sample | None:
        """A server's figure of one work over that of another work; None if no round has both."""
        return _ratio(self.rounds(server, work, figure), self.rounds(server, other, figure))

    def per_core_second(self, one: str, other: str, work: str) -> Sample | None:
        """The ratio of what two servers answer for each second of CPU that they take."""
        return _ratio(*(self._efficiency(server, work) for server in (one, other)))

    def _efficiency(self, server: str, work: str) -> dict[int, float]:
        rates, cores = self.rounds(server, work, "rate"), self.rounds(server, work, "cores")
        return {number: rate / cores[number] for number, rate in rates.items() if cores.get(number)}

    def failed(self, server: str, work: str) -> float:
        """The part of requests that failed, in the middle of all rounds."""
        values = self._values.get((server, work, "failed"), {})
        return median(values.values()) if values else 0.0

    def reason(self, server: str, work: str) -> str:
        """Why there is no figure; "" if nothing says so."""
        return self._reasons.get((server, work), "")

    def reasons(self, server: str) -> list[str]:
        """All reasons of a server, each once."""
        return list(dict.fromkeys(text for (name, _), text in self._reasons.items() if name == server))

    def neighbours(self) -> float:
        """Cores that other processes took during a visit, in the middle of all visits."""
        cores = [
            value
            for (_, work, figure), values in self._values.items()
            if work.startswith(NEIGHBOURS) and figure == "cores"
            for value in values.values()
        ]
        return median(cores) if cores else 0.0

    def wins(self, one: str, others: Iterable[str]) -> Iterator[tuple[Measure, str, float]]:
        """By which measures another server is better than `one`, and how many times, the best first."""
        for measure in MEASURES:
            found = []
            for other in others:
                ratio = self.ratio(other, one, measure.work, measure.figure)
                if ratio is not None and measure.better(ratio.median) > 1:
                    found.append((measure, other, measure.better(ratio.median)))
            yield from sorted(found, key=lambda win: -win[2])


def _ratio(mine: dict[int, float], theirs: dict[int, float]) -> Sample | None:
    shared = sorted(mine.keys() & theirs.keys())
    return Sample.of([mine[number] / theirs[number] for number in shared]) if shared else None
