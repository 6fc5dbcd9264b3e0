"""What is counted on a GPU is what is counted here: with the CPU's memory in the GPU's place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from fake_gpu import Cpu, FakeGpu
from monitor.test_slab import same
from onnx_models import identity, scale, with_transform
from waiting import loaded

import driftline as dl
from driftline.config import ServerFile
from driftline.engine import model as engine
from driftline.engine.bundle import Bundle
from driftline.engine.cuda.counter import DeviceCounter
from driftline.engine.model import Model
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile
from driftline.monitor.slab import Collector, slab_bytes
from driftline.registry.source import Version
from driftline.serving.base_host import BaseHost, Entry
from driftline.serving.fleet.worker_watch import WorkerGpuWatch
from driftline.serving.monitoring.notifier import Notifier
from driftline.serving.monitoring.watch import Watch
from driftline.serving.monitoring.watch_gpu import Batch, GpuWatch

ROWS = 4000
OUTPUTS = ("y", "total")


def normal(rows: int, seed: int, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, (rows, 3)).astype(np.float32)


Watched = Callable[..., Any]


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Makes a watch of a model and a profile, here or on the GPU, its monitor loaded."""

    async def make(model: Path, columns: dict[str, np.ndarray] | None, gpu: bool, **settings: Any) -> Watch:
        monkeypatch.setattr(engine, "find", lambda wanted: Cpu() if gpu else None)
        held, profile = Model.load(model), None
        if columns is not None:
            profile = tmp_path / "profile.arrow"
            named = [name for name, array in columns.items() if array.shape[1:] == (3,)]
            names = {name: [f"{letter} of {name}" for letter in "abc"] for name in named}
            Profile.fit(columns, names=names).save(profile)
        by_rows = {"look_rows": 100, "look_seconds": 0.0, "window_seconds": 0.0, **settings}
        monitoring = replace(held.settings.monitor, **by_rows)
        version = Version("m", 1)
        watch = (
            GpuWatch(version, held, profile, monitoring, Notifier())
            if held.copies_inputs
            else Watch(version, held, profile, monitoring, Notifier())
        )
        watch.start()
        await loaded(watch)
        return watch

    return make


def send(watch: Watch, batches: list[np.ndarray]) -> None:
    for x in batches:
        outputs = watch.run({"x": x}, ("y",))
        assert list(outputs) == ["y"]
        np.testing.assert_array_equal(outputs["y"], 2 * x)


def signals(monitor: Monitor) -> list[tuple[object, ...]]:
    return [(one.kind, one.column, one.rows, one.evidence, one.columns) for one in monitor.signals]


@pytest.mark.parametrize("named", [("x",), ("x", *OUTPUTS), ("total",), None])
async def test_a_gpu_counts_and_finds_what_the_cpu_does(
    tmp_path: Path, watched: Watched, named: tuple[str, ...] | None
) -> None:
    """With batches that meet the looks, signals are alike to the bit: counts are all that they hang on."""
    path = scale(tmp_path / "m.onnx", 2.0)
    x = normal(ROWS, 0)
    columns = {"x": x, **Model.load(path).predict(x)}
    reference = {name: columns[name] for name in named} if named is not None else None
    plain, gpu = [await watched(path, reference, gpu, window_rows=3000) for gpu in (False, True)]
    assert gpu._counters is not None
    before = [normal(50, seed) for seed in range(40)]
    after = [normal(50, seed, 0.8) for seed in range(40, 80)]
    for batches in (before, after):
        for watch in (plain, gpu):
            await asyncio.to_thread(send, watch, batches)
        await gpu.catch_up_everywhere()
        assert signals(plain.ready()) == signals(gpu.ready())
        same(gpu.ready(), plain.ready())
    assert bool(gpu.ready().signals) is (named is not None)
    assert gpu.alarms == plain.alarms
    assert gpu.changes == plain.changes
    assert len(gpu.ready()._finished) == 1
    same(gpu.ready(), plain.ready())
    assert gpu.observer.skipped_rows == 0
    for watch in (plain, gpu):
        watch.close()


async def test_behind_a_transform_raw_columns_are_counted(tmp_path: Path, watched: Watched) -> None:
    """Numbers where they lie in registers, strings and whole numbers of few values here."""
    folder = tmp_path / "m"
    folder.mkdir()
    rows = flights_like(ROWS, 0)
    transform = dl.Transform([dl.Impute("a", "median"), dl.Standardise("b"), dl.OneHot(["s", "n"])])
    path = with_transform(folder, transform.fit(rows))
    reference = {**rows, **Model.load(path).predict(rows)}
    plain, gpu = [await watched(path, reference, gpu, window_rows=300) for gpu in (False, True)]
    assert gpu._counters is not None
    for seed in range(1, 9):
        batch = flights_like(50, seed)
        for watch in (plain, gpu):
            await asyncio.to_thread(watch.run, batch, ("y",))
            await watch.catch_up_everywhere()
            assert watch.ready().rows == 50 * seed
    assert gpu.observer.skipped_rows == 0
    assert signals(plain.ready()) == signals(gpu.ready())
    same(gpu.ready(), plain.ready())
    for watch in (plain, gpu):
        watch.close()


def flights_like(rows: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    numbers = random.normal(size=(2, rows))
    numbers[:, ::7] = np.nan
    strings = random.choice(np.array(["a", "b", "ä", None], object), rows)
    return {"a": numbers[0], "b": numbers[1], "s": strings, "n": random.integers(0, 4, rows)}


async def test_a_worker_counts_for_its_supervisor(tmp_path: Path, watched: Watched) -> None:
    """What was counted on a GPU is in the slab when the worker has followed."""
    x = normal(ROWS, 0)
    path = scale(tmp_path / "m.onnx", 2.0)
    expected = (await watched(path, {"x": x}, True)).ready()  # which also wrote the profile
    monitor = Monitor(expected.profile)
    memory = np.zeros(slab_bytes(monitor.words) // 8, np.int64)
    collector, slab = Collector(monitor, memory), Future[Any]()
    model = Model.load(path)
    watch = WorkerGpuWatch(Version("m", 1), model, tmp_path / "profile.arrow", model.settings.monitor, slab)
    slab.set_result(lambda: memory)
    watch.start()
    await loaded(watch)
    assert watch._counters is not None
    await asyncio.to_thread(send, watch, [x[:300], x[:17]])
    assert watch._counters.rows == 317
    for _ in range(6000):
        watch.follow()
        collector.ask()
        collector.collect()
        if monitor.rows == 317:
            break
        await asyncio.sleep(0.01)
    assert monitor.rows == 317
    expected.observe({"x": np.concatenate([x[:300], x[:17]])})
    same(monitor, expected)
    watch.close()


async def test_a_window_waits_for_the_categories_of_its_batches(tmp_path: Path, watched: Watched) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    rows = flights_like(ROWS, 0)
    path = with_transform(folder, dl.Transform([dl.Impute("a", "median"), dl.OneHot("s")]).fit(rows))
    reference = {name: rows[name] for name in "as"}
    watch = await watched(path, reference, True)
    counted, go_on, counters = Event(), Event(), watch._counters
    batch = Batch(counters)

    def slow() -> None:
        watch._model.run({name: rows[name][:40] for name in "as"}, ("y",), batch.count)
        counted.set()
        assert go_on.wait(60)
        batch.settle({name: rows[name][:40] for name in "as"})

    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(slow)
        assert counted.wait(60)
        drained = pool.submit(counters.drain)
        with pytest.raises(TimeoutError):
            drained.result(0.05)
        go_on.set()
        answer.result(60)
        drained.result(60)
    expected = Monitor(watch.ready().profile)
    expected.observe({name: rows[name][:40] for name in "as"})
    same(watch.ready(), expected)
    watch.close()


async def test_counts_stay_there_until_somebody_asks(tmp_path: Path, watched: Watched) -> None:
    x = normal(ROWS, 0)
    watch = await watched(scale(tmp_path / "m.onnx", 2.0), {"x": x}, True, look_rows=1000)
    await asyncio.to_thread(send, watch, [x[:300], x[:17], x[:1]])
    assert watch.observer.monitor.rows == 0
    with watch.capturing(1000) as capture:
        await asyncio.to_thread(send, watch, [x[:200]])
        assert capture.rows == 200
    await watch.catch_up_everywhere()
    assert watch.ready().rows == 518
    await asyncio.to_thread(send, watch, [x[:481]])
    assert watch.observer.monitor.rows == 518
    await asyncio.to_thread(send, watch, [x[:1]])
    assert watch.observer.monitor.rows == 1000
    watch.close()


async def test_a_burst_is_fetched_from_the_gpu_to_be_looked_at(tmp_path: Path, watched: Watched) -> None:
    path, x = scale(tmp_path / "m.onnx", 2.0), normal(ROWS, 0)
    watch = await watched(path, {"x": x}, True, look_rows=0, look_seconds=0.01, window_seconds=1.0)
    await asyncio.to_thread(send, watch, [normal(3_000, 1, 1.0)])
    for _ in range(600):
        if len(watch.alarms) == 3:
            break
        await asyncio.sleep(0.01)
    assert watch.alarms == {"a of x": 1, "b of x": 1, "c of x": 1}
    assert watch._counters.rows == 0
    await asyncio.to_thread(send, watch, [x[:100]])
    for _ in range(600):
        if watch.observer.monitor._finished:
            break
        await asyncio.sleep(0.01)
    assert sum(window.rows for window in watch.observer.monitor._finished) in (3_000, 3_100)
    await asyncio.to_thread(send, watch, [x[:100]])
    watch.close()
    assert watch.observer.monitor is None or watch.observer.monitor.rows == 3_200


async def test_threads_lose_no_row(tmp_path: Path, watched: Watched) -> None:
    x = normal(ROWS, 0)
    watch = await watched(scale(tmp_path / "m.onnx", 2.0), {"x": x}, True)
    await asyncio.gather(*(asyncio.to_thread(send, watch, [x[:31]] * 20) for _ in range(4)))
    await watch.catch_up_everywhere()
    assert watch.ready().rows == 4 * 20 * 31
    expected = Monitor(watch.ready().profile)
    expected.observe({"x": np.concatenate([x[:31]] * 80)})
    same(watch.ready(), expected)
    watch.close()


async def test_what_does_not_cross_is_counted_here(tmp_path: Path, watched: Watched) -> None:
    """Columns that are no numbers; batches whose tensors are of another type than the profile's."""
    text = np.array([["a", "b", "c"]] * 150, object)
    watch = await watched(identity(tmp_path / "s.onnx", "BYTES"), {"x": text}, True)
    assert watch._counters is None
    await asyncio.to_thread(watch.run, {"x": text}, ("y",))
    assert watch.ready().rows == 150
    watch.close()
    half = normal(150, 0).astype(np.float16)
    watch = await watched(identity(tmp_path / "h.onnx", "FP16"), {"x": half}, True)
    assert watch._counters is not None
    await asyncio.to_thread(watch.run, {"x": half}, ("y",))
    assert watch._counters.rows == 0
    assert watch.ready().rows == 150
    watch.close()


async def test_a_failing_count_fails_no_request(
    tmp_path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = normal(ROWS, 0)
    watch = await watched(scale(tmp_path / "m.onnx", 2.0), {"x": x}, True)

    def fail(*arguments: object) -> bool:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(DeviceCounter, "count", fail)
    await asyncio.to_thread(send, watch, [x[:50]])
    assert watch.observer.skipped_rows == 50
    assert watch.ready().rows == 0
    watch.close()


def test_a_model_on_a_gpu_is_watched_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = scale(tmp_path / "m.onnx", 2.0)
    host, bundle = BaseHost(ServerFile(), Notifier(), None), Bundle.open(path)
    assert type(host._watch(Version("m", 1), Model(bundle), bundle)) is Watch
    monkeypatch.setattr(engine, "find", lambda wanted: Cpu())
    assert type(host._watch(Version("m", 1), Model(bundle), bundle)) is GpuWatch


async def test_a_version_that_retires_gives_the_gpu_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, gpu = scale(tmp_path / "m.onnx", 2.0), FakeGpu()
    monkeypatch.setattr(engine, "find", lambda wanted: gpu)

    class Alone(BaseHost):
        def _folder(self, version: Version) -> Path:
            return path

    host, entry = Alone(ServerFile(), Notifier(), None), Entry("m")
    held = [await host._make_served(entry, Version("m", 1))]
    watch, sessions = held[0].watch, held[0].model.device_sessions
    assert isinstance(watch, GpuWatch)
    watch.start()
    await loaded(watch)
    await asyncio.to_thread(send, watch, [normal(50, 0)])
    assert watch._counters is not None
    assert gpu.held > 0
    entry.unloading.extend(held)
    watch = None
    await host._retire(entry, held.pop())
    assert sessions  # nobody waits until it is collected
    assert gpu.held == 0
