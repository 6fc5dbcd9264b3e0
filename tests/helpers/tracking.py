"""A real MLflow tracking server, and MLflow's own client in its own process, since it imports slowly."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx

SCRIPTS = Path(sys.executable).parent
USER, PASSWORD = "admin", "a-secret-passphrase"

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "PYTHONWARNINGS": "ignore",
}
HOOKS = {
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_CACHE_TTL": "0",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(bytes(32)).decode(),
}
AUTH_CONFIG = """
[mlflow]
default_permission = READ
database_uri = sqlite:///basic_auth.db
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 600
"""
"""Each password is verified only once, since that takes the server most of a second."""
AUTH = {
    "MLFLOW_AUTH_CONFIG_PATH": "auth.ini",
    "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "for cookies",
}
CREDENTIALS = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}


class TrackingServer:
    """`mlflow server` on SQLite, on a port that it keeps across restarts."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder, self._options = folder, options
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "auth.ini").write_text(AUTH_CONFIG)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._popen: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextmanager
    def running(cls, folder: Path, *options: str) -> Iterator[Self]:
        """Run a server, ready; end it on leaving."""
        server = cls(folder, *options)
        server.start()
        try:
            server.wait()
            yield server
        finally:
            server.stop()

    def start(self) -> None:
        """Start without waiting."""
        command = [
            SCRIPTS / "mlflow", "server", "--backend-store-uri", "sqlite:///mlflow.db",
            "--artifacts-destination", "./artifacts", "--host", "127.0.0.1", "--port", str(self.port),
            "--workers", "1", *self._options,
        ]  # fmt: skip
        with (self._folder / "server.log").open("ab") as log:
            self._popen = subprocess.Popen(
                command, cwd=self._folder, stdout=log, stderr=log,
                env=os.environ | QUIET | HOOKS | AUTH, start_new_session=True,
            )  # fmt: skip

    def wait(self, seconds: float = 120) -> None:
        """Wait until it answers."""
        assert self._popen is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._popen.poll() is None, self.log()
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise AssertionError(f"no tracking server within {seconds} s: {self.log()}")

    def stop(self) -> None:
        """End it and all of its processes."""
        if self._popen is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait(30)
            self._popen = None

    def log(self) -> str:
        """Return its log."""
        return (self._folder / "server.log").read_text(errors="replace")


LOOP = """
import os, sys, traceback, warnings
warnings.filterwarnings("ignore")
import mlflow, numpy as np, onnx, pandas as pd
from mlflow import MlflowClient
names = dict(globals())
while line := sys.stdin.readline():
    try:
        exec(compile(eval(line), "<test>", "exec"), names)
        print("=", repr(names.pop("answer", None)), file=sys.__stdout__, flush=True)
    except BaseException:
        print("!", repr(traceback.format_exc()), file=sys.__stdout__, flush=True)
"""


class Client:
    """A Python process with mlflow imported, which runs the code that it is sent."""

    def __init__(self, **environment: str) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-c", LOOP],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | QUIET | environment,
        )  # fmt: skip

    def run(self, code: str, **values: Any) -> Any:
        """Run statements with these values by name; return what they assign to `answer`."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        self._popen.stdin.write(repr(given + code) + "\n")
        self._popen.stdin.flush()
        while line := self._popen.stdout.readline():
            if line.startswith("! "):
                raise AssertionError(eval(line[2:]))
            if line.startswith("= "):
                return eval(line[2:])
        raise AssertionError("the client has ended")

    def close(self) -> None:
        """End it."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.close()
        self._popen.wait(60)
        self._popen.stdout.close()
