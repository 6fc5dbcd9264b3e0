"""What was found, for a person: Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.common import QUIET_CORES, Effort, Sample, machine
from bench.results import Target
from bench.servers.catalogue import DRIFTLINE, NGINX_STATIC, Peer
from bench.servers.figures import MAX_FAILED, MEASURES, Figures
from bench.servers.works import (
    BINARY_64,
    MEMORY,
    OPEN_LOOP,
    ROW_1,
    ROW_16,
    ROW_64,
    ROW_256,
    ROWS_64,
    START,
    WIDE_4,
)


def markdown(
    figures: Figures, peers: Sequence[Peer], targets: list[Target], effort: Effort, day: str
) -> Iterator[str]:
    """The page, line by line; `day` is when it was measured."""
    yield "# Peers: figures"
    yield ""
    yield "Written by `make bench-peers`; [README.md](../README.md) says what is measured and how."
    yield ""
    yield "![Requests a second, latency, cold start and memory of each server](peers.svg)"
    yield from section("One row of 30 features as JSON, one core")
    yield from table(
        (
            "server",
            "c=1 req/s (p50 ms)",
            "c=16",
            "c=64 (p99 ms)",
            "c=256",
            "cold start s",
            "RSS MB",
            "PSS MB",
        ),
        [_row(figures, peer) for peer in peers],
    )
    yield from section("Other work, one core")
    yield from table(
        (
            "server",
            "32 x 30 JSON, c=64, rows/s",
            "1 x 30 binary, c=64, req/s",
            "1 x 150,528 JSON, c=4, req/s",
            "open loop: req/s",
            "p50 ms",
            "p99 ms",
        ),
        [_other(figures, peer) for peer in peers],
    )
    yield ""
    yield "The open loop sends at 70 % of what the server itself answered at its best in the same round."
    yield from section("How many times better driftline is")
    rivals = [peer for peer in peers if peer.name != DRIFTLINE]
    yield from table(
        ("server", *(measure.title for measure in MEASURES)), [_times(figures, peer) for peer in rivals]
    )
    yield ""
    yield "Ratios within a round, median ± half the range. Under 1, the other is better."
    yield from section("Where another is better")
    yield from wins(figures, [peer for peer in rivals if peer.package])
    yield from section("Promises")
    yield from (f"- **{target}**" for target in targets)
    yield from section("How each was run")
    yield from table(
        ("server", "what", "batching", "not measured, and why"),
        [[p.title, p.version(), p.batching, "; ".join(figures.reasons(p.name))] for p in peers],
    )
    yield ""
    yield (
        f"{effort.rounds} rounds, {effort.seconds} s a point, all servers in turn in each round; median ± "
        f"half the range. c: connections. A figure of which more than {MAX_FAILED:.1%} of the requests "
        "failed is none. Each server was asked first whether it answers what ONNX Runtime does. `driftline` "
        "is monitored with a profile; `raw columns` have a transform in front and a JSON object for each row."
    )
    yield ""
    described = ", ".join(f"{key} {value}" for key, value in machine().items())
    taken = figures.neighbours()
    warning = "" if taken <= QUIET_CORES else " **The machine was not quiet: these figures say little.**"
    yield f"Measured {day}, while other processes took {taken:.2f} cores: {described}.{warning}"


def wins(figures: Figures, rivals: Sequence[Peer]) -> Iterator[str]:
    """A line for each measure by which another model server is better, for each of them."""
    titles = {peer.name: peer.title for peer in rivals}
    lines = [
        f"- {measure.title}: {titles[other]}, {times:.2f} times better"
        for measure, other, times in figures.wins(DRIFTLINE, titles)
    ]
    yield from lines or ["- Nowhere in what was measured."]


def section(title: str) -> Iterator[str]:
    """A heading between empty lines."""
    yield ""
    yield f"## {title}"
    yield ""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table; all but its first column stand right."""
    yield "| " + " | ".join(columns) + " |"
    yield "| " + " | ".join(["---", *["---:"] * (len(columns) - 1)]) + " |"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _row(figures: Figures, peer: Peer) -> list[str]:
    cells = [peer.title]
    for work, beside in ((ROW_1, "p50_ms"), (ROW_16, ""), (ROW_64, "p99_ms"), (ROW_256, "")):
        cell = rate(figures, peer.name, work.name)
        latency = figures.sample(peer.name, work.name, beside) if beside else None
        cells.append(f"{cell} ({latency.median:.3g})" if latency else cell)
    return [
        *cells,
        value(figures, peer.name, START, "seconds", ".2f"),
        value(figures, peer.name, MEMORY, "rss_mb", ".0f"),
        value(figures, peer.name, MEMORY, "pss_mb", ".0f"),
    ]


def _other(figures: Figures, peer: Peer) -> list[str]:
    return [
        peer.title,
        rate(figures, peer.name, ROWS_64.name, ROWS_64.rows),
        rate(figures, peer.name, BINARY_64.name),
        rate(figures, peer.name, WIDE_4.name),
        value(figures, peer.name, OPEN_LOOP, "rate", ",.0f"),
        value(figures, peer.name, OPEN_LOOP, "p50_ms", ".3g"),
        value(figures, peer.name, OPEN_LOOP, "p99_ms", ".3g"),
    ]


def _times(figures: Figures, peer: Peer) -> list[str]:
    cells = [peer.title]
    for measure in MEASURES:
        # What is better when less: the other's over ours, so that more is always better for us.
        pair = (DRIFTLINE, peer.name) if measure.sign > 0 else (peer.name, DRIFTLINE)
        ratio = figures.ratio(*pair, measure.work, measure.figure)
        cells.append(f"{ratio:.3g}" if ratio else "")
    if peer.name == NGINX_STATIC:
        cells[0] += " (the limit of HTTP)"
    return cells


def rate(figures: Figures, server: str, work: str, rows: int = 1) -> str:
    """Requests a second, or rows; what failed, where that leaves no figure."""
    sample = figures.sample(server, work, "rate")
    if sample is not None:
        return format(Sample.of([one * rows for one in sample.values]), ",.0f")
    failed = figures.failed(server, work)
    return f"{failed:.0%} failed" if failed else ""


def value(figures: Figures, server: str, work: str, figure: str, spec: str) -> str:
    """A figure's median; nothing where there is none."""
    sample = figures.sample(server, work, figure)
    return format(sample.median, spec) if sample else ""
