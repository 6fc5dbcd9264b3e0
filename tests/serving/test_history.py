"""The last window of a version that leaves is written behind all else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx_models import scale

from driftline.monitor.reporting.history import History
from driftline.monitor.window import Window
from driftline.registry.directory import DirectoryRegistry
from driftline.serving.host import Host


async def test_a_swap_waits_for_no_disk_and_a_stop_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers, kept = threading.Event(), []

    def write(self: History, window: Window) -> None:
        answers.wait(60)
        kept.append(window.rows)

    monkeypatch.setattr(History, "write", write)
    registry = DirectoryRegistry(tmp_path / "models")
    settings = tmp_path / "driftline.toml"
    settings.write_text(f'[monitor]\nhistory = "{tmp_path / "history"}"\n')
    registry.register([scale(tmp_path / "model.onnx", 1.0), settings], "m")
    host = Host(registry, interval=0.01)
    await host.start()
    watch = host.find("m").watch
    assert watch is not None
    await until(lambda: watch.observer.monitor is not None)
    await asyncio.to_thread(watch.run, {"x": np.ones((4, 3), np.float32)}, ("y",))
    registry.register([scale(tmp_path / "model.onnx", 2.0), settings], "m")
    await until(lambda: host.find("m").version.number == 2 and not host.entries["m"].unloading)
    assert "not done" not in caplog.text  # nobody has waited for it
    asyncio.get_running_loop().call_later(0.2, answers.set)
    await host.close()
    assert kept[0] == 4


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - threads do it
            await asyncio.sleep(0.005)
