"""Who is measured: each server's package, its command line, how it is asked, whether it batches."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench import models
from bench.common import CLIENT_CORE, HOST, SERVER_CORE, Matrix, program
from bench.http import LOCATION, NGINX
from bench.servers import own
from bench.servers.environment import Unavailable, installed, pinned_version
from bench.servers.forms import V2, Form, Invocations, Records, Rows, Static, static_answer, static_path
from bench.servers.place import APPS, Place
from bench.servers.works import BINARY_64, OPEN_LOOP, ROW_1, ROW_64, ROWS_64, WIDE_4, WORKS, Subject

PREPARE_SECONDS = 120
EVERYTHING = (*(work.name for work in WORKS if work is not BINARY_64), OPEN_LOOP)
WITH_BINARY = (*EVERYTHING, BINARY_64.name)
ON_TREES = tuple(name for name in EVERYTHING if name != WIDE_4.name)


def nothing(place: Place) -> None:
    """A server that needs no preparation."""


def script(name: str) -> Callable[[Place], None]:
    """Preparation by a program of `apps/`, in the peer's environment; raises Unavailable."""

    def run(place: Place) -> None:
        done = subprocess.run(
            [str(place.bin / "python"), str(APPS / name)],
            env=place.environment(),
            capture_output=True,
            text=True,
            timeout=PREPARE_SECONDS,
        )
        if done.returncode:
            raise Unavailable(f"{name}: {done.stderr.strip()[-300:]}")

    return run


def static(place: Place) -> None:
    """An nginx.conf with the right answer to each work."""
    program("nginx")
    locations = []
    for rows in (ROW_1.rows, ROWS_64.rows):
        matrix = models.rows(rows, place.subject.width)
        answer = static_answer(place.subject, matrix)
        locations.append(LOCATION.format(path=f"= {static_path(matrix)}", answer=answer))
    text = NGINX.format(folder=place.folder, host=HOST, port=place.ports[0], locations="\n".join(locations))
    (place.folder / "nginx.conf").write_text(text, encoding="utf-8")


def two_workers(place: Place) -> None:
    """A watched version, where `driftline serve` knows workers."""
    command = [str(place.bin / "driftline"), "serve", "--help"]
    if "--workers" not in subprocess.run(command, capture_output=True, text=True, check=True).stdout:
        raise Unavailable("`driftline serve` has no --workers yet")
    own.watched(place)


@dataclass(frozen=True, slots=True)
class Peer:
    """One server.

    name      as on the command line, and of its requirements
    title     as in the tables
    form      how it is asked
    command   its command line, a template of Place.command
    works     the names of what it is asked
    batching  what it was set to, in words
    package   what it is on PyPI; "" if it is not from there
    python    the Python of its environment
    prepare   makes what `command` needs; not part of the cold start
    predict   the right answers
    cores     what it may use
    """

    name: str
    title: str
    form: Form
    command: tuple[str, ...]
    works: tuple[str, ...] = EVERYTHING
    batching: str = "none"
    package: str = ""
    python: str = sys.executable
    prepare: Callable[[Place], None] = nothing
    predict: Callable[[Subject, Matrix], Matrix] = Subject.predict
    cores: tuple[int, ...] = (SERVER_CORE,)
    env: dict[str, str] = field(default_factory=dict)

    def bin(self) -> Path:
        """Where its programs are, installed if they are not there yet; raises Unavailable."""
        return installed(self.name, self.python) if self.package else Path(sys.executable).parent

    def version(self) -> str:
        """What is measured, as `package version`."""
        return f"{self.package} {pinned_version(self.name, self.package)}" if self.package else ""


DRIFTLINE, NGINX_STATIC = "driftline", "nginx"
MONITOR_OFF, TRANSFORM, TWO_WORKERS = "driftline-unwatched", "driftline-transform", "driftline-2-workers"
WAITING = "what waits runs next, at most 128 rows"
TRITON = "{bin}/../lib/python3.11/site-packages/pytriton/tritonserver"

OURS = (
    Peer(
        DRIFTLINE,
        "driftline",
        V2(),
        own.COMMAND,
        WITH_BINARY,
        WAITING,
        prepare=own.watched,
    ),
    Peer(
        MONITOR_OFF,
        "driftline, monitor off",
        V2(),
        own.COMMAND,
        (ROW_1.name, ROW_64.name),
        WAITING,
        prepare=own.unwatched,
    ),
    Peer(
        TRANSFORM,
        "driftline, raw columns",
        Records(),
        own.COMMAND,
        ON_TREES,
        WAITING,
        prepare=own.transformed,
        predict=own.predict_transformed,
    ),
    Peer(
        TWO_WORKERS,
        "driftline, 2 workers on 2 cores",
        V2(),
        (*own.COMMAND, "--workers", "2"),
        (ROW_64.name,),
        WAITING,
        prepare=two_workers,
        cores=(SERVER_CORE, CLIENT_CORE),
    ),
)
OTHERS = (
    Peer(
        NGINX_STATIC,
        "nginx, static answer",
        Static(),
        ("nginx", "-p", "{folder}", "-c", "{folder}/nginx.conf", "-e", "stderr"),
        ON_TREES,
        prepare=static,
        env={"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"},
    ),
    Peer(
        "mosec",
        "mosec (Rust front)",
        Rows("/inference"),
        ("{bin}/python", "{apps}/serve_mosec.py", "--address", "{host}", "--port", "{port}"),
        batching="at most 64 requests, 1 ms",
        package="mosec",
    ),
    Peer(
        "triton",
        "Triton, Python backend",
        V2(),
        (
            *(f"{TRITON}/bin/tritonserver", "--model-repository", "{folder}/models"),
            *("--backend-directory", f"{TRITON}/backends", "--http-address", "{host}"),
            *("--http-port", "{port}", "--allow-grpc", "false", "--allow-metrics", "false"),
            *("--backend-config", "python,shm-region-prefix-name={port}"),
        ),
        WITH_BINARY,
        "dynamic_batching, no delay, at most 128 rows",
        "nvidia-pytriton",
        "/usr/bin/python3.11",  # its stub is built for Debian's; other builds lack its shared library
        prepare=script("prepare_triton.py"),
        env={"LD_LIBRARY_PATH": ""},
    ),
    Peer(
        "kserve",
        "KServe",
        V2(),
        ("{bin}/python", "{apps}/serve_kserve.py"),
        WITH_BINARY,
        "none: its batcher is a sidecar",
        "kserve",
    ),
    Peer(
        "mlserver",
        "MLServer",
        V2(),
        ("{bin}/mlserver", "start", "{folder}"),
        batching="adaptive, at most 64 requests, 1 ms",
        package="mlserver",
        prepare=script("prepare_mlserver.py"),
    ),
    Peer(
        "litserve",
        "LitServe",
        Rows("/predict"),
        ("{bin}/python", "{apps}/serve_litserve.py"),
        batching="at most 64 requests, 1 ms",
        package="litserve",
    ),
    Peer(
        "mlflow",
        "MLflow models serve",
        Invocations(),
        (
            *("{bin}/mlflow", "models", "serve", "--model-uri", "{folder}/model", "--host", "{host}"),
            *("--port", "{port}", "--workers", "1", "--env-manager", "local"),
        ),
        package="mlflow",
        prepare=script("prepare_mlflow.py"),
        env={"MLFLOW_DISABLE_TELEMETRY": "true"},
    ),
    Peer(
        "bentoml",
        "BentoML",
        Rows("/predict"),
        (
            *("{bin}/bentoml", "serve", "serve_bentoml:Served", "--working-dir", "{apps}"),
            *("--host", "{host}", "--port", "{port}"),
        ),
        batching="adaptive, at most 128 rows",
        package="bentoml",
        env={"BENTOML_DO_NOT_TRACK": "true"},
    ),
    Peer(
        "ray",
        "Ray Serve",
        Rows("/"),
        ("{bin}/python", "{apps}/serve_ray.py"),
        batching="serve.batch, at most 64 requests, 1 ms",
        package="ray",
        env={"RAY_USAGE_STATS_ENABLED": "0"},
    ),
)
PEERS = (*OURS, *OTHERS)
