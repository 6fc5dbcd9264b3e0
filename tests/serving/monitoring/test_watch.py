"""Rows on their way to the monitor: behind their answers, several together, all of them."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx_models import scale
from waiting import loaded

from driftline.engine.model import Model
from driftline.monitor.observer import TICK_SECONDS
from driftline.monitor.reference.profile import Profile
from driftline.registry.source import Reference, Registry
from driftline.serving.monitoring.deferred import MAX_WAIT_SECONDS, TARGET_ROWS
from driftline.serving.monitoring.notifier import Notifier
from driftline.serving.monitoring.watch import Watch

ROW = {"x": np.ones((1, 3), np.float32)}


def watch_of(folder: Path, profile: Path | None = None, look_seconds: float = 1.0) -> Watch:
    registry = Registry.open(folder / "models")
    registry.register([scale(folder / "model.onnx", 2.0)], "m")
    version = registry.resolve(Reference("m"))
    model = Model.load(registry.fetch(version))
    settings = replace(model.settings.monitor, look_seconds=look_seconds)
    return Watch(version, model, profile, settings, Notifier())


def normal(rows: int, seed: int, mean: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, (rows, 3)).astype(np.float32)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    Profile.fit({"x": normal(5_000, 0, 0)}).save(tmp_path / "profile.arrow")
    return tmp_path / "profile.arrow"


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
    go, make = threading.Event(), Watch._make_monitor
    monkeypatch.setattr(Watch, "_make_monitor", lambda self: make(self) if go.wait(30) else None)
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
    await asyncio.sleep(2 * MAX_WAIT_SECONDS)
    assert monitor.rows == 1


async def test_many_rows_are_observed_in_the_next_turn_of_the_loop(watch: Watch) -> None:
    monitor = watch.ready()
    for _ in range(TARGET_ROWS + 5):
        watch.run(ROW, ("y",))
    await asyncio.sleep(0)
    assert monitor.rows == TARGET_ROWS + 5
    assert monitor.report()["total"].facts["mean"] == 6


async def test_in_a_thread_rows_are_observed_at_once(watch: Watch) -> None:
    await asyncio.to_thread(watch.run, ROW, ("y",))
    assert watch.observer.ready().rows == 1


async def test_whoever_asks_sees_all_that_was_answered(watch: Watch) -> None:
    watch.run(ROW, ("y",))
    assert watch.ready().rows == 1


async def burst(watch: Watch) -> None:
    """Rows that have drifted, all in one turn of the loop."""
    watch.start()
    await loaded(watch)
    for x in np.split(normal(3_200, 1, 1), 20):
        watch.run({"x": x}, ("y",))
    await asyncio.sleep(0)


async def test_a_burst_is_looked_at_although_nothing_comes_behind_it(tmp_path: Path, profile: Path) -> None:
    watch = watch_of(tmp_path, profile, look_seconds=0.01)
    await burst(watch)
    assert not watch.alarms
    await asyncio.sleep(2 * TICK_SECONDS)
    assert watch.alarms == {"x_0": 1, "x_1": 1, "x_2": 1}
    assert watch.changes == watch.alarms
    watch.close()


async def test_what_came_last_is_looked_at_when_it_ends(tmp_path: Path, profile: Path) -> None:
    watch = watch_of(tmp_path, profile, look_seconds=3_600)
    await burst(watch)
    watch.close()
    assert watch.alarms == {"x_0": 1, "x_1": 1, "x_2": 1}


async def test_the_clock_of_a_version_ends_with_it(tmp_path: Path) -> None:
    """Started again, as at each flip, it is the same; a version that nobody has any more is not kept."""
    watch = watch_of(tmp_path)
    watch.start()
    tick = watch._tick_timer
    watch.start()
    assert watch._tick_timer is tick
    await loaded(watch)
    await asyncio.sleep(2 * TICK_SECONDS)
    assert watch._tick_timer is not tick
    watch.close()
    assert watch._tick_timer.cancelled()
    other = watch_of(tmp_path)
    other.start()
    await loaded(other)
    reference = weakref.ref(other)
    del other
    gc.collect()
    assert reference() is None
