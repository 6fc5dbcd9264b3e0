"""A network for which batching pays: how much of ONNX Runtime's own throughput reaches 64 clients."""

from __future__ import annotations

from dataclasses import dataclass

from bench import models
from bench.common import HOST, SERVER_CORE, Effort, Sample, on_core
from bench.load import Load, load
from bench.raw import Raw, powers_of_two
from bench.requests import Request, binary_request, json_request, serving
from bench.results import Result, Table, Target
from driftline.load.request import executions

CLIENTS = 64
SHARE_OF_RAW = 0.95
WAYS = {
    "binary, 1 row": "what every request costs beside the model, and whether 64 clients fill a batch",
    "binary, 8 rows": "the same with an eighth of the requests a row",
    "binary, 32 rows": "hardly any requests a row: what is left is batching itself",
    "JSON, 1 row": "what reading 512 numbers as text costs on top of the first line",
}


@dataclass(slots=True)
class Way:
    """One form of request: wrk's figures, and how many rows ran together."""

    request: Request
    rows: int
    points: list[Load]
    batches: list[float]


def run(effort: Effort) -> Result:
    """Measure ONNX Runtime and each form of request in turn, round by round."""
    model = models.mlp()
    matrix = models.rows(512, models.MLP[0])
    raw = Raw(model, threads=1)
    with on_core(SERVER_CORE):
        scan = raw.scan(matrix, powers_of_two(1, len(matrix)))
    best = max(scan, key=lambda batch: scan[batch])
    requests = [
        (binary_request(model.stem, matrix[:1], "output"), 1),
        (binary_request(model.stem, matrix[:8], "output"), 8),
        (binary_request(model.stem, matrix[:32], "output"), 32),
        (json_request(model.stem, matrix[:1], "output"), 1),
    ]
    ways = {name: Way(*request, [], []) for name, request in zip(WAYS, requests, strict=True)}
    raw_rates = []
    # The batch size that is best on this machine, which any user would set.
    with serving(model, requests[0][0], max_batch_rows=best) as port:
        for _ in range(effort.rounds):
            with on_core(SERVER_CORE):
                raw_rates.append(raw.run_for(matrix, best, effort.seconds))
            for way in ways.values():
                rows_before, runs_before = executions(f"http://{HOST}:{port}", model.stem)
                way.points.append(load(port, way.request, CLIENTS, effort.seconds))
                rows, runs = executions(f"http://{HOST}:{port}", model.stem)
                way.batches.append((rows - rows_before) / (runs - runs_before))
    return report(ways, Sample.of(raw_rates), best, scan)


def report(ways: dict[str, Way], raw: Sample, best: int, scan: dict[int, float]) -> Result:
    """Return the medians and ratios of all rounds."""
    rows = [[f"ONNX Runtime, batches of {best}", f"{raw:,.0f}", str(best), "", "", "1"]]
    targets, figures = [], []
    for name, way in ways.items():
        rate = Sample.of([point.requests_per_second * way.rows for point in way.points])
        p50, p99 = Sample.of([p.p50_ms for p in way.points]), Sample.of([p.p99_ms for p in way.points])
        batch, share = Sample.of(way.batches), rate / raw
        rows.append(
            [
                name,
                f"{rate:,.0f}",
                f"{batch.median:.0f}",
                f"{p50.median:.1f}",
                f"{p99.median:.1f}",
                f"{share:.3f}",
            ]
        )
        figures.append(
            {
                "requests": name,
                "rows_per_second": rate,
                "rows_per_batch": batch,
                "p50_ms": p50,
                "p99_ms": p99,
                "share_of_raw": share,
            }
        )
        targets.append(Target(f"{name}: of ONNX Runtime's rows/s", share.median, "at least", SHARE_OF_RAW))
    return Result(
        f"MLP {'-'.join(map(str, models.MLP))}, {CLIENTS} clients, one core",
        Table(["requests", "rows/s", "rows a batch", "p50 ms", "p99 ms", "of ONNX Runtime"], rows),
        targets,
        [
            "ONNX Runtime runs with one thread on the server's core at its best batch size of 1 to 512, "
            "nothing around it.",
            *(f"{name}: {meaning}." for name, meaning in WAYS.items()),
        ],
        {
            "ways": figures,
            "raw_rows_per_second": raw,
            "raw_best_batch": best,
            "raw_rows_per_second_by_batch": {size: round(rate) for size, rate in scan.items()},
        },
    )
