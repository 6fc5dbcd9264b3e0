"""The port of gRPC: had by every worker, and by nobody else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil
import pytest
from click.testing import CliRunner
from onnx_models import scale
from server_process import Process, serving
from waiting import until

from driftline.cli import main
from driftline.protocols.grpc.messages import INFERENCE, ModelInferRequest, ModelInferResponse
from driftline.sockets import bind_shared


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return scale(tmp_path / "m.onnx", 2.0)


@contextmanager
def channel(address: str) -> Iterator[grpc.Channel]:
    """A connection of its own."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as found:
        yield found


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "driftline", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def infer(to: grpc.Channel) -> None:
    request = ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 3]).contents.fp32_contents.extend([1, 2, 3])
    call = to.unary_unary(f"/{INFERENCE}/ModelInfer", ModelInferRequest.SerializeToString)
    answer = ModelInferResponse.FromString(call(request, wait_for_ready=True))
    assert [output.name for output in answer.outputs] == ["y", "total"]


def holders(server: Process) -> set[int]:
    """The processes that have a connection of a client of gRPC."""
    port = int(server.grpc.rpartition(":")[2])
    return {
        one.pid
        for one in psutil.net_connections("tcp")
        if one.pid not in (None, os.getpid())
        if one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED
    }


def test_every_worker_is_reached_and_one_that_died_is_replaced(model: Path) -> None:
    with serving(model, "--grpc-port", "0", "--workers", "2") as server:
        found: set[int] = set()
        while len(found) < 2:
            with channel(server.grpc) as to:
                infer(to)
                found |= holders(server)
        killed = found.pop()
        os.kill(killed, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(killed) or psutil.Process(killed).status() == "zombie")
        for _ in range(20):
            with channel(server.grpc) as to:
                infer(to)
        anew: set[int] = set()
        while len(anew - found) < 1:
            with channel(server.grpc) as to:
                infer(to)
                anew |= holders(server)
        assert killed not in anew
        total = server.get("/metrics").text
        assert 'driftline_request_duration_seconds_count{model="m"}' in total
        assert server.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken_is_refused_at_the_start(model: Path, workers: str) -> None:
    arguments = ["serve", str(model), "--port", "0", "--workers", workers, "--grpc-port"]
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        said = run(*arguments, str(other.getsockname()[1]))
        expected = f"can't listen on 127.0.0.1:{other.getsockname()[1]}: Address already in use"
        assert (said.returncode, said.stderr) == (2, f"driftline: {expected}\n")
    # Nor is the port of another server shared, though all workers of one share it.
    with serving(model, "--grpc-port", "0", "--workers", workers) as server:
        said = run(*arguments, server.grpc.rpartition(":")[2])
        assert said.returncode == 2
        assert "Address already in use" in said.stderr
        with channel(server.grpc) as to:
            infer(to)


def test_a_port_is_held_before_anybody_listens_on_it(model: Path) -> None:
    (holding,) = bind_shared("127.0.0.1", 0, 1)
    with holding:
        said = run("serve", str(model), "--port", "0", "--grpc-port", str(holding.getsockname()[1]))
    assert said.returncode == 2
    assert "Address already in use" in said.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_without_the_package_a_line_says_what_to_install(
    model: Path, workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    said = CliRunner().invoke(
        main, ["serve", str(model), "--port", "0", "--grpc-port", "0", "--workers", workers]
    )
    line = "driftline: --grpc-port needs grpc: pip install 'driftline[grpc]'\n"
    assert (said.exit_code, said.stderr) == (2, line)


def test_an_address_of_ipv6(model: Path) -> None:
    try:
        with serving(model, "--host", "::1", "--grpc-port", "0") as server:
            assert server.grpc.startswith("[::1]:")
            with channel(server.grpc) as to:
                infer(to)
    except AssertionError as error:
        if "can't listen on ::1" not in str(error):
            raise
        pytest.skip("this machine has no IPv6")
