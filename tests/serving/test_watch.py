"""Rows on their way to the monitor: behind their answers, several together, all of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from support import scale

from driftline.engine.model import Model
from driftline.errors import Unavailable
from driftline.registry.source import Reference, Registry
from driftline.serving.later import LATER_SECONDS, TOGETHER
from driftline.serving.news import News
from driftline.serving.watch import Watch

ROW = {"x": np.ones((1, 3), np.float32)}


def watch_of(folder: Path) -> Watch:
    registry = Registry.open(folder / "models")
    registry.register([scale(folder / "model.onnx", 2.0)], "m")
    version = registry.resolve(Reference("m"))
    model = Model.load(registry.fetch(version))
    return Watch(version, model, None, model.settings.monitor, News())


async def loaded(watch: Watch) -> None:
    for _ in range(600):
        try:
            watch.ready()
            break
        except Unavailable:
            await asyncio.sleep(0.05)


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    watch = watch_of(tmp_path)
    watch.start()
    await loaded(watch)
    yield watch
    watch.close()


async def test_rows_that_wait_for_the_monitor_stay_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, make = threading.Event(), Watch._make
    monkeypatch.setattr(Watch, "_make", lambda self: make(self) if go.wait(30) else None)
    watch = watch_of(tmp_path)
    watch.start()
    for value in (1, 2):
        watch.run({"x": np.full((1, 3), value, np.float32)}, ("y",))
        watch.catch_up()
    go.set()
    await loaded(watch)
    assert watch.ready().report()["total"].facts["mean"] == 9
    watch.close()


async def test_an_answer_does_not_wait_for_its_rows_to_be_observed(watch: Watch) -> None:
    monitor = watch.ready()
    outputs = watch.run(ROW, ("total",))
    assert outputs.keys() == {"total"}
    assert outputs["total"].tolist() == [6]
    assert monitor.rows == 0
    await asyncio.sleep(2 * LATER_SECONDS)
    assert monitor.rows == 1


async def test_many_rows_are_observed_in_the_next_turn_of_the_loop(watch: Watch) -> None:
    monitor = watch.ready()
    for _ in range(TOGETHER + 5):
        watch.run(ROW, ("y",))
    await asyncio.sleep(0)
    assert monitor.rows == TOGETHER + 5
    assert monitor.report()["total"].facts["mean"] == 6


async def test_in_a_thread_rows_are_observed_at_once(watch: Watch) -> None:
    await asyncio.to_thread(watch.run, ROW, ("y",))
    assert watch.observer.ready().rows == 1


async def test_whoever_asks_sees_all_that_was_answered(watch: Watch) -> None:
    watch.run(ROW, ("y",))
    assert watch.ready().rows == 1
