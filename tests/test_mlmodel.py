"""What an MLmodel says is read as MLflow wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.errors import ModelError
from driftline.mlmodel import Column, ColumnType, MlflowSignature, MlModel, Tensor

LONG, TEXT = {"type": "long"}, {"type": "string"}


def signature(**parts: Any) -> MlflowSignature:
    return MlflowSignature.parse({key: json.dumps(value) for key, value in parts.items()}, "MLmodel")


def test_columns_have_names_types_and_may_be_optional() -> None:
    inputs = [{**LONG, "name": "age", "required": True}, {**TEXT, "name": "city", "required": False}]
    assert signature(inputs=inputs).inputs == (
        Column("age", ColumnType("long")),
        Column("city", ColumnType("string"), required=False),
    )


def test_columns_nest() -> None:
    properties = {"x": {**LONG, "required": False}, "y": {"type": "map", "values": TEXT}}
    nested = {"type": "array", "items": {"type": "object", "properties": properties}, "name": "points"}
    (column,) = signature(inputs=[nested]).inputs
    assert str(column) == "points: array<object{x: long (optional), y: map<string>}>"


def test_tensors_and_params() -> None:
    tensor = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 30]}}
    params = [{"name": "t", "type": "float", "default": 0.5, "shape": None}]
    params += [{"name": "k", "dtype": "long", "default": [1], "shape": [-1]}]  # type: ignore[list-item]
    parsed = signature(inputs=[tensor], params=params)
    assert parsed.inputs == (Tensor(None, np.dtype("float32"), (-1, 30)),)
    assert [(one.name, one.type.name, one.default, one.shape) for one in parsed.params] == [
        ("t", "float", 0.5, None),
        ("k", "long", [1], (-1,)),
    ]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("nothing", "expected the JSON of a list"),
        ("[1]", "expected the JSON of a list"),
        ('[{"type": "quaternion"}]', "expected a type such as boolean"),
        ('[{"type": "array"}]', "expected a type such as boolean"),
        (
            '[{"type": "tensor", "tensor-spec": {"dtype": "float33", "shape": []}}]',
            "expected dtype and shape",
        ),
        ('[{"type": "tensor", "tensor-spec": {"dtype": "int8", "shape": [-2]}}]', "expected dtype and shape"),
        ('[{"type": "long"}, {"type": "tensor"}]', "got both"),
        ('[{"type": "long", "name": "a"}, {"type": "long", "name": "a"}]', "expected different names"),
        ('[{"type": "long", "name": "a"}, {"type": "long"}]', "expected different names"),
    ],
)
def test_a_wrong_schema_is_refused(inputs: str, message: str) -> None:
    with pytest.raises(ModelError, match=rf"^MLmodel: signature\.inputs: .*{message}|{message}"):
        MlflowSignature.parse({"inputs": inputs}, "MLmodel")


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "MLmodel"
    path.write_text(
        "flavors:\n  onnx: {data: model.onnx}\nrun_id: abc\nmodel_id: m-1\nmetadata: {team: a}\n"
        "saved_input_example_info: {artifact_path: input_example.json}\n"
        'signature:\n  inputs: \'[{"type": "long", "name": "age"}]\'\n  outputs: null\n'
    )
    model = MlModel.read(path)
    assert model.flavors == {"onnx": {"data": "model.onnx"}}
    assert (model.run_id, model.model_id, model.example) == ("abc", "m-1", "input_example.json")
    assert model.metadata == {"team": "a"}
    assert model.signature == MlflowSignature((Column("age", ColumnType("long")),))


@pytest.mark.parametrize("text", ["", "- a", "flavors: 1", "a: [", "flavors: {}\nsignature: 3", "!!python/x"])
def test_a_wrong_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "MLmodel"
    path.write_text(text)
    with pytest.raises(ModelError, match="MLmodel: "):
        MlModel.read(path)
