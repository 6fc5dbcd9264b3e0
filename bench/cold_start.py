"""From exec to the first correct response, compared with the imports that any Python server needs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

import driftline as dl
from bench import models
from bench.common import Effort, Sample, free_port, running, serve_command
from bench.requests import Request, first_response, json_request
from bench.results import Result, Table, Target

IMPORTS = "import onnxruntime, starlette, uvicorn"
MAX_RATIO = 2.5
PAUSE_SECONDS = 0.002
RAW = "raw"


def run(effort: Effort) -> Result:
    """Start all of them in turn; the first round only fills the file system's cache."""
    with tempfile.TemporaryDirectory() as folder:
        registry = raw_columns(Path(folder))
        rounds = [
            (double_seconds(), raw_seconds(registry), import_seconds()) for _ in range(1 + effort.starts)
        ][1:]
    double, raw, imports = (Sample.of(seconds) for seconds in zip(*rounds, strict=True))
    times, raw_times = double / imports, raw / imports
    return Result(
        "cold start of a small model, monitored",
        Table(
            ["", "s", "times the imports"],
            [
                [f"python -c '{IMPORTS}'", f"{imports:.3f}", "1"],
                ["driftline serve: first right answer", f"{double:.3f}", f"{times:.2f}"],
                ["the same with a transform and a profile", f"{raw:.3f}", f"{raw_times:.2f}"],
            ],
        ),
        [
            Target("times what the imports take", times.median, "at most", MAX_RATIO),
            Target("the same with a transform", raw_times.median, "at most", MAX_RATIO),
        ],
        [f"Median ± half the range of {effort.starts} rounds, files in the cache, ratios within a round."],
        {
            "imports_seconds": imports,
            "answer_seconds": double,
            "times_the_imports": times,
            "transform_answer_seconds": raw,
            "transform_times_the_imports": raw_times,
        },
    )


def double_seconds() -> float:
    """Return the seconds from exec to a correct response of a model of three numbers."""
    model, row = models.double(), np.array([[1, 2, 3]], np.float32)
    return response_seconds([model], json_request(model.stem, row, "output"), [2, 4, 6])


def raw_columns(folder: Path) -> Path:
    """Make a registry of the same model, profiled, behind a transform of a number with gaps and of text."""
    (folder / "model.onnx").write_bytes(models.double().read_bytes())
    columns = {"distance": 50 * [1.0, None, 3.0], "carrier": 50 * ["AA", "UA", "AA"]}
    steps = [dl.Impute("distance", indicator=True), dl.Frequency("carrier")]
    dl.Transform(steps).fit(columns).save(folder / "transform.json")
    dl.Profile.fit(columns).save(folder / "profile.arrow")
    dl.Model.load(folder).warm_up()  # so that the kernels it needs are compiled and cached
    files = [folder / name for name in ("model.onnx", "transform.json", "profile.arrow")]
    dl.Registry.open(str(folder / "models")).register(files, RAW)
    return folder / "models"


def raw_seconds(registry: Path) -> float:
    """Return the seconds from exec to a correct response for raw columns."""
    inputs = [
        {"name": "distance", "datatype": "FP64", "shape": [1], "data": [None]},
        {"name": "carrier", "datatype": "BYTES", "shape": [1], "data": ["UA"]},
    ]
    document = json.dumps({"inputs": inputs}).encode()
    request = Request(f"/v2/models/{RAW}/infer", document)
    return response_seconds([RAW, "--registry", registry], request, np.float32([4, 2, 2 / 3]).tolist())


def response_seconds(arguments: Sequence[str | Path], request: Request, expected: list[float]) -> float:
    """Return the seconds from exec to a response; RuntimeError if it is not the correct one."""
    port = free_port()
    begin = perf_counter()
    with running(serve_command(*arguments, port=port)) as process:
        body = first_response(process, port, request, PAUSE_SECONDS)
        seconds = perf_counter() - begin
    data = json.loads(body)["outputs"][0]["data"]
    if np.float32(data).tolist() != expected:
        raise RuntimeError(f"expected {expected}, got {data}")
    return seconds


def import_seconds() -> float:
    """Return the seconds of a Python that imports and exits."""
    begin = perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return perf_counter() - begin
