"""What logging payloads costs the requests: beside a server that logs none, on the same work."""

from __future__ import annotations

import shutil
import tempfile
import time
from statistics import median, quantiles

from bench import models
from bench.common import CLIENT_CORE, HOST, Effort, Load, Request, free_port, json_request, load, serving
from bench.http import nginx
from bench.results import Result, Table, Target

CONNECTIONS = (1, 64)
SHARE = 0.9
SAMPLE = "a tenth, to a folder"

REST_SECONDS = 0.5
"""Between a second with a log and the next one without: what waits is logged meanwhile."""


def run(effort: Effort) -> Result:
    """Beside a server that logs nothing, one after the other with each kind of log, both on one core."""
    model = models.xgboost()
    request = json_request(model.stem, models.rows(1, models.FEATURES), "probabilities")
    pairs: dict[tuple[str, int], list[tuple[Load, Load]]] = {}
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
                for port in (plain, logging):  # its first seconds are no measure
                    load(port, request, CONNECTIONS[-1], effort.seconds)
                for connections in CONNECTIONS:
                    pairs[way, connections] = alternate(plain, logging, request, connections, effort)
            shutil.rmtree(f"{folder}/all", ignore_errors=True)
    return report(pairs)


def alternate(
    plain: int, logging: int, request: Request, connections: int, effort: Effort
) -> list[tuple[Load, Load]]:
    """Load for a second on each in turn: the machine's own changes are slower than that."""
    pairs = []
    for _ in range(effort.rounds * effort.seconds):
        pairs.append((load(plain, request, connections, 1), load(logging, request, connections, 1)))
        time.sleep(REST_SECONDS)
    return pairs


def report(pairs: dict[tuple[str, int], list[tuple[Load, Load]]]) -> Result:
    """Medians of all pairs, and of the ratio within a pair its quartiles."""
    rows, shares = [], {}
    for (way, connections), found in pairs.items():
        plain, logged = (median(one[side].requests_per_second for one in found) for side in (0, 1))
        p99 = median(one[1].p99_ms for one in found) / median(one[0].p99_ms for one in found)
        low, share, high = quantiles([b.requests_per_second / a.requests_per_second for a, b in found], n=4)
        shares[way, connections] = share
        columns = [f"{plain:,.0f}", f"{logged:,.0f}", f"{share:.2f} ({low:.2f} to {high:.2f})", f"{p99:.2f}"]
        rows.append([way, str(connections), *columns])
    return Result(
        "payloads of one row of 30 features as JSON, logged, one core for the server and what it logs with",
        Table(["logged", "connections", "requests/s of none", "requests/s", "ratio", "p99, of none's"], rows),
        [
            Target(
                f"a tenth logged: of the requests/s of none, {connections} connections",
                shares[SAMPLE, connections],
                "at least",
                SHARE,
            )
            for connections in CONNECTIONS
        ],
        [
            "Two servers, of which one logs, in turn for a second each; medians of all pairs, quartiles of "
            "the ratio. The process that logs shares the core with the requests and lets them go first; "
            "on a machine with cores to spare it has its own. Of more than may wait, the oldest go, counted."
        ],
        {"ratios": {f"{way}, {connections}": share for (way, connections), share in shares.items()}},
    )
