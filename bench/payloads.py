"""What logging payloads costs the requests: beside a server that logs none, on the same work."""

from __future__ import annotations

import shutil
import tempfile

from bench import models
from bench.common import CLIENT_CORE, HOST, Effort, Load, Sample, free_port, json_request, load, serving
from bench.http import nginx
from bench.results import Result, Table, Target

CONNECTIONS = (1, 64)
SHARE = 0.9
NOTHING, SAMPLE = "nothing", "a tenth, to a folder"


def run(effort: Effort) -> Result:
    """Servers with each kind of log on one core, in turn, round by round."""
    model = models.xgboost()
    request = json_request(model.stem, models.rows(1, models.FEATURES), "probabilities")
    with nginx("{}", request, CLIENT_CORE) as sink, tempfile.TemporaryDirectory() as folder:
        ways: dict[str, tuple[str, ...]] = {
            NOTHING: (),
            SAMPLE: (f"{folder}/tenth", "--log-sample", "0.1"),
            "all, to a folder": (f"{folder}/all",),
            "all, to a URL, one event a post": (f"http://{HOST}:{sink}/",),
            "all, to a URL, 64 a post": (f"http://{HOST}:{sink}/", "--log-batch", "64"),
            "all, to a URL where nobody is": (f"http://{HOST}:{free_port()}/",),
        }
        seen: dict[tuple[str, int], list[Load]] = {}
        for _ in range(effort.rounds):
            for way, sent_to in ways.items():
                flags = ("--log-payloads", "all", "--log-sink", *sent_to) if sent_to else ()
                # One at a time: what waits to be logged takes its share of the core when the load has ended.
                with serving(model, request, *flags) as port:
                    load(port, request, CONNECTIONS[-1], effort.seconds)  # its first seconds are no measure
                    for connections in CONNECTIONS:
                        point = load(port, request, connections, effort.seconds)
                        seen.setdefault((way, connections), []).append(point)
                shutil.rmtree(f"{folder}/all", ignore_errors=True)
    return report(seen)


def report(seen: dict[tuple[str, int], list[Load]]) -> Result:
    """Medians of all rounds, ratios within a round."""
    rows, shares = [], {}
    for (way, connections), points in seen.items():
        rate = Sample.of([point.requests_per_second for point in points])
        p50, p99 = Sample.of([p.p50_ms for p in points]), Sample.of([p.p99_ms for p in points])
        share = rate / Sample.of([point.requests_per_second for point in seen[NOTHING, connections]])
        shares[way, connections] = share
        columns = [f"{rate:,.0f}", f"{p50.median:.2f}", f"{p99.median:.2f}", f"{share:.2f}"]
        rows.append([way, str(connections), *columns])
    return Result(
        "payloads of one row of 30 features as JSON, logged, one core for the server and what it logs with",
        Table(["logged", "connections", "requests/s", "p50 ms", "p99 ms", "of none"], rows),
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
            "The process that logs shares the core with the requests, behind which it stands back; on a "
            "machine with cores to spare it has its own. Of more than may wait, the oldest go, counted."
        ],
        {"shares": {f"{way}, {connections}": share for (way, connections), share in shares.items()}},
    )
