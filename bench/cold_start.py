"""From exec to the first right answer, against only importing what any Python server must import."""

from __future__ import annotations

import subprocess
import sys
from time import perf_counter

import numpy as np
import orjson

from bench import models
from bench.common import Effort, Sample, first_answer, free_port, json_request, running, serve_command
from bench.results import Result, Table, Target

IMPORTS = "import onnxruntime, starlette, uvicorn"
MOST_TIMES = 3.0
PAUSE = 0.002


def run(effort: Effort) -> Result:
    """Start both in turn; the first pair only fills the file system's cache."""
    pairs = [(answer_seconds(), import_seconds()) for _ in range(1 + effort.starts)][1:]
    answer, imports = (Sample.of(seconds) for seconds in zip(*pairs, strict=True))
    times = answer / imports
    return Result(
        "cold start of a small model",
        Table(
            ["", "s", "times the imports"],
            [
                [f"python -c '{IMPORTS}'", f"{imports:.3f}", "1"],
                ["driftline serve: first right answer", f"{answer:.3f}", f"{times:.2f}"],
            ],
        ),
        [Target("times what the imports take", times.median, "at most", MOST_TIMES)],
        [f"Median ± half the range of {effort.starts} pairs, files in the cache, ratios within a pair."],
        {"imports_seconds": imports, "answer_seconds": answer, "times_the_imports": times},
    )


def answer_seconds() -> float:
    """Seconds from exec to a right answer."""
    model, port = models.double(), free_port()
    row = np.array([[1, 2, 3]], np.float32)
    request = json_request(model.stem, row, "output")
    begin = perf_counter()
    with running(serve_command(model, port=port)) as process:
        body = first_answer(process, port, request, PAUSE)
        took = perf_counter() - begin
    data = orjson.loads(body)["outputs"][0]["data"]
    if data != [2, 4, 6]:
        raise RuntimeError(f"expected twice {row.tolist()}, came {data}")
    return took


def import_seconds() -> float:
    """Seconds of a Python that imports and ends."""
    begin = perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return perf_counter() - begin
