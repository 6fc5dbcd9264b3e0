"""Runs `driftline serve` as a separate process on a free port, as long as needed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import orjson

from driftline.errors import DriftlineError
from driftline.load.signals import deferred

_START_SECONDS = 120
_STOP_SECONDS = 10
_POLL_SECONDS = 0.05
_LAST_LINES = 5
_SETTINGS = "DRIFTLINE_"
"""Environment variables with this prefix are settings of another server; this one must not inherit them."""


@contextmanager
def serving(path: Path, name: str, settings: str) -> Iterator[str]:
    """Run a server of one model, with `settings` as its driftline.toml; yield its URL once it is ready.

    It is stopped at the end of the block, also after an error. Raises DriftlineError, with its last log
    lines, if it does not become ready.

    path  an .onnx file, or a version's folder: it is served from a registry of its own, so that a change in
          the one it comes from changes nothing
    name  of the model
    """
    with tempfile.TemporaryDirectory() as folder:
        config, log = Path(folder, "driftline.toml"), Path(folder, "log")
        config.write_text(settings, encoding="utf-8")
        registry = Path(folder, "models")
        (registry / name).mkdir(parents=True)
        (registry / name / "1").symlink_to(path.resolve())
        model = str(path) if path.is_file() else name
        options = ("--registry", str(registry), "--host", "127.0.0.1", "--port", "0", "--log-format", "json")
        process: subprocess.Popen[bytes] | None = None
        try:
            with deferred(), log.open("wb") as out:
                # In its own session Ctrl-C does not reach the server; this process stops it.
                process = subprocess.Popen(
                    [sys.executable, "-m", "driftline", "--config", str(config), "serve", model, *options],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env={name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)},
                    start_new_session=True,
                )
            with log.open("rb") as log_reader:
                url = _ready(process, log_reader)
            yield url
        finally:
            if process is not None:
                _stop(process)


def _ready(process: subprocess.Popen[bytes], log_reader: IO[bytes]) -> str:
    """Wait until the log says that the server is ready; return its address."""
    deadline, url, last_messages = time.monotonic() + _START_SECONDS, "", list[str]()
    while time.monotonic() < deadline:
        has_ended = process.poll() is not None
        for event in _events(log_reader):
            url = str(event.get("address", url))
            if event["message"] == "ready":
                return url
            last_messages = [*last_messages[1 - _LAST_LINES :], event["message"]]
        if has_ended:
            break
        time.sleep(_POLL_SECONDS)
    what = "has ended" if process.poll() is not None else f"was not ready after {_START_SECONDS} s"
    raise DriftlineError(f"the server {what}; it said: {'; '.join(last_messages) or 'nothing'}")


def _events(log_reader: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the log lines written since the last call."""
    while line := log_reader.readline():
        if not line.endswith(b"\n"):
            log_reader.seek(-len(line), os.SEEK_CUR)
            return
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError:
            event = {"message": line.decode(errors="replace").strip()}
        yield event


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate the process; kill it if that takes too long."""
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
    finally:
        process.kill()
        process.wait()
