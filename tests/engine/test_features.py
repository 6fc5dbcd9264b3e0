"""A model behind a transform, before Numba is loaded and after."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import driftline as dl
from driftline.engine.features import Features
from driftline.engine.model import Model
from driftline.errors import ModelError
from driftline.tensors import DATATYPES, Signature, TensorSpec

WARM = """
import sys
from driftline_kernels import compiling
compiling.interpret()
from driftline.engine.model import Model
model = Model.load(sys.argv[1])
empty = model.warm_up()
rows = {"x": [1.5, None], "s": ["a", "c"], "t": ["2024-02-29", None]}
first = model.predict(rows)["y"].tobytes()
print(compiling.interpreted(), model.warm, empty.predict(9), "numba" in sys.modules)
compiling.load()
known = model.warm_up().predict(9)
print(model.warm, 0 < known < 1e9, model.predict(rows)["y"].tobytes() == first)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    columns = {"x": [1.0, 2.0, 4.0], "s": ["a", "b", "a"], "t": ["2024-01-01", "2024-01-02", "2024-05-02"]}
    steps = [dl.Standardise("x"), dl.Hash("s", 7, into="h"), dl.OneHot("s"), dl.DatePart("t", "month")]
    transform = dl.Transform(steps).fit(columns)
    transform.save(tmp_path / "transform.json")
    shape = ["N", transform.width]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["m"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("m", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path


def test_it_answers_before_numba_is_loaded_and_is_warmed_again_when_it_is(folder: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", WARM, folder]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.stdout.splitlines() == ["True False inf False", "True True True"], run.stderr


def test_it_is_warmed_with_columns_that_can_be_read(folder: Path) -> None:
    model = Model.load(folder)
    cost = model.warm_up()
    assert model.warm
    assert np.isfinite(cost.predict(1))
    assert model.unreadable == {}


@pytest.mark.parametrize(
    ("known", "good"), [((), True), (("a", "b"), True), (("b", "a"), False), (("b", "c"), True)]
)
def test_columns_that_the_model_knows_in_another_order_are_refused(
    tmp_path: Path, known: tuple[str, ...], good: bool
) -> None:
    path = tmp_path / "transform.json"
    rows = {"a": [1.0, 2.0], "b": [1.0, 3.0]}
    dl.Transform([dl.Standardise("a"), dl.Standardise("b")]).fit(rows).save(path)
    matrix = TensorSpec("m", DATATYPES["FP32"], (-1, 2), column_names=known)
    model = Signature((matrix,), (), batched=True)
    if good:
        assert Features.of(path, model).transform.outputs == ("a", "b")
    else:
        with pytest.raises(ModelError, match=r"columns in the model's order, b, a, got a, b$"):
            Features.of(path, model)
