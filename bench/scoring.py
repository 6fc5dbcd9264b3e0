"""MLflow's scoring protocol, compared with `mlflow models serve`, and a start while the registry is down."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import orjson

import driftline as dl
from bench import models
from bench.common import HOST, SERVER_CORE, Effort, Sample, free_port, pinned, running, serve_command
from bench.load import Load, load
from bench.requests import Client, Request, first_response
from bench.results import Result, Table, Target
from bench.servers.process import adopt, family

CONNECTIONS = 64
TIMES_MLFLOW = 8.0
TIMES_FOLDER = 1.2
NAME = "trees"
OURS, THEIRS = "driftline serve", "mlflow models serve"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "PYTHONWARNINGS": "ignore",
}
SCRIPTS = Path(sys.executable).parent


def run(effort: Effort) -> Result:
    """Measure both servers in turn, and both starts in turn."""
    adopt()
    row = models.rows(1, models.FEATURES)
    body = orjson.dumps({"inputs": row}, option=orjson.OPT_SERIALIZE_NUMPY)
    request = Request("/invocations", body)
    with tempfile.TemporaryDirectory() as folder:
        model = save_trees(Path(folder) / "mlflow")
        registry = Path(folder) / "models"
        dl.Registry.open(str(registry)).register([model], NAME)
        measured = loads(model, registry, request, effort)
        starts = list(both_starts(Path(folder), model, request, effort))
    rates = {
        server: Sample.of([point.requests_per_second for point in points])
        for server, points in measured.items()
    }
    p50 = {server: Sample.of([point.p50_ms for point in points]) for server, points in measured.items()}
    rate_ratio = rates[OURS] / rates[THEIRS]
    from_folder, from_cache = (Sample.of(seconds) for seconds in zip(*starts, strict=True))
    start_ratio = from_cache / from_folder
    return Result(
        f"MLflow: one row of 30 to /invocations over {CONNECTIONS} connections, one core; starts",
        Table(
            ["", "requests/s", "p50 ms", "s to the first answer", "times"],
            [
                [THEIRS, f"{rates[THEIRS]:,.0f}", f"{p50[THEIRS].median:.1f}", "", "1"],
                [OURS, f"{rates[OURS]:,.0f}", f"{p50[OURS].median:.1f}", "", f"{rate_ratio:.1f}"],
                ["start from a folder", "", "", f"{from_folder:.3f}", "1"],
                ["start from the cache, MLflow down", "", "", f"{from_cache:.3f}", f"{start_ratio:.2f}"],
            ],
        ),
        [
            Target(f"times the requests/s of {THEIRS}", rate_ratio.median, "at least", TIMES_MLFLOW),
            Target("times the start from a folder", start_ratio.median, "at most", TIMES_FOLDER),
        ],
        ["Median ± half the range of the rounds, ratios within a round; both give the same answer."],
        {
            "requests_per_second": rates,
            "p50_ms": p50,
            "folder_seconds": from_folder,
            "cache_seconds": from_cache,
        },
    )


def save_trees(folder: Path) -> Path:
    """Save the trees with MLflow, with a signature."""
    import mlflow.onnx  # takes 5 s to import
    import onnx
    from mlflow.models import infer_signature

    model = onnx.load(models.xgboost())
    signature = infer_signature(models.rows(2, models.FEATURES))
    mlflow.onnx.save_model(model, folder, signature=signature, pip_requirements=["onnx"])
    return folder


# -- requests -------------------------------------------------------------------------------------


def loads(model: Path, registry: Path, request: Request, effort: Effort) -> dict[str, list[Load]]:
    """Return the load on each server in each round; RuntimeError if their responses differ."""
    port = free_port()
    command = pinned(SERVER_CORE, *serve_command(NAME, "--registry", registry, port=port))
    with running(command) as process, mlflow_serve(model, request) as (mlflow_port, theirs):
        answer = first_response(process, port, request)
        if not same_predictions(answer, theirs):
            raise RuntimeError(f"{OURS} answers {answer!r}, {THEIRS} {theirs!r}")
        measured: dict[str, list[Load]] = {THEIRS: [], OURS: []}
        for _ in range(effort.rounds):
            for server, server_port in zip(measured, (mlflow_port, port), strict=True):
                measured[server].append(load(server_port, request, CONNECTIONS, effort.seconds))
    return measured


def same_predictions(*answers: bytes) -> bool:
    """Return whether the predictions have the same names and the same values."""
    ours, theirs = (json.loads(answer)["predictions"] for answer in answers)
    return ours.keys() == theirs.keys() and all(np.allclose(ours[name], theirs[name]) for name in ours)


@contextmanager
def mlflow_serve(model: Path, request: Request) -> Iterator[tuple[int, bytes]]:
    """Run `mlflow models serve` on the server's core; yield its port and its response."""
    port = free_port()
    command = [SCRIPTS / "mlflow", "models", "serve", "-m", model, "-h", HOST, "-p", str(port)]
    path = f"{SCRIPTS}{os.pathsep}{os.environ.get('PATH', os.defpath)}"  # where it looks for its uvicorn
    with family(pinned(SERVER_CORE, *command, "--env-manager", "local"), QUIET | {"PATH": path}) as server:
        yield port, first_response(server.process, port, request)


# -- starts ---------------------------------------------------------------------------------------


def both_starts(folder: Path, model: Path, request: Request, effort: Effort) -> Iterator[tuple[float, float]]:
    """Yield the seconds to the first response from a folder, and from the cache of a registry that is down.

    A first round, which only fills the file system's cache, is left out.
    """
    cache = {"DRIFTLINE_CACHE": str(folder / "cache")}
    down = f"http://{HOST}:{free_port()}"
    with mlflow_server(folder, down.rpartition(":")[2]):
        dl.Registry.open(down).register([model], NAME)
        seconds_to_answer([NAME, "--registry", down], request, cache)
    for round_ in range(1 + effort.starts):
        seconds = (
            seconds_to_answer([NAME, "--registry", folder / "models"], request, cache),
            seconds_to_answer([NAME, "--registry", down], request, cache),
        )
        if round_:
            yield seconds


@contextmanager
def mlflow_server(folder: Path, port: str) -> Iterator[None]:
    """Run a tracking server on SQLite, ready."""
    command = [
        str(SCRIPTS / "mlflow"), "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", str(folder / "artifacts"), "--host", HOST, "--port", port,
        "--workers", "1",
    ]  # fmt: skip
    with family(command, QUIET) as server:
        while not healthy(int(port)):
            server.process.check()
            sleep(0.1)
        yield


def healthy(port: int) -> bool:
    """Return whether the tracking server answers."""
    client = Client(port)
    try:
        return client.status("/health") == 200
    except OSError:
        return False
    finally:
        client.close()


def seconds_to_answer(arguments: list[str | Path], request: Request, env: dict[str, str]) -> float:
    """Return the seconds from exec to a response."""
    port = free_port()
    begin = perf_counter()
    with running(serve_command(*arguments, port=port), env) as process:
        first_response(process, port, request, 0.002)
        return perf_counter() - begin
