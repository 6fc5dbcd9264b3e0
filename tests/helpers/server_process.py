"""Real driftline servers in processes of their own, requests to them, and a receiver of their webhooks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

if TYPE_CHECKING:
    import aiohttp


class Process:
    """A driftline server in its own process; its log is read as it is written.

    grpc  HOST:PORT, if it has such a port
    """

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        self.url = self.grpc = ""
        self.log: list[str] = []
        self.listening, self.ready = threading.Event(), threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.log.append(line)
            if match := re.search(r'"address":"([^"]+)"', line):
                self.url = match[1]
                self.grpc = str(json.loads(line).get("grpc_address", "")).removeprefix("grpc://")
                self.listening.set()
            if '"message":"ready"' in line:
                self.ready.set()
        self.listening.set()
        self.ready.set()

    @property
    def address(self) -> str:
        """HOST:PORT, as tritonclient wants it."""
        return self.url.removeprefix("http://")

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=30, **options)

    def infer(self, model: str, inputs: dict[str, tuple[str, Any]], **more: Any) -> httpx.Response:
        """POST an inference request; inputs as {name: (datatype, nested lists)}."""
        return self.post(f"/v2/models/{model}/infer", json=infer_request(inputs, **more))

    def stop(self, signum: int = signal.SIGTERM, timeout: float = 30) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.popen.send_signal(signum)
        return self.popen.wait(timeout)

    def wait_for(self, message: str, timeout: float = 30) -> None:
        """Wait until a log line contains `message`."""
        deadline = time.monotonic() + timeout
        while not any(message in line for line in self.log):
            assert time.monotonic() < deadline, f"no log line has {message!r}: {''.join(self.log)}"
            time.sleep(0.005)

    def close(self) -> None:
        """Kill it if it is still running, and read the rest of its log."""
        if self.popen.poll() is None:
            self.popen.kill()
        self._reader.join()

    def events(self) -> list[dict[str, Any]]:
        """Return the parsed log."""
        return [json.loads(line) for line in self.log if line.startswith("{")]


def infer_request(inputs: dict[str, tuple[str, Any]], **more: Any) -> dict[str, Any]:
    """Return an inference request's JSON; inputs as {name: (datatype, nested lists)}."""
    entries = [
        {"name": name, "datatype": datatype, "shape": list(np.shape(data)), "data": data}
        for name, (datatype, data) in inputs.items()
    ]
    return {"inputs": entries, **more}


async def infer_rows(session: aiohttp.ClientSession, url: str, rows: int) -> int:
    """Send rows to `m`, a model of `scale` whose factor is its version; return the version that answered."""
    data = [[float(row), 1.0, -2.0] for row in range(rows)]
    async with session.post(
        f"{url}/v2/models/m/infer", json=infer_request({"x": ("FP32", data)})
    ) as response:
        answer = await response.json()
        assert response.status == 200, answer
    version = int(answer["model_version"])
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert outputs["y"] == [version * value for row in data for value in row]
    assert outputs["total"] == [version * sum(row) for row in data]
    return version


@contextmanager
def serving(
    *arguments: str | Path, env: dict[str, str] | None = None, ready: bool = True
) -> Iterator[Process]:
    """Run `driftline serve ARGUMENTS` on a free port, ready; at the end, kill it if it is still running."""
    command = [sys.executable, "-m", "driftline", "serve", "--port", "0", "--log-format", "json"]
    with subprocess.Popen(
        [*command, *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    ) as popen:
        process = Process(popen)
        try:
            (process.ready if ready else process.listening).wait(60)
            assert process.url, f"the server did not start: {''.join(process.log)}"
            assert popen.poll() is None, f"the server has ended: {''.join(process.log)}"
            yield process
        finally:
            process.close()


@contextmanager
def receiver(*statuses: int) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Run a server that receives JSON and answers with these statuses, one after the other, then 200.

    Yields its URL, with a secret in it, and the content type and the document of each post received.
    """
    pending, posts = list(statuses), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            posts.append((self.headers["content-type"], json.loads(body)))
            self.send_response(pending.pop(0) if pending else 200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/alarms?key=secret", posts
        finally:
            server.shutdown()
            thread.join()
