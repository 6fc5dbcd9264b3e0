"""Hot swap of whole servers under load."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import aiohttp
import pytest
from onnx_models import scale
from server_process import Process, infer_rows, serving

from driftline.registry.source import Registry

SWAPS = 200
VERSIONS = 8


def load(server: Process, registry: Registry, version: int) -> None:
    registry.promote("m", version)
    server.post("/v2/repository/models/m/load").raise_for_status()


def hang_up(server: Process, registry: Registry, version: int) -> None:
    registry.promote("m", version)
    server.popen.send_signal(signal.SIGHUP)


def only_promote(server: Process, registry: Registry, version: int) -> None:
    registry.promote("m", version)


async def test_200_swaps_under_load_lose_nothing_and_mix_nothing(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "models")
    for version in range(1, VERSIONS + 1):
        registry.register([scale(tmp_path / "model.onnx", float(version))], "m")
    registry.promote("m", 1)
    with serving(
        "m", "--registry", tmp_path / "models", "--poll-seconds", "0.02", "--model-control", "explicit"
    ) as server:
        answers: Counter[int] = Counter()
        going_on = True

        async def client(session: aiohttp.ClientSession, rows: int) -> None:
            while going_on:
                answers[await infer_rows(session, server.url, rows)] += 1

        ways: cycle[Callable[[Process, Registry, int], None]] = cycle((load, hang_up, only_promote))
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as clients:
            for rows in (1, 1, 1, 2, 5, 17, 100, 300):
                clients.create_task(client(session, rows))
            version = 1
            for _ in range(SWAPS):
                version = version % VERSIONS + 1
                await asyncio.to_thread(next(ways), server, registry, version)
                while await infer_rows(session, server.url, 1) != version:
                    pass
            going_on = False
        assert set(answers) == set(range(1, VERSIONS + 1))
        assert sum(answers.values()) > SWAPS
        metrics = server.get("/metrics").text
        assert f'driftline_swaps_total{{model="m"}} {SWAPS}.0' in metrics
        assert 'driftline_loads_total{model="m",outcome="failure"} 0.0' in metrics
        assert server.stop() == 0


def test_an_alias_change_is_seen_at_the_default_interval(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "models")
    for version in (1, 2):
        registry.register([scale(tmp_path / "model.onnx", float(version))], "m")
    registry.promote("m", 1)
    with serving("m", "--registry", tmp_path / "models") as server:
        registry.promote("m", 2)  # how soon is a matter of the interval, which test_watcher.py knows
        server.wait_for("m 2 serves")
        answer = server.infer("m", {"x": ("FP32", [[1, 2, 3]])}).json()
        assert answer["model_version"] == "2"


def index_of(server: Process) -> dict[str, dict[str, str]]:
    """The repository index, by version."""
    return {entry["version"]: entry for entry in server.post("/v2/repository/index").json()}


@pytest.mark.parametrize("broken", [b"", b"no model", None], ids=["empty", "garbage", "missing"])
def test_a_version_that_cannot_be_loaded_leaves_the_old_one_serving(
    tmp_path: Path, broken: bytes | None
) -> None:
    registry = Registry.open(tmp_path / "models")
    registry.register([scale(tmp_path / "model.onnx", 1.0)], "m")
    with serving(
        "m", "--registry", tmp_path / "models", "--poll-seconds", "0.05", "--model-control", "explicit"
    ) as server:
        folder = tmp_path / "models/m/2"
        folder.mkdir()
        if broken is not None:
            (folder / "model.onnx").write_bytes(broken)
        server.wait_for("m 2 can't be loaded")
        answer = server.infer("m", {"x": ("FP32", [[1, 2, 3]])}).json()
        assert answer["model_version"] == "1"
        index = index_of(server)
        while index["2"]["state"] == "LOADING":  # it is tried again now and then
            index = index_of(server)
        assert index["1"]["state"] == "READY"
        assert index["2"]["state"] == "UNAVAILABLE"
        assert "model.onnx" in index["2"]["reason"]
        assert server.get("/v2/health/ready").status_code == 200
        failed = server.post("/v2/repository/models/m/load")
        assert failed.status_code == 400
        assert "failed to load 'm'" in failed.json()["error"]
        # A copy that was still on its way when it was first seen.
        scale(folder / "model.onnx", 2.0)
        server.post("/v2/repository/models/m/load").raise_for_status()
        assert server.infer("m", {"x": ("FP32", [[1, 2, 3]])}).json()["model_version"] == "2"
