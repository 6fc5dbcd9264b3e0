"""Finds the settings with the highest throughput of a model on this machine, by trying.

A coordinate search from the current settings: batch rows, instances and threads are each doubled or halved as
long as that helps. The throughput is the highest rate of an open loop with responses in time. The sender runs
on the same machine: the best settings with other senders may differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from driftline.config import ModelSettings, ServerFile
from driftline.engine.bundle import Bundle
from driftline.errors import DriftlineError
from driftline.load.bench import OWN, Bench, Point, Watch
from driftline.load.knee import knee
from driftline.load.request import batched, executions, request_of
from driftline.load.server import serving
from driftline.load.show import milliseconds, plain_table
from driftline.load.toml import Tables, lines_of
from driftline.machine import available_cores
from driftline.registry.file import FileRegistry
from driftline.registry.source import Registry

if TYPE_CHECKING:
    from rich.table import Table

REPEATS = 3
MIN_GAIN = 0.05
"""A smaller gain is not kept: it may be chance."""
MAX_BATCH_ROWS = 1024
MAX_SPREAD = 0.1
"""The spread of repeats above which the machine was busy with something else."""
_PASSES = 2
_CONNECTIONS = 256
_WARM_UP = 0.25
"""Seconds of warm-up for each measured second."""
_TIMEOUT_SECONDS = 5.0
_NEAR_FACTOR, _PRECISION = 1.3, 0.025
"""The factor of steps around the rate of another candidate, and the precision of the highest rate."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The tuned settings, under their names in driftline.toml."""

    max_batch_rows: int
    instances: int
    threads: int

    @classmethod
    def of(cls, settings: ModelSettings) -> Settings:
        """Select from all settings of a model."""
        engine = settings.engine
        return cls(settings.batching.max_batch_rows, engine.instances, engine.threads)

    def tables(self) -> dict[str, dict[str, int]]:
        """Return them as tables of driftline.toml."""
        return {
            "batching": {"max_batch_rows": self.max_batch_rows},
            "engine": {"instances": self.instances, "threads": self.threads},
        }

    def neighbours(self, name: str, up: bool, cores: int) -> Settings | None:
        """Return them with one doubled or halved; None if that makes no sense."""
        value: int = getattr(self, name)
        if name == "threads" and value == 0:
            value = max(1, cores // self.instances)
        maximum = MAX_BATCH_ROWS if name == "max_batch_rows" else cores
        new_value = value * 2 if up else value // 2
        return replace(self, **{name: new_value}) if 1 <= new_value <= maximum else None


@dataclass(slots=True)
class Trial:
    """Settings and their results: the point at the knee of each repeat, None if there was none."""

    settings: Settings
    knees: list[Point | None] = field(default_factory=list)
    rows_a_batch: list[float] = field(default_factory=list)
    verdict: str = ""

    @property
    def rates(self) -> list[float]:
        """Requests a second within the target, for each repeat."""
        return [(point.rate or 0.0) if point else 0.0 for point in self.knees]

    @property
    def per_second(self) -> float:
        """Requests a second within the target: the median of the repeats."""
        return median(self.rates)

    @property
    def spread(self) -> float:
        """Half the range of the repeats, as a share of their median."""
        return (max(self.rates) - min(self.rates)) / 2 / self.per_second if self.per_second else 0.0

    @property
    def p99_ms(self) -> float | None:
        """The p99 at the knee: the median of the repeats."""
        values = [point.outcome.ms(0.99) for point in self.knees if point]
        return median(values) if values else None


@dataclass(slots=True)
class Tuning:
    """One search.

    path     of the version's files: see load.server.serving
    name     of the model
    start    its current settings
    tables   its settings in the server's driftline.toml
    p99_ms   the target
    rows     of a request
    seconds  of load at each rate
    """

    path: Path
    name: str
    start: Settings
    tables: Tables
    p99_ms: float
    rows: int
    seconds: float
    watch: Watch
    trials: list[Trial] = field(default_factory=list)
    best: Trial = field(init=False)
    batched: bool = True

    @classmethod
    def of(
        cls,
        model: str,
        registry: str,
        file: ServerFile,
        p99_ms: float,
        rows: int,
        seconds: float,
        watch: Watch,
    ) -> Tuning:
        """Prepare a search for a reference or an .onnx file's path; NotFound if there is none."""
        if model.endswith(".onnx"):
            source: Registry = FileRegistry(Path(model))
            version = source.versions(source.models()[0])[0]
        else:
            source = Registry.open(registry)
            version = source.resolve(model)
        path = source.fetch(version)
        bundle = Bundle.open(path)
        start = Settings.of(file.settings_of(version.name, bundle.settings))
        tables = file.models.get(version.name, {})
        return cls(path, version.name, start, tables, p99_ms, rows, seconds, watch)

    def run(self) -> None:
        """Search; `best` has the highest throughput, `trials` are all attempts.

        Raises DriftlineError if no attempt meets the target at any rate.
        """
        self.best = Trial(self.start, verdict="as it was")
        self.trials.append(self.best)
        for _ in range(REPEATS):
            self.measure(self.best)
        for _ in range(_PASSES):
            before = self.best
            for name in (item.name for item in fields(Settings)):
                if name != "max_batch_rows" or self.batched:
                    self._climb(name)
            if self.best is before:
                break
        if not self.best.per_second:
            raise DriftlineError(
                f"{self.name}: no settings that were tried have a p99 of {self.p99_ms:g} ms at any rate"
            )

    def conclusion(self) -> str:
        """Return the chosen settings and their gain, in words."""
        first, best = self.trials[0], self.best
        chosen = ", ".join(f"{item.name} = {getattr(best.settings, item.name)}" for item in fields(Settings))
        throughput = f"{best.per_second:,.0f} requests/s with a p99 of at most {self.p99_ms:g} ms"
        text = f"{chosen}: {throughput}"
        if best is first:
            text = f"{chosen}: as it was, {throughput}; nothing that was tried surely gains {MIN_GAIN:.0%}"
        elif first.per_second:
            text += f", {best.per_second / first.per_second - 1:.0%} more than before"
        spread = max(first.spread, best.spread)
        if spread > MAX_SPREAD:
            text += f"\nthe same settings differed by ± {spread:.0%} between runs: the machine is not quiet"
        return text

    def measure(self, trial: Trial) -> None:
        """Serve with these settings, find the knee once, stop."""
        with serving(self.path, self.name, self.config(trial.settings)) as url:
            request = request_of(url, self.name, self.rows, False)
            request.try_once()
            self.batched = batched(url, self.name)
            watch = self._watch_of(trial.settings)
            times = self.seconds, _WARM_UP * self.seconds, _TIMEOUT_SECONDS
            bench = Bench(request, *times, OWN, watch, [])
            measured = (tried.per_second for tried in (trial, self.best) if tried.knees)
            start_rate = next(filter(None, measured), None)
            passed: dict[float, tuple[Point, float]] = {}

            def meets(rate: float) -> bool:
                before = executions(url, self.name)
                point = bench.open(rate, _CONNECTIONS)
                if point.meets(self.p99_ms):
                    passed[rate] = point, _ratio(before, executions(url, self.name))
                return rate in passed

            factor = _NEAR_FACTOR if start_rate else 2.0
            rate = knee(meets, start_rate or bench.first_rate(), factor, _PRECISION)
        point, rows = passed[rate] if rate else (None, 0.0)
        trial.knees.append(point)
        trial.rows_a_batch.append(rows)

    def _climb(self, name: str) -> None:
        """Double and halve one setting as long as it helps."""
        for up in (True, False):
            while (settings := self.best.settings.neighbours(name, up, available_cores())) is not None:
                if any(settings == trial.settings for trial in self.trials) or not self._challenge(settings):
                    break

    def _challenge(self, settings: Settings) -> bool:
        """Try settings; return whether they are better, and are now `best`.

        A small gain is dropped at once. Otherwise both are measured again, alternately: the medians must
        differ by as much, and no repeat may be below the current one.
        """
        trial = Trial(settings)
        self.trials.append(trial)
        self.measure(trial)
        if self._gain(trial) >= MIN_GAIN:
            for _ in range(REPEATS - 1):
                self.measure(self.best)
                self.measure(trial)
        gain = self._gain(trial)
        if better := gain >= MIN_GAIN and min(trial.rates) > self.best.per_second:
            self.best = trial
        trial.verdict = f"{gain:+.0%}, {'kept' if better else 'not kept'}"
        return better

    def _gain(self, trial: Trial) -> float:
        if not self.best.per_second:
            return 1.0 if trial.per_second else 0.0
        return trial.per_second / self.best.per_second - 1

    def config(self, settings: Settings) -> str:
        """Return a server's driftline.toml with these settings; synthetic traffic writes no history."""
        tables = {name: dict(table) for name, table in self.tables.items()}
        for name, values in (settings.tables() | {"monitor": {"history": ""}}).items():
            tables[name] = tables.get(name, {}) | values
        return "\n".join((*lines_of(self.name, tables), ""))

    def _watch_of(self, settings: Settings) -> Watch:
        numbers = " ".join(f"{item.name} {getattr(settings, item.name)}" for item in fields(Settings))
        return lambda what, done, outcome: self.watch(f"{numbers}: {what}", done, outcome)


def trials_table(trials: list[Trial]) -> Table:
    """Return a table of all attempts, in order."""
    table = plain_table("max rows")
    for name in ("instances", "threads", "requests/s", "±", "p99 ms", "rows a batch", "runs"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("gain", no_wrap=True)
    for trial in trials:
        if trial.knees:
            settings, p99 = trial.settings, trial.p99_ms
            table.add_row(
                *(str(getattr(settings, item.name)) for item in fields(Settings)),
                f"{trial.per_second:,.0f}",
                f"{trial.spread:.0%}" if len(trial.knees) > 1 else "",
                "" if p99 is None else milliseconds(p99),
                f"{median(trial.rows_a_batch):.1f}",
                str(len(trial.knees)),
                trial.verdict,
            )
    return table


def _ratio(before: tuple[int, int], after: tuple[int, int]) -> float:
    rows, batches = after[0] - before[0], after[1] - before[1]
    return rows / batches if batches else 0.0
