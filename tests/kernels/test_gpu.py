"""The way of a batch over a GPU, in Numba's simulator: its memory is the CPU's, as ONNX Runtime is told."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from naive_kernels import SIMULATED, back
from numba import typeof
from numba.cuda.simulator.kernel import FakeCUDAKernel
from onnx_models import scale, with_transform

import driftline as dl
from driftline.engine import model as engine
from driftline.engine.cuda.counter import CategoryCounts, DeviceCounter
from driftline.engine.cuda.device import Gpu
from driftline.engine.cuda.session import DeviceBuffers
from driftline.engine.model import Model
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile
from driftline_kernels.ahead_of_time import SIGNATURES

pytestmark = pytest.mark.skipif(not SIMULATED, reason="there may be no GPU")


@pytest.fixture(autouse=True)
def precompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever is launched here is compiled when an image is built."""
    launched: set[tuple[str, tuple[Any, ...]]] = set()
    run = FakeCUDAKernel.__call__

    def recorded(self: Any, *arguments: Any) -> None:
        module = self.fn.__module__.rpartition(".")[2]
        launched.add((f"{module}.{self.fn.__name__}", tuple(map(typed, arguments))))
        run(self, *arguments)

    monkeypatch.setattr(FakeCUDAKernel, "__call__", recorded)
    yield
    for name, signature in launched:
        assert signature in SIGNATURES[name], (name, signature)


def typed(argument: Any) -> Any:
    """What Numba takes an argument for."""
    if isinstance(argument, (bool, int)):
        return typeof(argument)
    return typeof(argument._ary).copy(readonly=False)


class Simulated(Gpu):
    memory = "cpu"

    def address(self, array: Any) -> int:
        return int(array._ary.ctypes.data)


@pytest.mark.filterwarnings("ignore:Simulator timings are bogus")
def test_a_model_on_a_gpu_gives_what_it_gives_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scale(tmp_path / "m.onnx", 2.0)
    plain = Model.load(path)
    monkeypatch.setattr(engine, "find", lambda wanted: Simulated(0))
    model = Model.load(path)
    model.warm_up()
    for rows in (0, 1, 5, 300):
        x = np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)
        for name, array in plain.predict(x).items():
            np.testing.assert_array_equal(model.predict(x)[name], array)
    assert len([each for each in model.device_sessions[0]._buffers.values() if each]) > 3


def alike(monitor: Monitor, expected: Monitor) -> None:
    result, wanted = monitor.current()[0], expected.current()[0]
    assert result.rows == wanted.rows
    for name, counts in wanted.counts.items():
        np.testing.assert_array_equal(result.counts[name], counts)
    for name, moments in wanted.moments.items():
        np.testing.assert_allclose(result.moments[name], moments, rtol=1e-6)
    np.testing.assert_allclose(result.features, wanted.features, rtol=1e-4, atol=1e-4)


def count(counter: DeviceCounter, counted: list[CategoryCounts], buffers: DeviceBuffers, rows: int) -> None:
    categories = counter.count(buffers, rows)
    assert categories is not None
    counted.append(categories)


@pytest.mark.filterwarnings("ignore:Simulator timings are bogus", "ignore::RuntimeWarning")
@pytest.mark.parametrize("names", [("x",), ("x", "total")])
def test_what_crosses_to_a_gpu_is_counted_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    monkeypatch.setattr(engine, "find", lambda wanted: Simulated(0))
    model = Model.load(scale(tmp_path / "m.onnx", 2.0))
    model.warm_up()
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    columns = {"x": x, "total": 2 * x.sum(1)}
    profile = Profile.fit({name: columns[name] for name in names})
    monitor, expected = Monitor(profile), Monitor(profile)
    counter = DeviceCounter.of(model.device_sessions[0], monitor)
    np.testing.assert_array_equal(back(counter._parts.centres), profile.whole.scaling[:, 0])
    for rows in (5, 8):
        counted: list[CategoryCounts] = []
        model.run({"x": x[:rows]}, ["total"], partial(count, counter, counted))
        (categories,) = counted
        categories.settle({})
        expected.observe({name: columns[name][:rows] for name in names})
    assert (counter.rows, monitor.rows) == (13, 0)
    counter.drain()
    assert (counter.rows, monitor.rows) == (0, 13)
    alike(monitor, expected)


@pytest.mark.filterwarnings("ignore:Simulator timings are bogus", "ignore::RuntimeWarning")
def test_features_are_made_on_a_gpu_and_raw_columns_counted_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [
        dl.Impute("x", "median", indicator=True),
        dl.Standardise("x"),
        dl.Cyclic("h", 24),
        dl.Hash("s", 7, into="hashed"),
        dl.OneHot("s"),
    ]
    rows = {
        "x": np.array([1.5, np.nan, -2, 7, 1e9]),
        "h": np.arange(5.0),
        "s": np.array(["a", None, "b", "never", ""], object),
    }
    transform = dl.Transform(steps).fit({**rows, "s": np.array(["a", "b", "", "a", None], object)})
    monkeypatch.setattr(engine, "find", lambda wanted: Simulated(0))
    model = Model.load(with_transform(tmp_path, transform))
    profile = Profile.fit({name: np.tile(rows[name], 20) for name in "xh"})
    monitor, expected = Monitor(profile), Monitor(profile)
    counter = DeviceCounter.of(model.device_sessions[0], monitor)
    for number in (1, 5):
        batch = {name: column[:number] for name, column in rows.items()}
        counted: list[CategoryCounts] = []
        result = model.run(batch, ["y"], partial(count, counter, counted))["y"]
        assert result.tobytes() == transform.apply(batch).tobytes()
        (categories,) = counted
        categories.settle(batch)
        expected.observe(batch)
    assert len(model.device_sessions[0].buffers) == 2
    counter.drain()
    alike(monitor, expected)


def test_a_gpu_is_loaded_on_held_alone_and_its_memory_given_back() -> None:
    gpu = Gpu(0)
    with gpu.loading():
        array = gpu.empty((4,), np.float32)
    with gpu.exclusive() as held:
        assert held
    del array
    gpu.give_back()
    gpu.give_back()  # nothing is left to give


def test_a_gpu_is_not_asked_whether_it_is_lost_while_a_graph_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu, recording, seen = Gpu(0), True, []
    monkeypatch.setattr(gpu._stream, "synchronize", lambda: seen.append(recording), raising=False)
    asking = Thread(target=gpu.failure)
    with gpu.exclusive():
        asking.start()
        asking.join(0.1)
        recording = False
    asking.join()
    assert seen == [False]
