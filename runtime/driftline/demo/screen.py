"""What the demo shows: its steps, how the replay goes, how it went."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from driftline.demo.quality import Speed, accuracy, auc
from driftline.demo.replay import Replay

_LIVE_SECONDS = 0.2
_LINE_SECONDS = 5
_RECENT_SECONDS = 2
_INDENT = 10

_FOOTNOTES = """\
[dim]On time: how many flights were, so the accuracy of never expecting a delay.
While the next version trains, a short replay slows down to leave it flights.[/]"""


class Screen:
    """Writes to a terminal, or plain lines to what else stands in its place."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)

    def working(self, text: str) -> AbstractContextManager[object]:
        """Show what is being done, while it is."""
        return self._console.status(text)

    def step(self, name: str, text: str) -> None:
        """A step of the story, once it is done."""
        label = (f"{name:<{_INDENT}}", "bold cyan")
        self._console.print(Text.assemble(label, text), soft_wrap=True)

    def command(self, text: str) -> None:
        """A line to copy, never wrapped."""
        self._console.print(f"\n{text}\n", markup=False, soft_wrap=True)

    @asynccontextmanager
    async def following(self, replay: Replay, flights: pd.DataFrame) -> AsyncIterator[None]:
        """Show how the replay of `flights` goes, until this is left."""
        show = self._show_live if self._console.is_terminal else self._show_lines
        showing = asyncio.create_task(show(replay, flights))
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.wait({showing})

    def summary(self, replay: Replay, flights: pd.DataFrame) -> None:
        """How fast each version answered the replay of `flights`, and how well; why requests failed."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in ("", "requests", "per s", "p50 ms", "p99 ms", "accuracy", "on time", "AUC"):
            table.add_column(name, justify="right" if name else "left", no_wrap=True)
        late = flights["late"].to_numpy()
        for name, answers in _groups(replay.answers):
            table.add_row(name, f"{len(answers):,}", *_cells(answers, late[answers["row"]]))
        self._console.print("", table, "", _FOOTNOTES, "", sep="\n")
        for reason, count in replay.failures.most_common(3):
            self.step("failed", f"{count:,} × {reason}")

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


def day(flights: pd.DataFrame, at: int) -> str:
    """The day on which one of the flights was to depart."""
    scheduled = flights["scheduled"].iloc[at]
    return f"{scheduled.day} {scheduled:%B}"


def _view(replay: Replay, flights: pd.DataFrame) -> Padding:
    done, *numbers = _progress(replay, flights)
    bar = Table.grid(padding=(0, 2))
    bar.add_row(ProgressBar(replay.rows, replay.done, 24, complete_style="cyan", finished_style="cyan"), done)
    return Padding(Group(bar, *numbers), (1, 0, 1, _INDENT))


def _progress(replay: Replay, flights: pd.DataFrame) -> list[str]:
    """How far the replay is; how fast it was over the last two seconds; how good over all."""
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
    """The answers of each version, those while the next one trained apart, and all together."""
    version, easy = answers["version"], answers["easy"]
    first, *others = np.unique(version) if len(answers) else [0]
    groups = [
        (f"version {first}", answers[(version == first) & ~easy]),
        ("  while next trains", answers[(version == first) & easy]),
        *((f"version {other}", answers[version == other]) for other in others),
        ("all", answers),
    ]
    return [(name, group) for name, group in groups if len(group)]


def _cells(answers: npt.NDArray[np.void], late: npt.NDArray[np.bool_]) -> list[str]:
    speed, probability = Speed.of(answers), answers["probability"]
    return [
        f"{speed.per_second:,.0f}",
        f"{speed.p50:.1f}",
        f"{speed.p99:.1f}",
        f"{accuracy(probability, late):.1%}",
        f"{1 - late.mean():.1%}",
        f"{auc(probability, late):.3f}",
    ]
