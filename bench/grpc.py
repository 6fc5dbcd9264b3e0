"""The same tensors over gRPC and over HTTP, to the same server: what gRPC costs a client."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from statistics import quantiles

from bench import models
from bench.common import CLIENT_CORE, HOST, Effort, Matrix, Sample, free_port, pinned, program
from bench.load import Load, load
from bench.requests import Client, binary_request, serving
from bench.results import Result, Table
from driftline.protocols.grpc.messages import INFERENCE, ModelInferRequest

POINTS = ((1, 1), (1, 16), (1, 64), (1024, 4))
"""Rows of a request, and connections."""
_ANSWERED = re.compile(r"finished in ([\d.]+)\w+, ([\d.]+) req/s")


def run(effort: Effort) -> Result:
    """Measure both in turn, round by round."""
    model, port = models.xgboost(), free_port()
    loads: dict[tuple[str, int, int], list[Load]] = {}
    warm = binary_request(model.stem, models.rows(1, models.FEATURES), "probabilities")
    with serving(model, warm, "--grpc-port", str(port)) as http:
        for _ in range(effort.rounds):
            for rows, connections in POINTS:
                tensor = models.rows(rows, models.FEATURES)
                binary = binary_request(model.stem, tensor, "probabilities")
                over_grpc = grpc_load(port, frame(model.stem, tensor), connections, effort.seconds)
                over_http = load(http, binary, connections, effort.seconds)
                loads.setdefault(("gRPC", rows, connections), []).append(over_grpc)
                loads.setdefault(("HTTP", rows, connections), []).append(over_http)
        check(http, model)
    return report(loads)


def frame(model: str, tensor: Matrix) -> bytes:
    """Return a request in gRPC's framing: five bytes with its kind and length, then the message."""
    request = ModelInferRequest(model_name=model, raw_input_contents=[tensor.tobytes()])
    request.inputs.add(name="input", datatype="FP32", shape=tensor.shape)
    request.outputs.add(name="probabilities")
    data: bytes = request.SerializeToString()
    return b"\0" + len(data).to_bytes(4, "big") + data


def grpc_load(port: int, body: bytes, connections: int, seconds: int) -> Load:
    """Do the same as `load` with h2load, with one call at a time on each connection."""
    with tempfile.TemporaryDirectory() as folder:
        data, log = Path(folder, "body"), Path(folder, "log")
        data.write_bytes(body)
        command = pinned(
            CLIENT_CORE, program("h2load"), f"-c{connections}", "-m1", f"-D{seconds}", "--warm-up-time=1",
            "-d", data, f"--log-file={log}", "-H", "content-type: application/grpc", "-H", "te: trailers",
            f"http://{HOST}:{port}/{INFERENCE}/ModelInfer",
        )  # fmt: skip
        completed = subprocess.run(command, capture_output=True, text=True, check=True)
        match = _ANSWERED.search(completed.stdout)
        times = [int(line.split("\t")[2]) / 1e3 for line in log.read_text().splitlines()]
    if match is None or len(times) < 2:
        raise RuntimeError(f"h2load had no answers: {completed.stdout}")
    percentiles = quantiles(times, n=100)
    return Load(float(match[2]), percentiles[49], percentiles[98])


def check(port: int, model: Path) -> None:
    """Raise RuntimeError if a call has failed: h2load does not know gRPC, and counts all as answered."""
    client = Client(port)
    (stats,) = client.get(f"/v2/models/{model.stem}/stats")["model_stats"]
    client.close()
    # Calls that h2load leaves unanswered at its end are cancelled.
    if stats["inference_stats"]["fail"]["count"] > stats["inference_stats"]["success"]["count"] / 100:
        raise RuntimeError(f"calls have failed: {stats}")


def report(loads: dict[tuple[str, int, int], list[Load]]) -> Result:
    """Return the medians and ratios of all rounds."""
    rows, figures = [], []
    for (way, size, connections), points in loads.items():
        rate, http = (
            Sample.of([point.requests_per_second for point in series])
            for series in (points, loads["HTTP", size, connections])
        )
        p50 = Sample.of([point.p50_ms for point in points])
        p99 = Sample.of([point.p99_ms for point in points])
        share = f"{rate / http:.3f}" if way == "gRPC" else "1"
        rows.append(
            [
                way,
                str(size),
                str(connections),
                f"{rate:,.0f}",
                f"{p50.median:.2f}",
                f"{p99.median:.2f}",
                share,
            ]
        )
        figures.append(
            {
                "way": way, "rows": size, "connections": connections,
                "requests_per_second": rate, "p50_ms": p50, "p99_ms": p99,
            }
        )  # fmt: skip
    return Result(
        "binary tensors of 30 features over gRPC and over HTTP, XGBoost of 100 trees, one core",
        Table(["way", "rows", "connections", "requests/s", "p50 ms", "p99 ms", "of HTTP"], rows),
        [],
        [
            "Server on one core, h2load and wrk with one thread on another, one request at a time on each "
            "connection; median ± half the range of the rounds, ratios within a round."
        ],
        {"points": figures},
    )
