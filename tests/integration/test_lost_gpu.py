"""A GPU that can compute nothing any more in a process: the process ends, and another takes its place.

The CPU's memory is in the GPU's place, and breaks as CUDA's contexts do: at once, and for good.
"""

from __future__ import annotations

import os
from pathlib import Path

import fake_gpu
import httpx
import pytest
from onnx_models import scale
from server_process import Process, serving
from waiting import until

BREAKING = """
from contextlib import nullcontext
import numpy as np
from fake_gpu import Cpu
from driftline.engine import model


class Breaking(Cpu):
    name, why = "cuda:0", ""

    def copy_in(self, here, there):
        super().copy_in(here, there)
        if here.dtype == np.uint8 and 77 in here[: len(here) // 4 * 4].view(np.float32):
            self.why = "CUDA_ERROR_ILLEGAL_ADDRESS"
            raise RuntimeError(self.why)

    def active(self):
        if self.why:
            raise RuntimeError(self.why)
        return nullcontext()

    def failure(self):
        return f"device {self.name!r} is lost: {self.why}" if self.why else ""


model.find = lambda wanted: Breaking()
"""
"""What every process of a server runs before all else."""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "sitecustomize.py").write_text(BREAKING)
    folders = (tmp_path, Path(fake_gpu.__file__).parent, os.environ.get("PYTHONPATH"))
    return {"PYTHONPATH": os.pathsep.join(str(folder) for folder in folders if folder)}


def ask(server: Process, value: float) -> httpx.Response:
    return server.infer("m", {"x": ("FP32", [[value, 1.0, 2.0]])})


def test_a_server_ends_with_code_1(tmp_path: Path, env: dict[str, str]) -> None:
    with serving(scale(tmp_path / "m.onnx", 2.0), env=env) as server:
        assert ask(server, 5).json()["outputs"][0]["data"] == [10, 2, 4]
        answer = ask(server, 77)
        assert answer.status_code == 500
        assert "device 'cuda:0' is lost: CUDA_ERROR_ILLEGAL_ADDRESS" in answer.json()["error"]
        assert server.popen.wait(30) == 1
    (line,) = [event["message"] for event in server.events() if event["level"] == "critical"]
    assert line == (
        "device 'cuda:0' is lost: CUDA_ERROR_ILLEGAL_ADDRESS; "
        "this process ends, for another to take its place"
    )


def test_a_worker_is_replaced(tmp_path: Path, env: dict[str, str]) -> None:
    with serving(scale(tmp_path / "m.onnx", 2.0), "--workers", "2", env=env) as server:
        assert ask(server, 77).status_code == 500
        server.wait_for("ended with code 1; another takes its place")
        until(lambda: ask(server, 5).status_code == 200, "an answer")
        assert server.stop() == 0
