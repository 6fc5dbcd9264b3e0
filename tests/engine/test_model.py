from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from onnx import TensorProto, helper
from onnx_models import gather, identity, save_model, scale, with_transform

import driftline
from driftline.engine.model import Model, zeros
from driftline.errors import BadRequest, ConfigError, ModelError
from driftline.tensors import DATATYPES, Tensors, TensorSpec

FLOAT = TensorProto.FLOAT


def with_settings(model: Path, toml: str) -> Path:
    """The folder of `model.onnx`, with settings."""
    (model.parent / "driftline.toml").write_text(toml)
    return model.parent


def unique(path: Path) -> Path:
    """Gives the rows that differ; its signature looks like that of a model that gives a row for a row."""
    return save_model(
        path,
        [helper.make_node("Unique", ["x"], ["y"], axis=0)],
        {"x": (FLOAT, ("N", 1))},
        {"y": (FLOAT, (None, 1))},
    )


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every batch that runs."""
    rows: list[int] = []
    run = Model.run

    def counting(self: Model, inputs: Tensors, outputs: Any) -> Tensors:
        rows.append(next(iter(inputs.values())).shape[0])
        return run(self, inputs, outputs)

    monkeypatch.setattr(Model, "run", counting)
    return rows


# -- load ---------------------------------------------------------------------------------------


def test_a_model_is_loaded_from_a_folder_or_a_file(tmp_path: Path) -> None:
    path = scale(tmp_path / "model.onnx", 2)
    for where in (path, str(path), tmp_path, str(tmp_path)):
        outputs = driftline.Model.load(where).predict([[1, 2, 3]])
        assert {name: array.tolist() for name, array in outputs.items()} == {"y": [[2, 4, 6]], "total": [12]}


def test_a_model_shows_what_it_takes_and_gives(tmp_path: Path) -> None:
    assert repr(driftline.Model.load(scale(tmp_path / "model.onnx", 2))) == "Model(x -> y, total)"


def test_what_can_not_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="none: expected"):
        Model.load(tmp_path / "none")
    path = scale(tmp_path / "model.onnx", 2)
    with pytest.raises(ConfigError, match=r"driftline\.toml: engine\.device = 'tpu'"):
        Model.load(with_settings(path, "[engine]\ndevice = 'tpu'"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an ONNX model, got an empty file"),
        (b"junk" * 300, "expected an ONNX model, got 1,200 bytes that are not one, or not all of one"),
    ],
)
def test_a_file_that_is_no_model_is_said_to_be_none(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        Model.load(path)
    assert str(caught.value) == f"{path}: {message}"


def test_what_onnx_runtime_lacks_is_said_without_its_codes(tmp_path: Path) -> None:
    path = scale(tmp_path / "model.onnx", 2)
    model = onnx.load(path)
    model.ir_version = 99
    onnx.save(model, path)
    with pytest.raises(ModelError) as caught:
        Model.load(path)
    assert str(caught.value).startswith(
        f"{path}: ONNX Runtime can't load it: Unsupported model IR version: 99, max supported IR version: "
    )
    model.ir_version = 8
    model.graph.node[0].domain = "com.example"
    onnx.save(model, path)
    with pytest.raises(ModelError) as caught:
        Model.load(path)
    assert str(caught.value).startswith(f"{path}: ONNX Runtime can't load it: ")
    assert "com.example" in str(caught.value)


# -- predict ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "expected"), [(0, [0]), (1, [1]), (4, [4]), (5, [4, 1]), (8, [4, 4]), (11, [4, 4, 3])]
)
def test_rows_of_any_number_are_computed_in_batches(
    tmp_path: Path, batches: list[int], rows: int, expected: list[int]
) -> None:
    path = scale(tmp_path / "model.onnx", 2)
    model = Model.load(with_settings(path, "[batching]\nmax_batch_rows = 4"))
    x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    outputs = model.predict({"x": x})
    assert batches == expected
    assert np.array_equal(outputs["y"], 2 * x)
    np.testing.assert_allclose(outputs["total"], (2 * x).sum(axis=1), rtol=1e-5)


def test_strings_are_computed_in_batches(tmp_path: Path) -> None:
    path = identity(tmp_path / "model.onnx", "BYTES", ("N", 1))
    model = Model.load(with_settings(path, "[batching]\nmax_batch_rows = 2"))
    texts = [["a"], [""], ["é\0"], ["d"], ["e"]]
    assert model.predict(texts)["y"].tolist() == texts


def test_raw_columns_may_have_others_beside_them(tmp_path: Path) -> None:
    scale(tmp_path / "model.onnx", 2, width=1)
    dl = driftline
    dl.Transform([dl.Standardise("a")]).fit({"a": [1.0, 3.0]}).save(tmp_path / "transform.json")
    frame = pd.DataFrame({"a": [1.0, 3.0], "mixed": [1, "a"]})
    model = Model.load(tmp_path)
    assert model.predict(frame)["y"].tolist() == [[-2], [2]]
    with pytest.raises(BadRequest, match=r"column 'a': the model takes the columns a; got mixed$"):
        model.predict(frame[["mixed"]])


@pytest.mark.parametrize("kind", [np.asarray, pd.Series])
def test_columns_by_name_stand_upright(tmp_path: Path, kind: Any) -> None:
    """As converted pipelines have them: an input of one column for each column."""
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    path = save_model(
        tmp_path / "model.onnx",
        nodes,
        {"a": (FLOAT, (None, 1)), "b": (FLOAT, (None, 1))},
        {"y": (FLOAT, (None, 1))},
    )
    predictions = Model.load(path).predict({"a": kind([1.0, 2.0]), "b": np.array([[3], [4]])})
    assert predictions["y"].tolist() == [[4], [6]]


def test_without_batches_requests_run_whole(tmp_path: Path, batches: list[int]) -> None:
    path = scale(tmp_path / "model.onnx", 2)
    model = Model.load(with_settings(path, "[batching]\nmax_batch_rows = 0"))
    assert not model.signature.batched
    model.predict(np.zeros((1000, 3)))
    assert batches == [1000]


@pytest.mark.parametrize("outputs", [None, ["y", "total"], ["total"], ("total", "y")])
def test_outputs_are_chosen_by_name(tmp_path: Path, outputs: Any) -> None:
    path = scale(tmp_path / "model.onnx", 2)
    model = Model.load(with_settings(path, "[batching]\nmax_batch_rows = 2"))
    for rows in (1, 5):
        assert list(model.predict(np.ones((rows, 3)), outputs)) == list(outputs or ["y", "total"])
        assert list(model.predict(np.ones((rows, 3)), "total")) == ["total"]


@pytest.mark.parametrize(
    ("columns", "outputs", "message"),
    [
        ([[1, 2, 3]], ["u"], r"output 'u': the model has no such output; it has: y, total"),
        ([[1, 2, 3]], ["y", 5], r"output 5: the model has no such output; it has: y, total"),
        ([[1, 2]], None, r"input 'x': expected shape \[-1, 3\], got \[1, 2\]"),
        ({"u": []}, None, r"input 'u': the model has no such input; it has: x"),
        ([["1", 2, 3]], None, r"input 'x': expected FP32 values, got '1' \(string\) at position 0"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, columns: object, outputs: Any, message: str) -> None:
    model = Model.load(scale(tmp_path / "model.onnx", 2))
    with pytest.raises(BadRequest, match=f"^{message}"):
        model.predict(columns, outputs)


@pytest.mark.parametrize(
    ("columns", "came"),
    [
        ({"x": np.zeros((2, 2))}, "x_0, x_1"),
        ({"distance": [1.0]}, "distance"),
        (pd.DataFrame({"Distance": [1.0], "carrier": ["a"]}), "Distance, carrier"),
        ({}, "none"),
    ],
)
def test_raw_columns_that_do_not_come_are_named(tmp_path: Path, columns: object, came: str) -> None:
    steps = [driftline.Pass("distance"), driftline.OneHot("carrier")]
    transform = driftline.Transform(steps).fit({"distance": [1.0, 2.0], "carrier": ["a", "b"]})
    model = Model.load(with_transform(tmp_path, transform))
    assert model.predict({"more": [0], "carrier": ["b"], "distance": [3]})["y"].tolist() == [[3, 0, 1]]
    with pytest.raises(BadRequest) as caught:
        model.predict(columns)
    assert str(caught.value).endswith(f": the model takes the columns distance, carrier; got {came}")


def test_a_model_without_inputs_predicts(tmp_path: Path) -> None:
    node = helper.make_node("RandomNormal", [], ["y"], shape=[2, 3])
    model = Model.load(save_model(tmp_path / "model.onnx", [node], {}, {"y": (FLOAT, (None, 3))}))
    assert model.predict({})["y"].shape == (2, 3)
    model.warm_up()


def test_inputs_must_agree_in_rows(tmp_path: Path) -> None:
    path = save_model(
        tmp_path / "model.onnx",
        [helper.make_node("Add", ["a", "b"], ["y"])],
        {"a": (FLOAT, ("N",)), "b": (FLOAT, ("N",))},
        {"y": (FLOAT, ("N",))},
    )
    with pytest.raises(BadRequest, match=r"^input 'b': expected 2 rows as in input 'a', got 3"):
        Model.load(path).predict({"a": [1, 2], "b": [1, 2, 3]})


# -- warm up ------------------------------------------------------------------------------------


def test_every_batch_size_is_warmed_and_measured(tmp_path: Path, batches: list[int]) -> None:
    path = scale(tmp_path / "model.onnx", 2)
    model = Model.load(with_settings(path, "[batching]\nmax_batch_rows = 5"))
    assert Model.load(path).signature == model.signature
    cost = model.warm_up()
    assert batches == [1, 1, 2, 2, 4, 4, 5, 5]
    assert all(0 < cost.predict(3 * rows) < float("inf") for rows in (1, 2, 4, 5))
    assert model.signature.batched


@pytest.mark.parametrize("most", [1, 4])
def test_a_model_that_gives_no_row_for_a_row_is_not_batched(tmp_path: Path, most: int) -> None:
    path = unique(tmp_path / "model.onnx")
    model = Model.load(with_settings(path, f"[batching]\nmax_batch_rows = {most}"))
    assert model.signature.batched
    model.warm_up()
    assert not model.signature.batched
    assert model.predict([[7], [8], [9], [9], [8], [7]])["y"].tolist() == [[7], [8], [9]]


def test_a_model_that_is_not_batched_is_warmed_once(tmp_path: Path, batches: list[int]) -> None:
    model = Model.load(identity(tmp_path / "model.onnx", "FP32", (2, 3)))
    cost = model.warm_up()
    assert batches == [2, 2]
    assert cost.predict(6) < float("inf")


def test_a_model_that_can_not_compute_zeros_meets_its_first_batch_cold(tmp_path: Path) -> None:
    path = save_model(
        tmp_path / "model.onnx",
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        {"x": (FLOAT, ("N", 1, "W"))},
        {"y": (FLOAT, ("N", 1, "V"))},
        {"w": np.ones((1, 1, 3), np.float32)},
    )
    model = Model.load(path)
    assert model.warm_up().predict(1) == float("inf")
    assert model.predict(np.ones((2, 1, 4)))["y"].tolist() == [[[3, 3]], [[3, 3]]]


def test_indices_of_zero_and_empty_strings_are_warmed(tmp_path: Path) -> None:
    for path in (gather(tmp_path / "i.onnx"), identity(tmp_path / "s.onnx", "BYTES", ("N", "M"))):
        assert Model.load(path).warm_up().predict(1) < float("inf")


@pytest.mark.parametrize("datatype", DATATYPES)
def test_zeros_have_the_shape_and_type_of_a_spec(datatype: str) -> None:
    array = zeros(TensorSpec("x", DATATYPES[datatype], (-1, 2, -1)), 3)
    assert (array.shape, array.dtype) == ((3, 2, 1), DATATYPES[datatype].dtype)
    assert not array.any()
    assert zeros(TensorSpec("x", DATATYPES[datatype], (4, -1)), 3).shape == (4, 1)
    assert zeros(TensorSpec("x", DATATYPES[datatype], ()), 3).shape == ()


@pytest.mark.parametrize("form", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "arrow"])
def test_tables_are_matched_by_column(form: Any, tmp_path: Path) -> None:
    several = save_model(
        tmp_path / "several.onnx",
        [helper.make_node("Add", ["a", "b"], ["y"]), helper.make_node("Identity", ["s"], ["t"])],
        {"a": (FLOAT, ("N", 1)), "b": (FLOAT, ("N", 1)), "s": (TensorProto.STRING, ("N", 1))},
        {"y": (FLOAT, ("N", 1)), "t": (TensorProto.STRING, ("N", 1))},
    )
    outputs = Model.load(several).predict(form({"s": ["u", "v"], "b": [1, 2], "a": [0.5, 1.5]}))
    assert outputs["y"].tolist() == [[1.5], [3.5]]
    assert outputs["t"].tolist() == [["u"], ["v"]]
    with pytest.raises(BadRequest, match="input 'b': expected a column of this name; the data has 2: s, a"):
        Model.load(several).predict(form({"s": ["u"], "a": [0.5]}))
    one = Model.load(scale(tmp_path / "one.onnx", 2.0))
    result = one.predict(form({"alcohol": [1.0, 2.0], "ash": [3, 4], "x_2": [5.0, 6.0]}))["y"]
    assert result.tolist() == [[2, 6, 10], [4, 8, 12]]
