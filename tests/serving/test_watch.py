"""Rows on their way to the monitor: behind their answers, several together, all of them."""

from __future__ import annotations

import asyncio
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


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    registry = Registry.open(tmp_path / "models")
    registry.register([scale(tmp_path / "model.onnx", 2.0)], "m")
    version = registry.resolve(Reference("m"))
    model = Model.load(registry.fetch(version))
    watch = Watch(version, model, None, model.settings.monitor, News())
    watch.start()
    for _ in range(600):
        try:
            watch.ready()
            break
        except Unavailable:
            await asyncio.sleep(0.05)
    yield watch
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
