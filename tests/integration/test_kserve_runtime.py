"""The server as KServe starts it: by its flags, as nobody, without capabilities, on a read-only disk."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import httpx
import numpy as np
import pytest
from onnx_models import scale
from server_process import infer_request

from driftline.monitor.reference.profile import Profile
from driftline.protocols.grpc.messages import HEALTH, HealthCheckResponse, message

USERS = {"image": (65532, 65532), "openshift": (1_000_730_000, 0)}
"""User and group, neither with a name or a home: the image's, and such as OpenShift gives a namespace."""
ROWS = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)


@pytest.fixture
def mount() -> Iterator[Path]:
    """A folder that anybody may read, as the storage initializer leaves it."""
    with TemporaryDirectory(dir="/tmp") as folder:
        place = Path(folder)
        place.chmod(0o755)
        scale(place / "models/trees-v7.onnx", 2.0)
        Profile.fit({"x": ROWS}).save(place / "models/profile.arrow")
        for path in place.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        scratch = place / "tmp"
        scratch.mkdir()
        scratch.chmod(0o777)  # as an emptyDir
        yield place


def bare(user: int, group: int) -> list[str]:
    """What runs a command as this user, without rights; root's alone to take away."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return []
    return [
        "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs",
        "--inh-caps=-all", "--bounding-set=-all",
    ]  # fmt: skip


def read_only() -> list[str]:
    """What gives a command a view of the disk in which only $TMPDIR can be written; nothing if we may not."""
    script = 'mount --bind "$TMPDIR" "$TMPDIR" && mount -o bind,remount,ro / && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh"]
    with TemporaryDirectory(dir="/tmp") as folder:
        tried = subprocess.run([*command, "true"], env={**os.environ, "TMPDIR": folder}, capture_output=True)
    return command if tried.returncode == 0 else []


@contextmanager
def started(mount: Path, who: str, *flags: str) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(mount / "tmp")}
    command = [
        *read_only(),
        *bare(*USERS[who]),
        sys.executable,
        "-m",
        "driftline",
        "serve",
        *flags,
        f"--http_port={port}",
    ]
    with (
        (mount / "log").open("w+") as log,
        subprocess.Popen(command, cwd="/", env=environment, stderr=log, text=True) as popen,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        try:
            yield client, popen
            popen.terminate()
            assert popen.wait(30) == 0, (mount / "log").read_text()
        finally:
            popen.kill()


def probed(address: str, service: str) -> int:
    """What the probe of the runtime for gRPC is told."""
    request = message("grpc.health.v1.HealthCheckRequest")(service=service).SerializeToString()
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(f"/{HEALTH}/Check", response_deserializer=HealthCheckResponse.FromString)
        return int(check(request).status)


@pytest.mark.parametrize("who", USERS)
def test_a_mounted_model_serves_without_any_right(mount: Path, who: str) -> None:
    flags = ("--model_name=trees", f"--model_dir={mount / 'models'}", "--grpc_port=0")
    with started(mount, who, *flags) as (client, popen):
        deadline, ready = time.monotonic() + 100, 0
        while ready != 200:  # the probe of the ClusterServingRuntime
            assert popen.poll() is None, (mount / "log").read_text()
            assert time.monotonic() < deadline, (mount / "log").read_text()
            try:
                ready = client.get("/v2/models/trees/ready").status_code
            except httpx.ConnectError:
                time.sleep(0.05)
        answer = client.post("/v2/models/trees/infer", json=infer_request({"x": ("FP32", ROWS.tolist())}))
        assert answer.status_code == 200  # at once: ready is only who answers
        address = re.findall(r"grpc://(\S+)", (mount / "log").read_text())[0]
        assert probed(address, "trees") == HealthCheckResponse.SERVING
        v1 = client.post("/v1/models/trees:predict", json={"instances": [{"x": [1, 2, 3]}]})
        assert v1.json()["predictions"][0]["y"] == [2, 4, 6]
        while client.get("/v2/models/trees/drift").status_code == 503:  # its kernels are being compiled
            assert time.monotonic() < deadline, (mount / "log").read_text()
            time.sleep(0.1)
        assert client.get("/v2/models/trees/drift").json()["rows"] == len(ROWS) + 1
    log = (mount / "log").read_text()
    assert " WARNING " not in log, log
    assert " ERROR " not in log, log


def test_a_folder_without_a_model_ends_the_start(mount: Path) -> None:
    (mount / "models/trees-v7.onnx").unlink()
    command = [
        sys.executable,
        "-m",
        "driftline",
        "serve",
        "--model_name=trees",
        f"--model_dir={mount}/models",
    ]
    done = subprocess.run([*command, "--http_port=0"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "expected a file model.onnx, there is none" in done.stderr
