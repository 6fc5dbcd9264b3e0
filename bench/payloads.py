"""The cost of payload logging for requests, compared with a server that logs none on the same work."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from statistics import median

import httpx

from bench import models
from bench.common import CLIENT_CORE, HOST, Effort, free_port
from bench.http import nginx
from bench.load import Load, Ratios, in_turn, load
from bench.open_loop import content_of, open_loop
from bench.requests import Request, json_request, serving
from bench.results import Result, Table, Target

CONNECTIONS = (1, 64)
SHARE = 0.9
NOTHING, SAMPLE = "nothing", "a tenth, to a folder"

OPEN_RATE, OPEN_CONNECTIONS = 2_000, 16
"""Requests a second of an open loop that leaves the server most of its time, as most clients do."""

OPEN_SHARE = 1.1
"""The most that a request's time may be there, relative to a server that logs none."""

REST_SECONDS = 0.5
"""Between a second with logging and the next one without; the queue is logged meanwhile."""

MAX_REST_SECONDS = 15.0
"""If nothing receives the log, some of it waits as long as the server runs."""


def run(effort: Effort) -> Result:
    """Compare a server that logs nothing with one of each kind of log in turn, both on one core."""
    model = models.xgboost()
    request = json_request(model.stem, models.rows(1, models.FEATURES), "probabilities")
    closed: dict[tuple[str, int], dict[str, list[Load]]] = {}
    open_loops: dict[str, OpenLoop] = {}
    with nginx("{}", request, CLIENT_CORE) as sink, tempfile.TemporaryDirectory() as folder:
        ways: dict[str, tuple[str, ...]] = {
            SAMPLE: (f"{folder}/tenth", "--log-sample", "0.1"),
            "all, to a folder": (f"{folder}/all",),
            "all, to a URL, one event a post": (f"http://{HOST}:{sink}/",),
            "all, to a URL, 64 a post": (f"http://{HOST}:{sink}/", "--log-batch", "64"),
            "all, to a URL where nobody is": (f"http://{HOST}:{free_port()}/",),
        }
        for way, sent_to in ways.items():
            flags = ("--log-payloads", "all", "--log-sink", *sent_to)
            with serving(model, request) as plain, serving(model, request, *flags) as logging:
                ports = {NOTHING: plain, way: logging}
                for port in ports.values():  # its first seconds are not representative
                    load(port, request, CONNECTIONS[-1], effort.seconds)
                for connections in CONNECTIONS:
                    turns = effort.rounds * effort.seconds
                    closed[way, connections] = in_turn(ports, request, connections, turns, REST_SECONDS)
                open_loops[way] = OpenLoop(ports, request, effort)
            shutil.rmtree(f"{folder}/all", ignore_errors=True)
    return report(closed, open_loops)


class OpenLoop:
    """A load that leaves the server time; `p50_ms` and `p99_ms` by server, and the part of payloads that were
    not logged."""

    def __init__(self, ports: Mapping[str, int], request: Request, effort: Effort) -> None:
        *_, logging = ports.values()
        wait_for_queue(logging)
        before = payloads(logging)
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in ports}
        for _ in range(effort.rounds):
            for name, port in ports.items():
                contents = [content_of(request, port)]
                figures = open_loop(port, contents, OPEN_RATE, effort.seconds, OPEN_CONNECTIONS)
                if figures["failed"]:
                    raise RuntimeError(f"in the open loop, {figures['failed']:.2%} failed")
                rounds[name].append(figures)
                wait_for_queue(logging)
        sent, lost = (now - then for now, then in zip(payloads(logging), before, strict=True))
        self.lost = lost / max(1.0, sent + lost)
        self.p50_ms, self.p99_ms = (
            {name: median(figures[key] for figures in series) for name, series in rounds.items()}
            for key in ("p50_ms", "p99_ms")
        )


def payloads(port: int) -> tuple[float, float]:
    """Return how many were logged and how many were not."""
    totals = counts(port)
    return totals["sent_total"], totals["dropped_total"] + totals["skipped_total"]


def wait_for_queue(port: int) -> None:
    """Wait until the queue is logged, if it can be: later that would take time from others on the core."""
    deadline = time.monotonic() + MAX_REST_SECONDS
    while counts(port)["queued"] and time.monotonic() < deadline:
        time.sleep(REST_SECONDS)


def counts(port: int) -> dict[str, float]:
    """Return the counts of payloads in /metrics."""
    text = httpx.get(f"http://{HOST}:{port}/metrics", timeout=60).text
    pairs = re.findall(r"^driftline_payloads_(\w+) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in pairs}


def report(
    closed: Mapping[tuple[str, int], Mapping[str, list[Load]]], open_loops: Mapping[str, OpenLoop]
) -> Result:
    """Return the medians of all turns."""
    rows, shares = [], {}
    for (way, connections), loads in closed.items():
        none, logged = Load.median(loads[NOTHING]), Load.median(loads[way])
        share = shares[way, connections] = Ratios.of(loads[way], loads[NOTHING])
        rates = [f"{figures.requests_per_second:,.0f}" for figures in (none, logged)]
        times = [f"{logged.p50_ms / none.p50_ms:.2f}", f"{logged.p99_ms / none.p99_ms:.2f}"]
        rows.append([way, f"{connections} connections", *rates, f"{share:.2f}", *times, ""])
    slower = {way: loop.p50_ms[way] / loop.p50_ms[NOTHING] for way, loop in open_loops.items()}
    for way, loop in open_loops.items():
        times = [f"{slower[way]:.2f}", f"{loop.p99_ms[way] / loop.p99_ms[NOTHING]:.2f}"]
        rows.append([way, f"{OPEN_RATE:,}/s", "", "", "", *times, f"{loop.lost:.1%}"])
    return Result(
        "payloads of one row of 30 features as JSON, logged, one core for the server and what it logs with",
        Table(
            [
                "logged",
                "load",
                "requests/s of none",
                "requests/s",
                "ratio",
                "p50, of none's",
                "p99",
                "lost",
            ],
            rows,
        ),
        [
            *(
                Target(
                    f"a tenth logged: of the requests/s of none, {connections} connections",
                    shares[SAMPLE, connections].median,
                    "at least",
                    SHARE,
                )
                for connections in CONNECTIONS
            ),
            *(
                Target(f"{way}: p50 at {OPEN_RATE:,}/s, of none's", ratio, "at most", OPEN_SHARE)
                for way, ratio in slower.items()
            ),
        ],
        [
            "Two servers, of which one logs, in turn for a second each; medians of all turns, quartiles of "
            "the ratio. The process that logs shares the core with the requests and has what they leave; "
            "on a machine with cores to spare it has its own. Of more than may wait, the oldest go, counted. "
            f"At {OPEN_RATE:,}/s, sent whatever becomes of the answers, it has time for all; the part "
            "of payloads that were not logged is given.",
        ],
        {
            "ratios": {f"{way}, {connections}": share for (way, connections), share in shares.items()},
            "open loop": {
                way: {"p50_ms": loop.p50_ms, "p99_ms": loop.p99_ms, "lost": loop.lost}
                for way, loop in open_loops.items()
            },
        },
    )
