"""Inference requests, a client for single ones, and driftline's server to send them to."""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bench.common import (
    HOST,
    SERVER_CORE,
    START_SECONDS,
    Matrix,
    Process,
    free_port,
    pinned,
    running,
    serve_command,
)


@dataclass(frozen=True, slots=True)
class Request:
    """An inference request; `json_length` is where its JSON ends if binary tensors follow."""

    path: str
    body: bytes
    json_length: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Its HTTP headers."""
        if self.json_length is None:
            return {"Content-Type": "application/json"}
        return {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(self.json_length),
        }


def json_request(model: str, tensor: Matrix, output: str, input_name: str = "input") -> Request:
    """Return a JSON request for a JSON response."""
    entry = {"name": input_name, "shape": tensor.shape, "datatype": "FP32", "data": tensor.ravel()}
    document = {"inputs": [entry], "outputs": [{"name": output}]}
    return Request(f"/v2/models/{model}/infer", orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))


def binary_request(model: str, tensor: Matrix, output: str, input_name: str = "input") -> Request:
    """Return a request with a binary tensor, for one in the response."""
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
        """Return status and body of the response to a POST."""
        self._connection.request("POST", request.path, request.body, request.headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def get(self, path: str) -> Any:
        """GET a path and return the JSON."""
        self._connection.request("GET", path)
        return json.loads(self._connection.getresponse().read())

    def status(self, path: str) -> int:
        """GET a path and return the status."""
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        response.read()
        return response.status

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def first_response(
    process: Process, port: int, request: Request, pause: float = 0.02, seconds: float = START_SECONDS
) -> bytes:
    """Send until the status is 200, and return the body; RuntimeError if that takes too long."""
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
    """Run `driftline serve MODEL FLAGS` on the server's core, warm; yield its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "driftline.toml"
        config.write_text(f"[models.{model.stem}.batching]\nmax_batch_rows = {max_batch_rows}\n")
        with running(pinned(SERVER_CORE, *serve_command(model, *flags, port=port, config=config))) as process:
            first_response(process, port, request)
            yield port
