"""What the benchmarks share: processes pinned to cores, requests, wrk, medians, what machine this is."""

from __future__ import annotations

import http.client
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Self

import click
import numpy as np
import numpy.typing as npt
import orjson
import psutil

Matrix = npt.NDArray[np.float32]

HERE = Path(__file__).parent
ROOT = HERE.parent
HOST = "127.0.0.1"
SERVER_CORE, CLIENT_CORE = 0, 1
START_SECONDS = 60.0
LIBRARIES = (
    "driftline",
    "numba-cuda",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "orjson",
    "pyarrow",
    "starlette",
    "uvicorn",
    "uvloop",
)
QUIET = 0.1
"""Cores that other processes may take, on average, before figures stop meaning anything."""
PACKAGES = {"nginx": "nginx-light", "taskset": "util-linux", "wrk": "wrk"}
"""The Debian package that holds a program."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    rounds   how often everything that is compared is measured, one after the other
    seconds  of load for one point of one round
    starts   cold starts
    swaps    hot swaps, of which the first `settle` may still grow the memory
    rows     of the file that is scored with trees; the network's has a twentieth, what is profiled five times
    soak     seconds of load while versions swap and workers are killed
    """

    rounds: int = 5
    seconds: int = 5
    starts: int = 10
    swaps: int = 1000
    settle: int = 50
    rows: int = 2_000_000
    soak: int = 1800


QUICK = Effort(rounds=2, seconds=1, starts=3, swaps=60, settle=20, rows=400_000, soak=60)


# -- programs and processes -----------------------------------------------------------------------


def program(name: str) -> str:
    """A program's path; a one-line error names the Debian package if it is missing."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if path is None:
        raise click.ClickException(f"{name} is missing: on Debian and Ubuntu, apt install {PACKAGES[name]}")
    return path


def pinned(core: int, *command: str | Path) -> list[str]:
    """A command line that runs on one core only."""
    if core not in os.sched_getaffinity(0):
        raise click.ClickException(f"core {core} is missing: server and load need one of their own each")
    return [program("taskset"), "-c", str(core), *map(str, command)]


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Keep this thread on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


_PEAK = """
import re, sys
from driftline.cli import main
main(sys.argv[1:], standalone_mode=False)
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""
"""A driftline command, and then the most memory it had: getrusage would also count what forked it."""
MEASURED = [sys.executable, "-c", _PEAK]
"""What stands before the arguments of a driftline command whose memory `peak_megabytes` tells."""


def peak_megabytes(command: Sequence[str]) -> float:
    """Run a command line with MEASURED in it to its end; the most memory it had at once."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1]) * 1024 / 1e6


class Process:
    """A child process and what it has said."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Any) -> None:
        self.popen = popen
        self._log = log

    def check(self) -> None:
        """Raise RuntimeError with its last words if it has ended."""
        if self.popen.poll() is not None:
            self._log.seek(0)
            said = self._log.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{self.popen.args!r} has ended with {self.popen.returncode}: {said}")


@contextmanager
def running(command: Sequence[str], env: dict[str, str] | None = None) -> Iterator[Process]:
    """A child process, ended by its pid whatever happens."""
    with tempfile.TemporaryFile() as log:
        popen = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, **(env or {})})
        try:
            yield Process(popen, log)
        finally:
            popen.terminate()
            try:
                popen.wait(10)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def serve_command(*arguments: str | Path, port: int, config: Path | None = None) -> list[str]:
    """`driftline serve ARGUMENTS` as a user types it, in this environment."""
    command = (Path(sys.executable).with_name("driftline"), *(("--config", config) if config else ()))
    return [*map(str, (*command, "serve", *arguments)), "--port", str(port), "--log-level", "warning"]


# -- requests ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """An inference request; `json_length` is where its JSON ends if binary tensors follow."""

    path: str
    body: bytes
    json_length: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What HTTP says of it."""
        if self.json_length is None:
            return {"Content-Type": "application/json"}
        return {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(self.json_length),
        }


def json_request(model: str, tensor: Matrix, output: str, input_name: str = "input") -> Request:
    """A request that is JSON and wants JSON back."""
    entry = {"name": input_name, "shape": tensor.shape, "datatype": "FP32", "data": tensor.ravel()}
    document = {"inputs": [entry], "outputs": [{"name": output}]}
    return Request(f"/v2/models/{model}/infer", orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))


def binary_request(model: str, tensor: Matrix, output: str, input_name: str = "input") -> Request:
    """A request with a binary tensor that wants one back."""
    size = {"binary_data_size": tensor.nbytes}
    entry = {"name": input_name, "shape": tensor.shape, "datatype": "FP32", "parameters": size}
    document = {"inputs": [entry], "outputs": [{"name": output, "parameters": {"binary_data": True}}]}
    text = orjson.dumps(document)
    return Request(f"/v2/models/{model}/infer", text + tensor.tobytes(), len(text))


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=30)

    def send(self, request: Request) -> tuple[int, bytes]:
        """Status and body of the answer to a POST."""
        self._connection.request("POST", request.path, request.body, request.headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def get(self, path: str) -> Any:
        """The JSON that a path answers with."""
        self._connection.request("GET", path)
        return json.loads(self._connection.getresponse().read())

    def status(self, path: str) -> int:
        """The status that a path answers with."""
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        response.read()
        return response.status

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def first_answer(
    process: Process, port: int, request: Request, pause: float = 0.02, seconds: float = START_SECONDS
) -> bytes:
    """Ask until there is an answer of status 200; its body. RuntimeError if none comes in so many seconds."""
    deadline, last = time.monotonic() + seconds, "nothing"
    while time.monotonic() < deadline:
        client = Client(port)
        try:
            status, body = client.send(request)
            if status == 200:
                return body
            last = f"{status} {body[:200]!r}"
        except (OSError, http.client.HTTPException):
            process.check()
        finally:
            client.close()
        time.sleep(pause)
    raise RuntimeError(f"no answer of status 200 within {seconds:.0f} s; the last that came: {last}")


@contextmanager
def serving(model: Path, request: Request, *flags: str, max_batch_rows: int = 128) -> Iterator[int]:
    """`driftline serve MODEL FLAGS` on the server's core, warm; its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "driftline.toml"
        config.write_text(f"[models.{model.stem}.batching]\nmax_batch_rows = {max_batch_rows}\n")
        with running(pinned(SERVER_CORE, *serve_command(model, *flags, port=port, config=config))) as process:
            first_answer(process, port, request)
            yield port


# -- load -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw in one round: good answers a second, latencies, and the part of requests that failed."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    failed: float = 0.0

    @classmethod
    def median(cls, loads: Sequence[Load]) -> Load:
        """Of each figure the median."""
        return cls(*(median(getattr(load, one.name) for load in loads) for one in fields(cls)))


def load(port: int, request: Request, connections: int, seconds: int) -> Load:
    """Send one request again and again over so many connections, from the client's core.

    Raises RuntimeError if any of them fails: a figure with errors in it is none.
    """
    seen = attempt(port, request, connections, seconds)
    if seen.failed or not seen.requests_per_second:
        raise RuntimeError(f"of the requests to {request.path}, {seen.failed:.2%} failed: {seen}")
    return seen


def attempt(port: int, request: Request, connections: int, seconds: int) -> Load:
    """The same, for a server that may fail."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(request.body)
        body.flush()
        options = ("-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", HERE / "post.lua")
        length = "-" if request.json_length is None else request.json_length
        url = f"http://{HOST}:{port}{request.path}"
        command = pinned(CLIENT_CORE, program("wrk"), *options, url, "--", body.name, str(length))
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    rate = seen["answered"] / seen["microseconds"] * 1e6
    failed = seen["failures"] / max(seen["answered"] + seen["failures"], 1)
    return Load(rate, seen["p50_us"] / 1e3, seen["p99_us"] / 1e3, failed)


def in_turn(
    ports: Mapping[str, int], request: Request, connections: int, times: int, rest: float = 0.0
) -> dict[str, list[Load]]:
    """Load for a second on each of several servers of one core, again and again.

    The machine's own changes are slower than that, so ratios within a turn are nearly free of them.

    rest  seconds after each turn
    """
    seen: dict[str, list[Load]] = {name: [] for name in ports}
    for _ in range(times):
        for name, port in ports.items():
            seen[name].append(load(port, request, connections, 1))
        time.sleep(rest)
    return seen


# -- figures ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure in all rounds. Formats as its median ± half the range, in percent of the median."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Sample:
        """A sample of these values, to four digits: more is noise."""
        return cls(tuple(float(f"{value:.4g}") for value in values))

    @property
    def median(self) -> float:
        """The value in the middle."""
        return median(self.values)

    def __format__(self, spec: str) -> str:
        spread = (max(self.values) - min(self.values)) / 2 / self.median
        return f"{self.median:{spec}} ± {spread:.0%}"

    def __truediv__(self, other: Sample) -> Sample:
        """The ratio, round by round: what the machine does to both cancels out."""
        return Sample.of([mine / theirs for mine, theirs in zip(self.values, other.values, strict=True)])


@dataclass(frozen=True, slots=True)
class Ratios:
    """The requests/s of one server by those of another, turn by turn. Formats as median and quartiles."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, ours: Sequence[Load], theirs: Sequence[Load]) -> Self:
        """Of what `in_turn` has measured."""
        pairs = zip(ours, theirs, strict=True)
        return cls(tuple(one.requests_per_second / other.requests_per_second for one, other in pairs))

    @property
    def median(self) -> float:
        """The value in the middle."""
        return median(self.values)

    def __format__(self, spec: str) -> str:
        low, middle, high = quantiles(self.values, n=4)
        return f"{middle:{spec}} ({low:{spec}} to {high:{spec}})"


class Neighbours:
    """What other processes, and other guests of the same hardware, take of the machine meanwhile.

    A ratio within one round is no protection: threads that spin or share out work in equal parts lose
    more to a neighbour than a queue does, in every round alike.
    """

    def __enter__(self) -> Self:
        self._begin = time.perf_counter(), self._theirs()
        return self

    def __exit__(self, *rest: object) -> None:
        began, before = self._begin
        self.cores = max(0.0, (self._theirs() - before) / (time.perf_counter() - began))

    @property
    def quiet(self) -> bool:
        """Whether what was measured meanwhile is worth anything."""
        return self.cores <= QUIET

    @staticmethod
    def _theirs() -> float:
        """Seconds of CPU so far that neither this process nor its ended children have had."""
        total, ours = psutil.cpu_times(), os.times()
        everybody = total.user + total.nice + total.system + total.steal
        return float(everybody - sum(ours[:4]))


def versions() -> Iterator[tuple[str, str]]:
    """What is installed of the libraries that figures hang on."""
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            yield library, version(library)


def machine() -> dict[str, str]:
    """What the figures were measured on: hardware and versions, no names."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **dict(versions()),
    }
