"""`python -m bench.servers`: every server in turn, round by round; tables and a plot."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from bench.common import HERE, QUIET_CORES, Effort, machine, program
from bench.results import replace
from bench.servers import judge, page, plot
from bench.servers.catalogue import PEERS, Peer
from bench.servers.environment import CACHE, REQUIREMENTS, lock
from bench.servers.figures import Figures
from bench.servers.process import adopt
from bench.servers.record import Record
from bench.servers.visit import Seen, visit
from bench.servers.works import Subject, subjects

RESULTS = HERE / "results"
QUICK = Effort(rounds=1, seconds=1)
NAMES = [peer.name for peer in PEERS]


@click.command()
@click.option("--quick", is_flag=True, help="One short round, to see that all works; kept in bench/cache.")
@click.option(
    "--only", multiple=True, type=click.Choice(NAMES), metavar="PEER", help="These; may be repeated."
)
@click.option("--resume", is_flag=True, help="Go on with the run that was interrupted.")
@click.option("--lock", "locking", is_flag=True, help="Resolve all requirements anew, and nothing else.")
def main(quick: bool, only: tuple[str, ...], resume: bool, locking: bool) -> None:
    """Measure driftline and its peers on the same work, each on one core."""
    # An exception, so that whatever was started is ended on the way out.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if locking:
        for wanted in sorted(REQUIREMENTS.glob("*.in")):
            lock(wanted.stem)
        return
    for needed in ("taskset", "wrk"):
        program(needed)
    adopt()
    peers = [peer for peer in PEERS if not only or peer.name in only]
    effort = QUICK if quick else Effort()
    record = Record(CACHE / ("quick.jsonl" if quick else "run.jsonl"))
    if not resume:
        record.path.unlink(missing_ok=True)
        record = Record(record.path)
    begin = time.monotonic()
    measure(record, peers, effort, subjects())
    figures = Figures(record.seen)
    # A part, or a run beside others' work, is not what the README should show.
    keep = not quick and not only and figures.neighbours() <= QUIET_CORES
    folder = RESULTS if keep else CACHE
    write(folder, figures, peers, effort, record.seen)
    click.echo(f"{folder / 'peers.md'}: {(time.monotonic() - begin) / 60:.0f} minutes")
    if not quick and not only and not keep:
        click.echo(f"other processes took {figures.neighbours():.2f} cores: bench/results/ stays as it was")


def measure(record: Record, peers: Sequence[Peer], effort: Effort, models: dict[str, Subject]) -> None:
    """Visit all servers, round by round; those that the record has already are left out."""
    for number in range(effort.rounds):
        for peer in peers:
            if record.has(number, peer.name):
                continue
            begin = time.monotonic()
            before = len(record.seen)
            record.add(number, peer.name, visit(peer, models, number, effort))
            reasons = dict.fromkeys(one.reason for one in record.seen[before:] if one.reason)
            took = f"round {number + 1}, {peer.title}: {time.monotonic() - begin:.0f} s"
            click.echo("; ".join([took, *reasons]))


def write(
    folder: Path, figures: Figures, peers: Sequence[Peer], effort: Effort, seen: Sequence[Seen]
) -> None:
    """peers.json, peers.md and peers.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    day = datetime.now(UTC).date().isoformat()
    targets = list(judge.targets(figures))
    document = {
        "measured": day,
        "machine": machine(),
        "neighbours_cores": round(figures.neighbours(), 3),
        "effort": {"rounds": effort.rounds, "seconds": effort.seconds},
        "servers": {
            p.name: {"title": p.title, "version": p.version(), "batching": p.batching} for p in peers
        },
        "targets": [{**asdict(target), "met": target.met} for target in targets],
        "seen": [asdict(one) for one in seen],
    }
    replace(folder / "peers.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    replace(folder / "peers.md", "\n".join(page.markdown(figures, peers, targets, effort, day)) + "\n")
    replace(folder / "peers.svg", "\n".join(plot.svg(figures, peers, day)) + "\n")


if __name__ == "__main__":
    main(prog_name="python -m bench.servers")
