"""The cost of the proxy `driftline monitor --upstream`, compared with direct requests, on the same work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil

from bench import models
from bench.common import CLIENT_CORE, HOST, SERVER_CORE, Effort, Process, Sample, free_port, pinned, running
from bench.http import nginx
from bench.load import Load, load
from bench.open_loop import content_of, open_loop
from bench.requests import Request, first_response, json_request
from bench.results import Result, Table, Target
from driftline.monitor.reference.profile import Profile

MAX_ADDED_MS = 0.3
MIN_RATE = 5_000
CONNECTIONS = (1, 64)
MAX_GROWTH = 1.10
FLOODS = 4
FLOOD_CONNECTIONS = 512
"""Enough clients to offer a higher rate than the proxy can serve."""


def run(effort: Effort) -> Result:
    """Measure both in turn, round by round; then the proxy's memory under twice the rate that it can take."""
    request = json_request("trees", models.rows(1, models.FEATURES), "probabilities")
    answer = (
        '{"model_name":"trees","model_version":"1","outputs":[{"name":"probabilities","datatype":"FP32",'
        '"shape":[1,2],"data":[0.25,0.75]}]}'
    )
    with nginx(answer, request, CLIENT_CORE) as direct, proxy(direct, request) as (port, process):
        loads: dict[tuple[str, int], list[Load]] = {}
        for _ in range(effort.rounds):
            for connections in CONNECTIONS:
                for name, target in (("direct", direct), ("through the proxy", port)):
                    point = load(target, request, connections, effort.seconds)
                    loads.setdefault((name, connections), []).append(point)
        max_rate = Sample.of([p.requests_per_second for p in loads["through the proxy", CONNECTIONS[-1]]])
        content, memory, offered = content_of(request, port), [resident(process)], []
        for _ in range(FLOODS):
            offered.append(
                open_loop(port, [content], 2 * max_rate.median, effort.seconds, FLOOD_CONNECTIONS)["rate"]
            )
            memory.append(resident(process))
        counters = scrape_counters(process)
    return report(loads, max_rate, offered, memory, counters)


def report(
    loads: dict[tuple[str, int], list[Load]],
    max_rate: Sample,
    offered: list[float],
    memory: list[float],
    counters: dict[str, float],
) -> Result:
    """Return the medians of all rounds, and the latency that is added within a round."""
    rows = []
    for (name, connections), points in loads.items():
        rate = Sample.of([point.requests_per_second for point in points])
        p50, p99 = Sample.of([p.p50_ms for p in points]), Sample.of([p.p99_ms for p in points])
        rows.append([name, str(connections), f"{rate:,.0f}", f"{p50.median:.3f}", f"{p99.median:.3f}"])
    pairs = zip(loads["through the proxy", 1], loads["direct", 1], strict=True)
    added = Sample.of([through.p50_ms - direct.p50_ms for through, direct in pairs])
    observed, copied = counters["observed"], counters["copied"] + counters["dropped"]
    return Result(
        "one row of 30 features as JSON through the observing proxy on one core, to nginx",
        Table(["way", "connections", "requests/s", "p50 ms", "p99 ms"], rows),
        [
            Target("ms added at p50, 1 connection", added.median, "at most", MAX_ADDED_MS),
            Target(f"requests/s, {CONNECTIONS[-1]} connections", max_rate.median, "at least", MIN_RATE),
            Target("memory behind twice that", memory[-1] / memory[1], "at most", MAX_GROWTH),
        ],
        [
            "Proxy and agent share one core, wrk and nginx have the other. Proxy and agent have "
            f"{memory[0]:.0f} MB, after {FLOODS} times {offered[0]:,.0f} requests/s offered over "
            f"{FLOOD_CONNECTIONS} connections {memory[-1]:.0f} MB. Of {copied:,.0f} exchanges "
            f"{observed:,.0f} were observed when the load ended; what the core had no time for was dropped "
            f"and counted ({counters['dropped']:,.0f})."
        ],
        {
            "added_p50_ms": added,
            "requests_per_second": max_rate,
            "offered_per_second": offered,
            "memory_mb": memory,
            "counters": counters,
        },
    )


@contextmanager
def proxy(upstream: int, request: Request) -> Iterator[tuple[int, tuple[Process, int]]]:
    """Run the proxy and its agent on one core; yield the traffic's port, the process and the agent's port."""
    port, pages = free_port(), free_port()
    with TemporaryDirectory() as folder:
        profile = Path(folder) / "trees.arrow"
        Profile.fit({"input": models.rows(5_000, models.FEATURES)}).save(profile)
        command = [str(Path(sys.executable).with_name("driftline")), "monitor", "--profile", str(profile)]
        command += ["--upstream", f"http://{HOST}:{upstream}", "--port", str(pages)]
        command += ["--proxy-port", str(port), "--log-level", "warning"]
        with running(pinned(SERVER_CORE, *command)) as process:
            first_response(process, port, request)
            wait_ready(pages)
            yield port, (process, pages)


def wait_ready(pages: int) -> None:
    """Wait until the agent is ready."""
    for _ in range(600):
        try:
            if httpx.get(f"http://{HOST}:{pages}/v2/health/ready", timeout=10).is_success:
                return
        except httpx.HTTPError:
            pass
    raise RuntimeError("the agent does not watch")


def resident(process: tuple[Process, int]) -> float:
    """Return the megabytes of proxy and agent."""
    parent = psutil.Process(process[0].popen.pid)
    return float(sum(member.memory_info().rss for member in (parent, *parent.children())) / 1e6)


def scrape_counters(process: tuple[Process, int]) -> dict[str, float]:
    """Return the numbers of exchanges that were observed, copied and dropped."""
    text = httpx.get(f"http://{HOST}:{process[1]}/metrics", timeout=60).text
    counts = {"observed": 0.0, "copied": 0.0, "dropped": 0.0}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("driftline_exchanges_total") and "observed" in name:
            counts["observed"] += float(value)
        elif name.startswith("driftline_proxy_copied_total"):
            counts["copied"] += float(value)
        elif name.startswith("driftline_proxy_dropped_total"):
            counts["dropped"] += float(value)
    return counts
