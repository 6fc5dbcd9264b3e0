"""`python -m bench [NAME ...]`: run benchmarks, show and save their results."""

from __future__ import annotations

import signal
import sys
from importlib import import_module

import click
from rich.console import Console

from bench.common import QUICK, Effort, Neighbours, program
from bench.results import JSON, save, show

NAMES = (
    *("http", "grpc", "mlp", "cold_start", "swap_memory", "soak", "watch", "score", "scoring"),
    *("profile", "promise", "micro", "transform", "sidecar", "events", "payloads"),
)
ON_REQUEST = ("gpu",)
"""Benchmarks that need more than most machines have, and save their figures separately."""
PROGRAMS = {
    "http": ("taskset", "wrk", "nginx"),
    "grpc": ("taskset", "wrk", "h2load"),
    "mlp": ("taskset", "wrk"),
    "scoring": ("taskset", "wrk"),
    "profile": ("taskset",),
    "sidecar": ("taskset", "wrk", "nginx"),
    "events": ("taskset", "wrk"),
    "payloads": ("taskset", "wrk", "nginx"),
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice((*NAMES, *ON_REQUEST)), metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="Short rounds, to see that it works; nothing is kept.")
def main(names: tuple[str, ...], quick: bool) -> None:
    """Run the benchmarks that are named, else all of them that need no GPU."""
    # An exception, so that all child processes are ended on the way out.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    console = Console()
    effort = QUICK if quick else Effort()
    for name in names or NAMES:
        for required in PROGRAMS.get(name, ()):
            program(required)
    if "gpu" in names:
        import_module("bench.gpu").needs()
    for name in names or NAMES:
        console.print(f"{name} ...", style="dim")  # no spinner: it would take its share of a core
        with Neighbours() as neighbours:
            result = import_module(f"bench.{name}").run(effort)
        show(result, neighbours, console)
        if quick or not result.stands(neighbours):
            continue
        if name == "gpu":
            import_module("bench.gpu").keep(result)
        else:
            save(name, result, neighbours, effort, NAMES)
            console.print(f"{name}: kept in {JSON.parent.relative_to(JSON.parents[2])}/\n", style="dim")


if __name__ == "__main__":
    main(prog_name="python -m bench")
