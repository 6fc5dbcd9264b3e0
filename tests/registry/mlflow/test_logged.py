"""A version's folder becomes one that MLflow loads; that it does is tested with MLflow itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_models import identity, scale

from driftline.errors import ModelError
from driftline.mlmodel import MlModel, Tensor
from driftline.registry.mlflow.logged import complete_mlflow_model

URI = "mlflow-artifacts:/0/models/m-1/artifacts"


def test_a_model_gets_a_description(tmp_path: Path) -> None:
    scale(tmp_path / "model.onnx", 2.0)
    complete_mlflow_model(tmp_path, "m-1", URI)
    found = MlModel.read(tmp_path / "MLmodel")
    assert found.model_id == "m-1"
    assert {name: flavor["data"] for name, flavor in found.flavors.items()} == {
        "onnx": "model.onnx",
        "python_function": "model.onnx",
    }
    assert found.signature is not None
    assert found.signature.inputs == (Tensor("x", np.dtype("float32"), (-1, 3)),)
    assert [one.name for one in found.signature.outputs] == ["y", "total"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "MLmodel", "model.onnx", "requirements.txt", "conda.yaml", "python_env.yaml",
    }  # fmt: skip


def test_text_is_text(tmp_path: Path) -> None:
    identity(tmp_path / "model.onnx", "BYTES", ("N", 2))
    complete_mlflow_model(tmp_path, "m-1", URI)
    signature = MlModel.read(tmp_path / "MLmodel").signature
    assert signature is not None
    assert signature.inputs == (Tensor("x", np.dtype("str"), (-1, 2)),)


def test_tritons_folder_of_external_data_becomes_flat(tmp_path: Path) -> None:
    model = scale(tmp_path / "model.onnx" / "model.onnx", 2.0)
    (model.parent / "weights.data").write_text("w")
    content = model.read_bytes()
    complete_mlflow_model(tmp_path, "m-1", URI)
    assert (tmp_path / "model.onnx").read_bytes() == content
    assert (tmp_path / "weights.data").read_text() == "w"


def test_what_mlflow_has_described_keeps_its_description(tmp_path: Path) -> None:
    scale(tmp_path / "model.onnx", 2.0)
    (tmp_path / "requirements.txt").write_text("onnx==1.0\n")
    (tmp_path / "MLmodel").write_text("flavors: {onnx: {data: model.onnx}}\nmodel_id: m-0\nrun_id: r\n")
    complete_mlflow_model(tmp_path, "m-1", URI)
    found = MlModel.read(tmp_path / "MLmodel")
    assert (found.model_id, found.run_id, found.signature) == ("m-1", "r", None)
    assert found.flavors == {"onnx": {"data": "model.onnx"}}
    assert (tmp_path / "requirements.txt").read_text() == "onnx==1.0\n"


def test_what_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("no model")
    with pytest.raises(ModelError, match=r"model\.onnx: "):
        complete_mlflow_model(tmp_path, "m-1", URI)


def test_a_description_that_is_none_is_refused(tmp_path: Path) -> None:
    scale(tmp_path / "model.onnx", 2.0)
    (tmp_path / "MLmodel").write_text("- a")
    with pytest.raises(ModelError, match="MLmodel: expected a mapping"):
        complete_mlflow_model(tmp_path, "m-1", URI)
