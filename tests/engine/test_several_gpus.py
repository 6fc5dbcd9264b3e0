"""Several GPUs, with the CPU's memory in the place of each."""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeGpu
from monitor.test_slab import same
from onnx_models import scale, with_transform

import driftline as dl
from driftline.config import ServerFile
from driftline.engine import model as engine
from driftline.engine.bundle import Bundle
from driftline.engine.cuda.counter import CategoryCounts, DeviceCounter, DeviceCounters
from driftline.engine.cuda.load_balancer import LoadBalancer
from driftline.engine.cuda.session import DeviceSession, OnComputed
from driftline.engine.model import Model
from driftline.engine.session import Session
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile
from driftline.registry.source import Version
from driftline.serving.base_host import BaseHost
from driftline.serving.monitoring.notifier import Notifier
from driftline.serving.monitoring.watch_gpu import GpuWatch
from driftline.tensors import Tensors

ROW = {"x": np.ones((1, 3), np.float32)}


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[FakeGpu]:
    """The GPUs that models find from here on, in the order in which they do."""
    result: list[FakeGpu] = []

    def find(name: str) -> FakeGpu:
        result.append(FakeGpu(name))
        return result[-1]

    monkeypatch.setattr(engine, "find", find)
    return result


def two_gpus(folder: Path) -> Bundle:
    scale(folder / "model.onnx", 2.0)
    (folder / "driftline.toml").write_text("[engine]\ndevice = 'cuda:1,0'\n[batching]\nmax_batch_rows = 16\n")
    return Bundle.open(folder)


def test_a_batch_goes_to_the_gpu_with_the_fewest_under_way_or_the_next(tmp_path: Path) -> None:
    path, devices = scale(tmp_path / "m.onnx", 2.0), [FakeGpu("cuda:0"), FakeGpu("cuda:1")]
    sessions = [DeviceSession(device, Session(path)) for device in devices]
    balancer = LoadBalancer(sessions)
    for _ in range(3):
        balancer.run(ROW, ["y"])
    assert [device.batches for device in devices] == [2, 1]
    meet = Barrier(4)

    def compute(number: int) -> Tensors:
        answer = balancer.run({"x": np.full((2, 3), number, np.float32)}, ["y"])
        assert (answer["y"] == 2 * number).all()
        return answer

    for session in sessions:  # four batches are under way at once, wherever they are
        session.run = meeting(session, meet)  # type: ignore[method-assign]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(compute, range(4)))
    assert [device.batches for device in devices] == [4, 3]


def meeting(session: DeviceSession, meet: Barrier):  # type: ignore[no-untyped-def]
    run = session.run

    def wait(inputs: Tensors, outputs: list[str], on_computed: OnComputed | None) -> Tensors:
        meet.wait(60)
        return run(inputs, outputs, on_computed)

    return wait


def test_a_gpu_that_fails_is_free_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, devices = scale(tmp_path / "m.onnx", 2.0), [FakeGpu("cuda:0"), FakeGpu("cuda:1")]
    first, second = (DeviceSession(device, Session(path)) for device in devices)
    balancer = LoadBalancer([first, second])

    def fail(*_: object) -> Tensors:
        raise RuntimeError("fallen off the bus")

    with monkeypatch.context() as broken:
        broken.setattr(first, "run", fail)
        with pytest.raises(RuntimeError, match="bus"):
            balancer.run(ROW, ["y"])
    for _ in range(4):
        balancer.run(ROW, ["y"])
    assert [device.batches for device in devices] == [2, 2]


def test_a_model_runs_on_all_the_gpus_that_its_settings_name(tmp_path: Path, gpus: list[FakeGpu]) -> None:
    model = Model(two_gpus(tmp_path))
    assert [gpu.name for gpu in gpus] == ["cuda:1", "cuda:0"]
    assert (len(model.device_sessions), model.copies_inputs, model.runs_elsewhere) == (2, True, True)
    model.warm_up()
    for session in model.device_sessions:
        assert [buffers.rows for buffers in session.buffers] == [1, 2, 4, 8, 16]
    x = np.arange(120, dtype=np.float32).reshape(40, 3)
    np.testing.assert_array_equal(model.predict(x)["y"], 2 * x)


def test_features_are_made_on_all_the_gpus(tmp_path: Path, gpus: list[FakeGpu]) -> None:
    rows = {"a": np.arange(8.0), "s": np.array(list("abcabcab"), object)}
    transform = dl.Transform([dl.Standardise("a"), dl.OneHot("s")]).fit(rows)
    with_transform(tmp_path, transform)
    (tmp_path / "driftline.toml").write_text("[engine]\ndevice = 'cuda:0,1'\n")
    model = Model.load(tmp_path)
    model.warm_up()
    for session, gpu in zip(model.device_sessions, gpus, strict=True):
        before = gpu.batches
        assert session.run(rows, ["y"])["y"].tobytes() == transform.apply(rows).tobytes()
        assert gpu.batches == before + 1


def settled(categories: CategoryCounts | None, columns: Tensors) -> None:
    assert categories is not None
    categories.settle(columns)


def test_what_goes_to_several_gpus_is_counted_on_each(tmp_path: Path, gpus: list[FakeGpu]) -> None:
    bundle = two_gpus(tmp_path)
    host = BaseHost(ServerFile(), Notifier(), None)
    model = Model(bundle)
    assert type(host._watch(Version("m", 1), model, bundle)) is GpuWatch
    x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    monitor, expected = (Monitor(Profile.fit({"x": x})) for _ in range(2))
    counters = DeviceCounters.of(model.device_sessions, monitor)
    assert counters is not None
    for number, session in enumerate((*model.device_sessions, model.device_sessions[0])):
        batch = {"x": x[number * 10 : number * 10 + 7]}
        session.run(batch, ["y"], lambda *computed, batch=batch: settled(counters.count(*computed), batch))
        expected.observe(batch)
    assert (counters.rows, monitor.rows) == (21, 0)
    counters.drain()
    assert (counters.rows, monitor.rows) == (0, 21)
    same(monitor, expected)


class Late(FakeGpu):
    """Copies when it is waited for, as CUDA may; until then, what is copied has to be there."""

    def __init__(self) -> None:
        super().__init__()
        self.queued: list[weakref.ref[np.ndarray]] = []
        self.kept = True

    def copy_in(self, source: np.ndarray, target: Any) -> None:
        self.queued.append(weakref.ref(source if source.base is None else source.base))
        super().copy_in(source, target)

    def wait(self, mark: Any) -> None:
        self.kept &= all(source() is not None for source in self.queued)
        self.queued.clear()


def test_what_a_counter_sends_is_kept_until_it_is_there(tmp_path: Path) -> None:
    gpu = Late()
    session = DeviceSession(gpu, Session(scale(tmp_path / "m.onnx", 2.0)))
    session.run(ROW, ["y", "total"])
    gpu.kept = True
    # In two blocks, so they are moved.
    both = {"x": np.ones((200, 3), np.float32), "total": np.ones(200, np.float32)}
    counter = DeviceCounter.of(session, Monitor(Profile.fit(both)))
    session.run(ROW, ["y", "total"], lambda *computed: settled(counter.count(*computed), {}))
    counter.drain()
    assert gpu.kept
