"""Shows measurements in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import orjson

from driftline import __version__
from driftline.load.bench import MAX_BUSY, OWN, QUANTILES, Point, Watch
from driftline.load.pace import Outcome
from driftline.load.request import Request

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@contextmanager
def watching(console: Console) -> Iterator[Watch]:
    """Show the progress of a measurement, if the console is a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[so_far]}")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=1.0, so_far="")

        def watch(what: str, done: float, outcome: Outcome) -> None:
            so_far = f"{outcome.answered:,} answers" if outcome.answered else ""
            so_far += f", {outcome.failed:,} failed" if outcome.failed else ""
            progress.update(task, description=what, completed=done, so_far=so_far)

        yield watch


def table(points: Sequence[Point]) -> Table:
    """Return a table with a row for each point."""
    table = plain_table("")
    for name in ("answers", "per s", *(f"{name} ms" for name in QUANTILES), "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    for point in points:
        outcome = point.outcome
        times = [milliseconds(outcome.ms(q)) if outcome.answered else "" for q in QUANTILES.values()]
        failed = f"{outcome.failed:,}" if outcome.failed else "0"
        table.add_row(point.name, f"{outcome.answered:,}", f"{outcome.per_second:,.0f}", *times, failed)
    return table


def plain_table(first: str) -> Table:
    """Return a table without lines."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first, no_wrap=True)
    return table


def remarks(
    points: Sequence[Point], p99_ms: float | None, knee: Point | None, interrupted: bool
) -> Iterator[str]:
    """Yield the knee, reasons of failures, the senders, and doubts about the figures."""
    if interrupted:
        yield "interrupted: this is what was measured until then"
    elif p99_ms is not None:
        yield _knee(points, p99_ms, knee)
    failures = sum((point.outcome.failures for point in points), Counter[str]())
    for reason, count in failures.most_common():
        yield f"failed: {count:,} × {failure_name(reason)}"
    senders = sorted({point.sender for point in points})
    if senders:
        yield f"sent by {' and '.join('our own sender' if sender == OWN else sender for sender in senders)}"
    busy = [point.name for point in points if point.busy > MAX_BUSY]
    if busy:
        yield f"the sender was busy itself ({', '.join(busy)}): part of these durations is its own"


def _knee(points: Sequence[Point], p99_ms: float, knee: Point | None) -> str:
    if knee is None:
        return f"no rate has a p99 of {p99_ms:g} ms or less without failures"
    above = [point for point in points if (point.rate or 0) > (knee.rate or 0) and not point.meets(p99_ms)]
    next_point = min(above, key=lambda point: point.rate or 0, default=None)
    text = f"knee: {knee.name}, with a p99 of {milliseconds(knee.outcome.ms(0.99))} ms of {p99_ms:g}"
    if next_point is None:
        return text
    failed, p99 = next_point.outcome.failed, milliseconds(next_point.outcome.ms(0.99))
    return f"{text}; {next_point.name} had {f'{failed:,} failures' if failed else f'{p99} ms'}"


def as_json(request: Request, points: Sequence[Point], p99_ms: float | None, knee: Point | None) -> str:
    """Return all figures as a JSON document."""
    document = {
        "driftline": __version__,
        "url": request.url,
        "request": request.description,
        "body_bytes": len(request.body),
        "points": [point.as_json() for point in points],
    }
    if p99_ms is not None:
        document["knee"] = {"p99_ms": p99_ms, "rate": knee.rate if knee else None}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n"


def failure_name(reason: str) -> str:
    """Return a status with its name; any other reason unchanged."""
    try:
        return f"{reason} {HTTPStatus(int(reason)).phrase}"
    except ValueError:
        return reason


def milliseconds(value: float) -> str:
    """Format milliseconds with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
