"""A real Prometheus, and promtool."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

FETCHED = Path(sys.prefix) / "prometheus/usr/bin"
"""Where `make check` puts them."""


def program(name: str) -> str:
    """Return the path of `prometheus` or `promtool`; skip the test if it is missing."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{FETCHED}")
    if found is None:
        pytest.skip(f"{name} is missing: make {FETCHED.parents[1]}, or apt install prometheus")
    return found


def promtool(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    command = [program("promtool"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100)


class Prometheus:
    """The HTTP API of a running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return the API's data; AssertionError with the response if it is an error."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=query, timeout=60).json()
        assert answer["status"] == "success", answer
        return answer["data"]  # type: ignore[no-any-return]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an expression, now."""
        return self.get("query", query=expression)["result"]  # type: ignore[no-any-return]


@contextmanager
def prometheus(configuration: str, folder: Path) -> Iterator[Prometheus]:
    """Run a Prometheus with this configuration, ready; its data and its log are in a folder."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "prometheus.yml").write_text(configuration)
    command = [program("prometheus"), f"--config.file={folder}/prometheus.yml"]
    command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"]
    with (
        (folder / "prometheus.log").open("w") as log,
        subprocess.Popen(command, cwd=folder, stderr=log, stdout=log) as popen,
    ):
        try:
            deadline = time.monotonic() + 60
            while not ready(address):
                assert popen.poll() is None, (folder / "prometheus.log").read_text()
                assert time.monotonic() < deadline, (folder / "prometheus.log").read_text()
                time.sleep(0.05)
            yield Prometheus(f"http://{address}")
        finally:
            popen.kill()


def ready(address: str) -> bool:
    """Return whether a Prometheus is ready."""
    try:
        return httpx.get(f"http://{address}/-/ready", timeout=10).status_code == 200
    except httpx.TransportError:
        return False
