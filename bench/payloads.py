"""What logging payloads costs the requests: beside a server that logs none, on the same work."""

from __future__ import annotations

import shutil
import tempfile

from bench import models
from bench.common import (
    CLIENT_CORE,
    HOST,
    Effort,
    Load,
    Ratios,
    free_port,
    in_turn,
    json_request,
    load,
    serving,
)
from bench.http import nginx
from bench.results import Result, Table, Target

CONNECTIONS = (1, 64)
SHARE = 0.9
NOTHING, SAMPLE = "nothing", "a tenth, to a folder"

REST_SECONDS = 0.5
"""Between a second with a log and the next one without; what waits is logged meanwhile."""


def run(effort: Effort) -> Result:
    """Beside a server that logs nothing, one after the other with each kind of log, both on one core."""
    model = models.xgboost()
    request = json_request(model.stem, models.rows(1, models.FEATURES), "probabilities")
    seen: dict[tuple[str, int], dict[str, list[Load]]] = {}
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
                for port in ports.values():  # its first seconds are no measure
                    load(port, request, CONNECTIONS[-1], effort.seconds)
                for connections in CONNECTIONS:
                    turns = effort.rounds * effort.seconds
                    seen[way, connections] = in_turn(ports, request, connections, turns, REST_SECONDS)
            shutil.rmtree(f"{folder}/all", ignore_errors=True)
    return report(seen)


def report(seen: dict[tuple[str, int], dict[str, list[Load]]]) -> Result:
    """Medians of all turns."""
    rows, shares = [], {}
    for (way, connections), found in seen.items():
        none, logged = Load.median(found[NOTHING]), Load.median(found[way])
        share = shares[way, connections] = Ratios.of(found[way], found[NOTHING])
        rates = [f"{one.requests_per_second:,.0f}" for one in (none, logged)]
        rows.append([way, str(connections), *rates, f"{share:.2f}", f"{logged.p99_ms / none.p99_ms:.2f}"])
    return Result(
        "payloads of one row of 30 features as JSON, logged, one core for the server and what it logs with",
        Table(["logged", "connections", "requests/s of none", "requests/s", "ratio", "p99, of none's"], rows),
        [
            Target(
                f"a tenth logged: of the requests/s of none, {connections} connections",
                shares[SAMPLE, connections].median,
                "at least",
                SHARE,
            )
            for connections in CONNECTIONS
        ],
        [
            "Two servers, of which one logs, in turn for a second each; medians of all turns, quartiles of "
            "the ratio. The process that logs shares the core with the requests and lets them go first; "
            "on a machine with cores to spare it has its own. Of more than may wait, the oldest go, counted."
        ],
        {"ratios": {f"{way}, {connections}": share for (way, connections), share in shares.items()}},
    )
