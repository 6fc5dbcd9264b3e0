"""The promises that are judged by these figures: what must be, as ratios within a round."""

from __future__ import annotations

from collections.abc import Iterator

from bench.results import Target
from bench.servers.catalogue import DRIFTLINE, MONITOR_OFF, NGINX_STATIC, OTHERS, TRANSFORM, TWO_WORKERS
from bench.servers.figures import Figures
from bench.servers.works import BINARY_64, MEMORY, OPEN_LOOP, ROW_1, ROW_64, ROWS_64, START, WIDE_4

RATE_OF = ((NGINX_STATIC, 0.45), ("mosec", 3), ("triton", 12), ("kserve", 25), ("mlserver", 25))
SERVERS = tuple(peer.name for peer in OTHERS if peer.name != NGINX_STATIC)
TIMES_EVERY_PEER = 5.0
OF_NGINX_P50, OF_BEST_P99, OF_UNWATCHED, OF_TWO_WORKERS, MAX_RSS_MB = 2.5, 0.2, 0.95, 1.7, 220


def targets(figures: Figures) -> Iterator[Target]:
    """What can be judged; with raw columns, too, where a promise is of both."""
    for server, prefix in ((DRIFTLINE, ""), (TRANSFORM, "raw columns: ")):
        for other, times in RATE_OF:
            if (ratio := figures.ratio(server, other, ROW_64.name, "rate")) is not None:
                yield Target(f"{prefix}1 x 30 JSON, c=64, times {other}", ratio.median, "at least", times)
        if (ratio := figures.ratio(server, NGINX_STATIC, ROW_1.name, "p50_ms")) is not None:
            yield Target(f"{prefix}1 x 30 JSON, c=1, p50, times nginx", ratio.median, "at most", OF_NGINX_P50)
        yield from _beside(figures, server, ROW_1.name, "p50_ms", f"{prefix}1 x 30 JSON, c=1, p50", 1.0)
        yield from _every(figures, server, ROWS_64.name, f"{prefix}32 x 30 JSON, c=64")
        yield from _beside(figures, server, OPEN_LOOP, "p99_ms", f"{prefix}open loop, p99", OF_BEST_P99)
    yield from _every(figures, DRIFTLINE, WIDE_4.name, "1 x 150,528 JSON")
    if (ratio := figures.across(DRIFTLINE, BINARY_64.name, ROW_64.name, "rate")) is not None:
        yield Target("1 x 30 binary, times JSON, c=64", ratio.median, "at least", 1.0)
    yield from _beside(figures, DRIFTLINE, START, "seconds", "cold start", 1.0)
    for work in (ROW_1, ROW_64):
        if (ratio := figures.ratio(DRIFTLINE, MONITOR_OFF, work.name, "rate")) is not None:
            yield Target(f"monitor on, of off, {work.name}", ratio.median, "at least", OF_UNWATCHED)
    if (two := figures.per_core_second(TWO_WORKERS, DRIFTLINE, ROW_64.name)) is not None:
        what = "2 workers, times one, at as much CPU a core"
        yield Target(what, 2 * two.median, "at least", OF_TWO_WORKERS)
    if (memory := figures.sample(DRIFTLINE, MEMORY, "rss_mb")) is not None:
        yield Target("RSS, MB", memory.median, "at most", MAX_RSS_MB)


def _every(figures: Figures, server: str, work: str, what: str) -> Iterator[Target]:
    """A rate against that of the peer that comes nearest."""
    ratios = _ratios(figures, server, work, "rate")
    if ratios:
        nearest, ratio = min(ratios, key=lambda pair: pair[1])
        yield Target(f"{what}, times the best peer ({nearest})", ratio, "at least", TIMES_EVERY_PEER)


def _beside(
    figures: Figures, server: str, work: str, figure: str, what: str, most: float
) -> Iterator[Target]:
    """A time against that of the peer that comes nearest."""
    ratios = _ratios(figures, server, work, figure)
    if ratios:
        nearest, ratio = max(ratios, key=lambda pair: pair[1])
        yield Target(f"{what}, of the best peer's ({nearest})", ratio, "at most", most)


def _ratios(figures: Figures, server: str, work: str, figure: str) -> list[tuple[str, float]]:
    found = ((other, figures.ratio(server, other, work, figure)) for other in SERVERS)
    return [(other, ratio.median) for other, ratio in found if ratio is not None]
