"""A benchmark's results: for the terminal, as Markdown, as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rich.table
from rich.console import Console

from bench.common import HERE, Effort, Neighbours, machine

JSON = HERE / "results" / "serve.json"
MARKDOWN = JSON.with_suffix(".md")


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as they are shown."""

    columns: Sequence[str]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class Target:
    """A promised limit and the measured value; `bound` is 'at least' or 'at most'."""

    what: str
    measured: float
    bound: str
    limit: float

    @property
    def met(self) -> bool:
        """Whether the promise is kept."""
        return self.measured >= self.limit if self.bound == "at least" else self.measured <= self.limit

    def __str__(self) -> str:
        verdict = "met" if self.met else "MISSED"
        return f"{self.what}: {self.measured:.3g}, {self.bound} {self.limit:g}: {verdict}"


@dataclass(frozen=True, slots=True)
class Result:
    """One benchmark's outcome. `notes` explain the table, `figures` are all measurements.

    Without `timed`, for a simulation, busy neighbours make no difference.
    """

    title: str
    table: Table
    targets: list[Target]
    notes: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    timed: bool = True

    def stands(self, neighbours: Neighbours) -> bool:
        """Return whether the figures are meaningful, given the CPU time that other processes took."""
        return neighbours.quiet or not self.timed


def show(result: Result, neighbours: Neighbours, console: Console) -> None:
    """Print a result; targets are not judged if neighbours were busy."""
    table = rich.table.Table(title=result.title, title_justify="left", box=None, header_style="bold")
    for index, column in enumerate(result.table.columns):
        table.add_column(column, justify="right" if index else "left")
    for row in result.table.rows:
        table.add_row(*row)
    console.print(table)
    for note in result.notes:
        console.print(note, style="dim", highlight=False)
    for target in result.targets:
        if result.stands(neighbours):
            console.print(str(target), style="green" if target.met else "bold red", highlight=False)
        else:
            console.print(f"{target.what}: {target.measured:.3g}, not judged", highlight=False)
    summary = f"Other processes took {neighbours.cores:.2f} cores meanwhile"
    console.print(
        f"{summary}." if result.stands(neighbours) else f"{summary}: these figures say nothing.",
        style="dim" if result.stands(neighbours) else "bold red",
        highlight=False,
    )
    console.print()


def save(name: str, result: Result, neighbours: Neighbours, effort: Effort, order: Sequence[str]) -> None:
    """Add a result to those of the other benchmarks in the results files."""
    JSON.parent.mkdir(exist_ok=True)
    saved: dict[str, Any] = json.loads(JSON.read_text(encoding="utf-8")) if JSON.exists() else {}
    saved[name] = {
        "measured": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "neighbours_cores": round(neighbours.cores, 3),
        "effort": asdict(effort),
        "title": result.title,
        "table": asdict(result.table),
        "notes": result.notes,
        "targets": [{**asdict(target), "met": target.met, "text": str(target)} for target in result.targets],
        "figures": result.figures,
    }
    saved = {known: saved[known] for known in order if known in saved}
    replace(JSON, json.dumps(saved, indent=2, ensure_ascii=False, default=_sample) + "\n")
    replace(MARKDOWN, "\n".join(_markdown(saved)) + "\n")


def replace(path: Path, text: str) -> None:
    """Write a file so that a reader sees either the old or the new content, nothing in between."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _sample(value: Any) -> list[float]:
    """Return a sample for JSON: the values of all rounds."""
    return list(value.values)


def _markdown(saved: dict[str, Any]) -> Iterator[str]:
    yield "# Serve: figures"
    yield ""
    yield "Written by `python -m bench`; [README.md](../README.md) says what each benchmark is."
    for name, result in saved.items():
        columns = result["table"]["columns"]
        yield ""
        yield f"## {name}: {result['title']}"
        yield ""
        yield "| " + " | ".join(columns) + " |"
        yield "| " + " | ".join(["---", *["---:"] * (len(columns) - 1)]) + " |"
        for row in result["table"]["rows"]:
            yield "| " + " | ".join(row) + " |"
        yield ""
        yield from (f"- **{target['text']}**" for target in result["targets"])
        yield from (f"- {note}" for note in result["notes"])
        yield ""
        machine_text = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
        yield (
            f"Measured {result['measured']}, while other processes took "
            f"{result['neighbours_cores']:.2f} cores: {machine_text}."
        )
