"""The way of a batch over a card, in Numba's simulator: its memory is the CPU's, as ONNX Runtime is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from naive_kernels import SIMULATED
from support import behind, scale

import driftline as dl
from driftline.engine import model as engine
from driftline.engine.device import Card
from driftline.engine.model import Model
from driftline.engine.tally import Tally
from driftline.monitor.monitor import Monitor
from driftline.monitor.profile import Profile

pytestmark = pytest.mark.skipif(not SIMULATED, reason="there may be no card")


class Simulated(Card):
    memory = "cpu"

    def address(self, array: Any) -> int:
        return int(array._ary.ctypes.data)


@pytest.mark.filterwarnings("ignore:Simulator timings are bogus")
def test_a_model_on_a_card_gives_what_it_gives_on_the_cpu(
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
    assert model.lane is not None
    assert len([form for form in model.lane._forms.values() if form]) > 3


@pytest.mark.filterwarnings("ignore:Simulator timings are bogus")
@pytest.mark.parametrize("names", [("x",), ("x", "total")])
def test_what_crosses_to_a_card_is_counted_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    monkeypatch.setattr(engine, "find", lambda wanted: Simulated(0))
    model = Model.load(scale(tmp_path / "m.onnx", 2.0))
    assert model.lane is not None
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    columns = {"x": x, "total": 2 * x.sum(1)}
    profile = Profile.fit({name: columns[name] for name in names})
    monitor, expected = Monitor(profile), Monitor(profile)
    tally = Tally.of(model.lane, monitor, names)
    assert tally is not None
    for rows in (5, 8):
        model.lane.run({"x": x[:rows]}, ["total"], tally.count)
        expected.observe({name: columns[name][:rows] for name in names})
    assert (tally.rows, monitor.rows) == (13, 0)
    tally.drain()
    assert (tally.rows, monitor.rows) == (0, 13)
    found, wanted = monitor._window(), expected._window()
    for name, counts in wanted.counts.items():
        np.testing.assert_array_equal(found.counts[name], counts)
    for name, moments in wanted.moments.items():
        np.testing.assert_allclose(found.moments[name], moments, rtol=1e-6)
    np.testing.assert_allclose(found.features, wanted.features, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Simulator timings are bogus", "ignore::RuntimeWarning")
def test_features_are_made_on_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [
        dl.Impute("x", "median", indicator=True),
        dl.Standardise("x"),
        dl.Cyclic("h", 24),
        dl.Hash("s", 7, into="hashed"),
        dl.OneHot("s"),
    ]
    rows = {
        "x": np.array([1.5, np.nan, -2, 7, 1e9]),
        "h": np.arange(5),
        "s": np.array(["a", None, "b", "never", ""], object),
    }
    transform = dl.Transform(steps).fit({**rows, "s": np.array(["a", "b", "", "a", None], object)})
    monkeypatch.setattr(engine, "find", lambda wanted: Simulated(0))
    model = Model.load(behind(tmp_path, transform))
    assert model.lane is not None
    for number in (1, 5):
        some = {name: column[:number] for name, column in rows.items()}
        assert model.run(some, ["y"])["y"].tobytes() == transform.apply(some).tobytes()
    assert len(model.lane.forms) == 2
