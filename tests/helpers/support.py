"""Shared by tests: small ONNX models with easily predicted outputs, and real servers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    import aiohttp

NUMERIC = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
}
ONNX_TYPES = {**NUMERIC, "BYTES": TensorProto.STRING}

Shape = Sequence[int | str | None]


def save_model(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    outputs: dict[str, tuple[int, Shape]],
    constants: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write a model; tensors are given as {name: (ONNX type, shape)}."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def identity(path: Path, datatype: str = "FP32", shape: Shape = ("N", 3)) -> Path:
    """`y` is `x`."""
    kind = ONNX_TYPES[datatype]
    return save_model(
        path, [helper.make_node("Identity", ["x"], ["y"])], {"x": (kind, shape)}, {"y": (kind, shape)}
    )


def behind(folder: Path, transform: Any) -> Path:
    """Write a version whose `y` is its transform's output."""
    transform.save(folder / "transform.json")
    identity(folder / "model.onnx", shape=("N", transform.width))
    return folder


def scale(path: Path, factor: float, width: int = 3, ballast_bytes: int = 0) -> Path:
    """`y` is `factor * x`, and `total` the sum of each row of `y`; optionally a file of some size."""
    constants = {"factor": np.array(factor, np.float32), "axes": np.array([1])}
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["y"]),
        helper.make_node("ReduceSum", ["y", "axes"], ["total"], keepdims=0),
    ]
    if ballast_bytes:
        ballast = np.random.default_rng(0).random(ballast_bytes // 4, np.float32)
        constants |= {"ballast": ballast}
        nodes += [
            helper.make_node("ReduceMax", ["ballast"], ["most"], keepdims=1),
            helper.make_node("Add", ["y", "most"], ["unused"]),
        ]
    outputs: dict[str, tuple[int, Shape]] = {
        "y": (TensorProto.FLOAT, ("N", width)),
        "total": (TensorProto.FLOAT, ("N",)),
    }
    return save_model(path, nodes, {"x": (TensorProto.FLOAT, ("N", width))}, outputs, constants)


def gather(path: Path) -> Path:
    """`y` is the row `i` of a table of 10 rows, 0 to 9; the model refuses an index beyond them."""
    table = np.arange(10, dtype=np.float32).reshape(10, 1)
    return save_model(
        path,
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        {"i": (TensorProto.INT64, ("N",))},
        {"y": (TensorProto.FLOAT, ("N", 1))},
        {"table": table},
    )


def slow(path: Path, width: int = 1024, layers: int = 24) -> Path:
    """A chain of square matrix products: some milliseconds per row, more with more layers."""
    weight = (np.eye(width) * 1.0).astype(np.float32)
    nodes = [
        helper.make_node(
            "MatMul", [f"h{layer}" if layer else "x", "w"], [f"h{layer + 1}" if layer < layers - 1 else "y"]
        )
        for layer in range(layers)
    ]
    return save_model(
        path,
        nodes,
        {"x": (TensorProto.FLOAT, ("N", width))},
        {"y": (TensorProto.FLOAT, ("N", width))},
        {"w": weight},
    )


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
            if found := re.search(r'"address":"([^"]+)"', line):
                self.url = found[1]
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

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(timeout)

    def wait_for(self, message: str, timeout: float = 30) -> None:
        """Wait until a log line contains `message`."""
        deadline = time.monotonic() + timeout
        while not any(message in line for line in self.log):
            assert time.monotonic() < deadline, f"nobody said {message!r}: {''.join(self.log)}"
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


async def ask(session: aiohttp.ClientSession, url: str, rows: int) -> int:
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
    answers, posts = list(statuses), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            posts.append((self.headers["content-type"], json.loads(body)))
            self.send_response(answers.pop(0) if answers else 200)
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
