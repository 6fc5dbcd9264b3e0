"""Whole servers whose surroundings fail them: streams that are closed, disks that do not answer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from onnx_models import scale
from server_process import infer_request, serving

from driftline.demo.server import free_port
from driftline.registry.source import Registry

ROW = {"x": ("FP32", [[1.0, 2.0, 3.0]])}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry.open(tmp_path / "models")
    for name in ("m", "n"):
        registry.register([scale(tmp_path / "model.onnx", 2.0)], name)
    return registry


@contextmanager
def dripping(path: Path) -> Iterator[None]:
    """A file that never ends, nor comes to a stop."""
    os.mkfifo(path)
    pipe, over = os.open(path, os.O_RDWR | os.O_NONBLOCK), threading.Event()

    def drip() -> None:
        while not over.wait(0.02):
            with suppress(BlockingIOError):
                os.write(pipe, b" ")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        os.close(pipe)
        path.unlink()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_address_of_ipv6_is_said_as_clients_take_it(registry: Registry, workers: int) -> None:
    with serving("m", "--registry", registry.uri, "--host", "::1", "--workers", str(workers)) as server:
        assert server.url.startswith("http://[::1]:")
        assert server.infer("m", ROW).status_code == 200


@pytest.mark.parametrize("host", ["..", "a" * 300, "no.such.host.invalid"])
def test_an_address_that_cannot_be_looked_up_is_named(registry: Registry, host: str) -> None:
    command = [sys.executable, "-m", "driftline", "serve", "--registry", registry.uri, "--host", host]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"driftline: can't listen on {host}:8080: ")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("closed", ["2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_no_socket_stands_where_a_closed_stream_was(registry: Registry, closed: str, workers: int) -> None:
    port = free_port("127.0.0.1", 0)
    command = f"exec {sys.executable} -m driftline serve m --registry {registry.uri} --port {port}"
    with subprocess.Popen(["bash", "-c", f"{command} --workers {workers} {closed}"]) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            ready(server, url)
            answer = httpx.post(f"{url}/v2/models/m/infer", json=infer_request(ROW), timeout=30)
            assert answer.json()["outputs"][0]["data"] == [2, 4, 6]
            streams = [Path(f"/proc/{server.pid}/fd/{number}").readlink() for number in range(3)]
            assert not [stream for stream in streams if str(stream).startswith(("socket:", "anon_inode:"))]
            server.terminate()
            assert server.wait(30) == 0
        finally:
            server.kill()


def ready(server: subprocess.Popen[bytes], url: str) -> None:
    """Return when a server without a log is ready."""
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, "the server has ended"
        assert time.monotonic() < deadline, "the server does not get ready"
        try:
            if httpx.get(f"{url}/v2/health/ready", timeout=30).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 2])
def test_as_many_clients_are_served_as_the_system_allows(registry: Registry, workers: int) -> None:
    port = free_port("127.0.0.1", 0)
    command = f"ulimit -Sn 64; exec {sys.executable} -m driftline serve m --registry {registry.uri}"
    with subprocess.Popen(["bash", "-c", f"{command} --port {port} --workers {workers}"]) as server:
        try:
            ready(server, f"http://127.0.0.1:{port}")
            with ExitStack() as clients:
                for _ in range(300):
                    client = clients.enter_context(closing(HTTPConnection("127.0.0.1", port, timeout=30)))
                    client.request("GET", "/v2/health/ready")
                    assert client.getresponse().status == 200
            server.terminate()
            assert server.wait(30) == 0
        finally:
            server.kill()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_does_not_wait_for_a_disk_that_does_not_answer(
    tmp_path: Path, registry: Registry, workers: int
) -> None:
    folder = tmp_path / "models/m/2"
    folder.mkdir()
    scale(folder / "model.onnx", 3.0)
    registry.promote("m", 1)
    flags = ("--workers", str(workers), "--drain-seconds", "1", "--model-control", "explicit")
    with dripping(folder / "driftline.toml"), serving("--registry", registry.uri, *flags) as server:
        registry.promote("m", 2)
        answers: list[httpx.Response] = []
        loading = threading.Thread(target=lambda: answers.append(server.post("/v2/repository/models/m/load")))
        loading.start()
        while '"LOADING"' not in server.post("/v2/repository/index").text:
            time.sleep(0.01)
        assert server.infer("m", ROW).json()["model_version"] == "1"
        assert server.stop() == 0
        loading.join()
        (answer,) = answers
        assert (answer.status_code, answer.json()) == (503, {"error": "the server is stopping"})
        server.close()
        assert not [line for line in server.log if "Traceback" in line]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_registry_that_does_not_answer_holds_up_nothing_else(
    tmp_path: Path, registry: Registry, workers: int
) -> None:
    with (
        serving("--registry", registry.uri, "--workers", str(workers)) as server,
        dripping(tmp_path / "models/m/aliases.json"),
    ):
        clients = [
            threading.Thread(target=server.post, args=("/v2/repository/index",))
            for _ in range(2 * (os.cpu_count() or 1) + 8)
        ]
        for client in clients:
            client.start()
        index = server.post("/v2/repository/index")
        assert index.status_code == 503
        assert "has not answered in 10 s" in index.json()["error"]
        assert server.get("/metrics").status_code == 200
        for name in ("m", "n"):
            assert server.infer(name, ROW).status_code == 200
        for client in clients:
            client.join()
        assert server.stop() == 0
