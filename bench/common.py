"""Shared by the benchmarks: processes pinned to cores, medians, a description of the machine."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Self

import click
import numpy as np
import numpy.typing as npt
import psutil

Matrix = npt.NDArray[np.float32]

HERE = Path(__file__).parent
ROOT = HERE.parent
HOST = "127.0.0.1"
SERVER_CORE, CLIENT_CORE = 0, 1
START_SECONDS = 60.0
LIBRARIES = (
    "driftline",
    "grpcio",
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
QUIET_CORES = 0.1
"""Cores that other processes may use, on average, before figures become meaningless."""
PACKAGES = {"h2load": "nghttp2-client", "nginx": "nginx-light", "taskset": "util-linux", "wrk": "wrk"}
"""The Debian package of each program."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    rounds   how often everything that is compared is measured, in turn
    seconds  of load for one point of one round
    starts   cold starts
    swaps    hot swaps, of which the first `settle` may still grow the memory
    rows     of the file that is scored with trees; the network's has a twentieth, the profiled one five times
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
    """Return a program's path; if it is missing, a one-line error names its Debian package."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if path is None:
        raise click.ClickException(f"{name} is missing: on Debian and Ubuntu, apt install {PACKAGES[name]}")
    return path


def pinned(core: int, *command: str | Path) -> list[str]:
    """Return a command line that runs on one core only."""
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


_PRINT_PEAK = """
import re, sys
from driftline.cli import main
main(sys.argv[1:], standalone_mode=False)
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""
"""Runs a driftline command and prints its peak memory: getrusage would also count what forked it."""
MEASURED = [sys.executable, "-c", _PRINT_PEAK]
"""The beginning of a driftline command line whose memory `peak_megabytes` returns."""


def peak_megabytes(command: Sequence[str]) -> float:
    """Run a command line with MEASURED in it to its end; return its peak memory in MB."""
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(completed.stdout.splitlines()[-1]) * 1024 / 1e6


class Process:
    """A child process and its output."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Any) -> None:
        self.popen = popen
        self._log = log

    def check(self) -> None:
        """Raise RuntimeError with the end of its output if it has ended."""
        if self.popen.poll() is not None:
            self._log.seek(0)
            output = self._log.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{self.popen.args!r} has ended with {self.popen.returncode}: {output}")


@contextmanager
def running(command: Sequence[str], env: dict[str, str] | None = None) -> Iterator[Process]:
    """Run a child process, which is ended in any case."""
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
    """Return a port that is free now."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def serve_command(*arguments: str | Path, port: int, config: Path | None = None) -> list[str]:
    """Return the command line `driftline serve ARGUMENTS`, as a user types it, in this environment."""
    command = (Path(sys.executable).with_name("driftline"), *(("--config", config) if config else ()))
    return [*map(str, (*command, "serve", *arguments)), "--port", str(port), "--log-level", "warning"]


# -- figures ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure in all rounds. Formats as its median ± half the range, in percent of the median."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Sample:
        """Return a sample of these values, to four digits: more is noise."""
        return cls(tuple(float(f"{value:.4g}") for value in values))

    @property
    def median(self) -> float:
        """The median."""
        return median(self.values)

    def __format__(self, spec: str) -> str:
        spread = (max(self.values) - min(self.values)) / 2 / self.median
        return f"{self.median:{spec}} ± {spread:.0%}"

    def __truediv__(self, other: Sample) -> Sample:
        """Return the ratio, round by round: what affects both cancels out."""
        return Sample.of([mine / theirs for mine, theirs in zip(self.values, other.values, strict=True)])


class Neighbours:
    """Measures the CPU time that other processes, and other guests of the same hardware, take meanwhile.

    Ratios within a round are no protection: threads that spin, or divide work into equal parts, lose more to
    a neighbour than a queue does, in every round alike.
    """

    def __enter__(self) -> Self:
        self._begin = time.perf_counter(), self._theirs()
        return self

    def __exit__(self, *rest: object) -> None:
        began, before = self._begin
        self.cores = max(0.0, (self._theirs() - before) / (time.perf_counter() - began))

    @property
    def quiet(self) -> bool:
        """Whether the figures measured meanwhile mean anything."""
        return self.cores <= QUIET_CORES

    @staticmethod
    def _theirs() -> float:
        """Return the CPU seconds so far that neither this process nor its ended children have used."""
        total, ours = psutil.cpu_times(), os.times()
        everybody = total.user + total.nice + total.system + total.steal
        return float(everybody - sum(ours[:4]))


def versions() -> Iterator[tuple[str, str]]:
    """Yield the installed versions of the libraries that figures depend on."""
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            yield library, version(library)


def machine() -> dict[str, str]:
    """Return what the figures were measured on: hardware and versions, no names."""
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
