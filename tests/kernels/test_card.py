"""The way of a batch over a card, in Numba's simulator: its memory is the CPU's, as ONNX Runtime is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from naive_kernels import SIMULATED
from support import scale

from driftline.engine import model as engine
from driftline.engine.device import Card
from driftline.engine.model import Model

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
