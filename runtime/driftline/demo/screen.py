"""The demo's output: its steps, the progress of the replay, the results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from driftline.demo.drift import Window
from driftline.demo.quality import Speed, accuracy, auc
from driftline.demo.replay import Replay

_LIVE_SECONDS = 0.2
_LINE_SECONDS = 5
_RECENT_SECONDS = 2
_INDENT = 10
_DESCRIBED_COLUMNS = 3
"""How many columns are described in words, those with the most drift."""
_TABLE_COLUMNS = ("month", "temp", "dewp", "pressure", "dest", "probabilities_1")
_CHANCE_COLUMN = "temp"
_LISTED_ALARMS = 5
"""How many alarms are listed one by one, the first ones."""

_DRIFT_FOOTNOTES = """\
[dim]Changes: columns that are certainly no longer what the version learnt from.
Alarms: columns that are further from it than is harmless, a PSI of 0.02.
By chance: what the PSI of temp would be if nothing had changed.[/]"""

_FOOTNOTES = """\
[dim]On time: how many flights were, so the accuracy of never expecting a delay.
While the next version trains, a short replay slows down to leave it flights.[/]"""


class Screen:
    """Writes to a terminal, or plain lines to any other output."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)

    def working(self, text: str) -> AbstractContextManager[object]:
        """Show the current activity during the block."""
        return self._console.status(text)

    def step(self, name: str, text: str) -> None:
        """Print a finished step of the demo."""
        label = (f"{name:<{_INDENT}}", "bold cyan")
        self._console.print(Text.assemble(label, text), soft_wrap=True)

    def command(self, text: str) -> None:
        """Print a line to copy, never wrapped."""
        self._console.print(f"\n{text}\n", markup=False, soft_wrap=True)

    @asynccontextmanager
    async def following(self, replay: Replay, flights: pd.DataFrame) -> AsyncIterator[None]:
        """Show the progress of the replay of `flights` during the block."""
        show = self._show_live if self._console.is_terminal else self._show_lines
        showing = asyncio.create_task(show(replay, flights))
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.wait({showing})

    def summary(self, replay: Replay, flights: pd.DataFrame) -> None:
        """Show how fast and how well each version answered the replay of `flights`; why requests failed."""
        table = _table("")
        for name in ("requests", "per s", "p50 ms", "p99 ms", "accuracy", "on time", "AUC"):
            table.add_column(name, justify="right", no_wrap=True)
        late = flights["late"].to_numpy()
        for name, answers in _groups(replay.answers):
            table.add_row(name, f"{len(answers):,}", *_cells(answers, late[answers["row"]]))
        self._console.print("", table, "", _FOOTNOTES, "", sep="\n")
        for reason, count in replay.failures.most_common(3):
            self.step("failed", f"{count:,} × {reason}")

    def drift(self, window: Window, flights: pd.DataFrame) -> None:
        """Show the server's report on a window: its alarms in order, and the columns that differ most."""
        about = f"{_days(window.answers, flights)}, version {window.version}"
        self.step("drift", f"{about}: {_alarms(window.alarms)}")
        for column in window.ranked()[:_DESCRIBED_COLUMNS]:
            name, psi = column["name"], column["statistics"]["psi"]
            chance = f"{_format_psi(psi['null'])} by chance"
            self.step("", f"{name:<15} PSI {_format_psi(psi['value'])}, {chance}: {column['words']}")

    def months(self, windows: Sequence[Window], flights: pd.DataFrame) -> None:
        """Show the quality of the predictions and the drift in each window."""
        quality, drift = _table("window"), _table("PSI")
        for name in ("version", "flights", "accuracy", "on time", "AUC", "changes", "alarms"):
            quality.add_column(name, justify="right", no_wrap=True)
        for name in (*_TABLE_COLUMNS, "by chance"):
            drift.add_column(name, justify="right")
        late = flights["late"].to_numpy()
        for window in windows:
            days, rows = _days(window.answers, flights), f"{window.report['rows']:,}"
            scores = _quality(window.answers, late[window.answers["row"]])
            signals = str(len(window.changes)), str(len(window.alarms))
            quality.add_row(days, str(window.version), rows, *scores, *signals)
            psis = [window.psi(name) for name in (*_TABLE_COLUMNS, _CHANCE_COLUMN)]
            values = [_format_psi(psi["value"]) if psi else "" for psi in psis[:-1]]
            drift.add_row(days, *values, _format_psi(psis[-1].get("null")) if psis[-1] else "")
        self._console.print("", quality, "", drift, "", _DRIFT_FOOTNOTES, sep="\n")

    async def _show_live(self, replay: Replay, flights: pd.DataFrame) -> None:
        with Live(console=self._console, auto_refresh=False) as live:
            try:
                while True:
                    live.update(_view(replay, flights), refresh=True)
                    await asyncio.sleep(_LIVE_SECONDS)
            finally:
                live.update(_view(replay, flights), refresh=True)

    async def _show_lines(self, replay: Replay, flights: pd.DataFrame) -> None:
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            self.step("replay", "  ".join(_progress(replay, flights)))


def day(flights: pd.DataFrame, index: int) -> str:
    """Return the scheduled day of one of the flights."""
    scheduled = flights["scheduled"].iloc[index]
    return f"{scheduled.day} {scheduled:%B}"


def _days(answers: npt.NDArray[np.void], flights: pd.DataFrame) -> str:
    """Return the first and the last scheduled day of the flights of some responses."""
    first, last = (flights["scheduled"].iloc[extreme(answers["row"])] for extreme in (np.min, np.max))
    return f"{first.day} {first:%b} to {last.day} {last:%b}"


def _alarms(alarms: Sequence[Mapping[str, Any]]) -> str:
    """Return the columns of alarms, in order, each with its number of flights of the window until then."""
    if not alarms:
        return "no alarm"
    first = f"{_column_label(alarms[0]['column'])} after {alarms[0]['rows']:,} flights"
    others = [f"{_column_label(alarm['column'])} {alarm['rows']:,}" for alarm in alarms[1:_LISTED_ALARMS]]
    more = len(alarms) - _LISTED_ALARMS
    return f"alarms: {', '.join([first, *others])}" + (f", {more} more" if more > 0 else "")


def _column_label(column: str) -> str:
    """Return the name of a column in a report, where '' is all of them together."""
    return column or "all columns"


def _format_psi(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _table(first: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first, no_wrap=True)
    return table


def _view(replay: Replay, flights: pd.DataFrame) -> Padding:
    done, *numbers = _progress(replay, flights)
    bar = Table.grid(padding=(0, 2))
    bar.add_row(ProgressBar(replay.rows, replay.done, 24, complete_style="cyan", finished_style="cyan"), done)
    return Padding(Group(bar, *numbers), (1, 0, 1, _INDENT))


def _progress(replay: Replay, flights: pd.DataFrame) -> list[str]:
    """Return the progress of the replay, its speed in the last two seconds, its quality so far."""
    lines = [f"{replay.done:,} of {replay.rows:,} flights"]
    answers = replay.answers
    if len(answers):
        newest = answers[-1]
        recent = np.searchsorted(answers["finished"], newest["finished"] - _RECENT_SECONDS)
        speed = Speed.of(answers[recent:])
        late = flights["late"].to_numpy()[answers["row"]]
        lines[0] += f"  {day(flights, newest['row']):<12}"
        lines += [
            f"{speed.per_second:,.0f}/s  p50 {speed.p50:.1f} ms  p99 {speed.p99:.1f} ms  "
            f"{replay.failures.total():,} failed",
            f"accuracy {accuracy(answers['probability'], late):.1%}  on time {1 - late.mean():.1%}  "
            f"version {newest['version']}",
        ]
    return lines


def _groups(answers: npt.NDArray[np.void]) -> list[tuple[str, npt.NDArray[np.void]]]:
    """Return the responses of each version, separately those while the next one trained, and all together."""
    version, throttled = answers["version"], answers["throttled"]
    first, *later_versions = np.unique(version) if len(answers) else [0]
    groups = [
        (f"version {first}", answers[(version == first) & ~throttled]),
        ("  while next trains", answers[(version == first) & throttled]),
        *((f"version {later}", answers[version == later]) for later in later_versions),
        ("all", answers),
    ]
    return [(name, group) for name, group in groups if len(group)]


def _cells(answers: npt.NDArray[np.void], late: npt.NDArray[np.bool_]) -> list[str]:
    speed = Speed.of(answers)
    return [f"{speed.per_second:,.0f}", f"{speed.p50:.1f}", f"{speed.p99:.1f}", *_quality(answers, late)]


def _quality(answers: npt.NDArray[np.void], late: npt.NDArray[np.bool_]) -> list[str]:
    probability = answers["probability"]
    return [
        f"{accuracy(probability, late):.1%}",
        f"{1 - late.mean():.1%}",
        f"{auc(probability, late):.3f}",
    ]
