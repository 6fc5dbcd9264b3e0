"""h2load and wrk as senders of closed loops: written in C, they leave more of the machine to the server."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from math import ceil
from pathlib import Path

from driftline.errors import BadRequest, DriftlineError
from driftline.load.connections import CLOSED, TIMEOUT
from driftline.load.pace import Outcome
from driftline.load.request import Request
from driftline.load.signals import deferred

TOOLS = ("h2load", "wrk")
_SCRIPT = Path(__file__).with_name("wrk.lua")
_WRK_FAILURES = ("not connected", CLOSED, "not written", "status 400 or above", TIMEOUT)
"""In the order of our script's output."""
_GRACE_SECONDS = 5
_WATCH_SECONDS = 0.25


def installed() -> str | None:
    """Return the first installed tool."""
    return next((tool for tool in TOOLS if shutil.which(tool)), None)


def run(
    tool: str,
    request: Request,
    connections: int,
    seconds: float,
    timeout: float,
    outcome: Outcome,
    watch: Callable[[], object],
) -> None:
    """Run a closed loop over so many connections, for seconds rounded up; fill `outcome`.

    On KeyboardInterrupt it has what the tool reported so far. Raises BadRequest if the tool is not installed,
    DriftlineError if it fails.
    """
    path = shutil.which(tool)
    if path is None:
        raise BadRequest(f"{tool} is not installed; expected another --sender")
    whole_seconds = ceil(seconds)
    with tempfile.TemporaryDirectory() as folder:
        body, log, output = Path(folder, "body"), Path(folder, "log"), Path(folder, "output")
        body.write_bytes(request.body)
        if tool == "wrk":
            options = _wrk(body, request, connections, whole_seconds, timeout)
        else:
            options = _h2load(body, log, request, connections, whole_seconds, timeout)
        try:
            _finish([path, *options], output, whole_seconds + timeout + _GRACE_SECONDS, watch)
        except KeyboardInterrupt:
            with suppress(DriftlineError, OSError, ValueError):  # it may not have written anything
                _read(tool, output, log, outcome)
            raise
        _read(tool, output, log, outcome)


def _read(tool: str, output: Path, log: Path, outcome: Outcome) -> None:
    text = output.read_text(encoding="utf-8", errors="replace")
    if tool == "wrk":
        _read_wrk(text, outcome)
    else:
        _read_h2load(text, log, outcome)


def _wrk(body: Path, request: Request, connections: int, seconds: int, timeout: float) -> list[str]:
    headers = [text for header in request.all_headers.items() for text in header]
    times = [f"-c{connections}", f"-d{seconds}s", "--timeout", f"{ceil(timeout)}s"]
    return ["-t1", *times, "-s", str(_SCRIPT), request.url, "--", str(body), *headers]


def _h2load(
    body: Path, log: Path, request: Request, connections: int, seconds: int, timeout: float
) -> list[str]:
    headers = [text for name, value in request.all_headers.items() for text in ("-H", f"{name}: {value}")]
    times = ["-c", str(connections), "-D", str(seconds), "-N", str(ceil(timeout))]
    return ["--h1", *times, "-d", str(body), f"--log-file={log}", *headers, request.url]


def _finish(command: list[str], output: Path, limit_seconds: float, watch: Callable[[], object]) -> None:
    """Run a command to its end, with its output in a file. An interrupt makes it stop and report."""
    popen: subprocess.Popen[bytes] | None = None
    deadline = time.monotonic() + limit_seconds
    try:
        with deferred(), output.open("wb") as out:
            popen = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        while popen.poll() is None and time.monotonic() < deadline:
            watch()
            with suppress(subprocess.TimeoutExpired):
                popen.wait(_WATCH_SECONDS)
    finally:
        if popen is not None and popen.poll() is None:
            popen.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                popen.wait(_GRACE_SECONDS)
            popen.kill()
            popen.wait()
    if popen.returncode:
        last = output.read_text(encoding="utf-8", errors="replace")[-500:]
        raise DriftlineError(f"{command[0]} has ended with {popen.returncode}: {last}")


def _read_wrk(output: str, outcome: Outcome) -> None:
    """Read the output of our script.

    wrk adds durations that a stall kept from being measured, so there may be more of them than responses, and
    they include responses of other statuses.
    """
    lines = iter(output.splitlines())
    totals = next((line for line in lines if line.startswith("driftline ")), None)
    if totals is None:
        raise DriftlineError(f"wrk has not told what it saw: {output[-500:]}")
    requests, elapsed_us, *failures = map(int, totals.split()[1:])
    outcome.elapsed_ns = elapsed_us * 1000
    outcome.failures += Counter(
        {reason: count for reason, count in zip(_WRK_FAILURES, failures, strict=True) if count}
    )
    outcome.answered = requests - failures[3]
    for line in lines:
        us, count = map(int, line.split())
        outcome.latency.add(us * 1000, count)


def _read_h2load(output: str, log: Path, outcome: Outcome) -> None:
    """Read its log of requests: start, status and duration of each, in microseconds."""
    first = last = 0
    with log.open(encoding="ascii") as lines:
        for line in lines:
            start, status, us = map(int, line.split()[:3])
            first, last = first or start, max(last, start + us)
            if 200 <= status < 300:
                outcome.answered += 1
                outcome.latency.add(us * 1000)
            elif status > 0:
                outcome.failures[str(status)] += 1
            outcome.elapsed_ns = (last - first) * 1000
    if match := re.search(r"(\d+) errored, (\d+) timeout", output):
        errored, timed_out = map(int, match.groups())
        outcome.failures += Counter({CLOSED: errored - timed_out, TIMEOUT: timed_out})
