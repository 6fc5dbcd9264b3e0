from __future__ import annotations

from pathlib import Path

import pytest

from driftline.config import Batching, ModelSettings
from driftline.engine.bundle import Bundle
from driftline.errors import ConfigError, ModelError


def touch(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_folder_is_its_model_and_its_settings(tmp_path: Path) -> None:
    model = touch(tmp_path / "model.onnx")
    assert Bundle.open(tmp_path) == Bundle(model, ModelSettings())
    touch(tmp_path / "driftline.toml", "[batching]\nmax_batch_rows = 7")
    assert Bundle.open(tmp_path) == Bundle(model, ModelSettings(Batching(max_batch_rows=7)))


def test_a_lone_file_is_a_model(tmp_path: Path) -> None:
    touch(tmp_path / "driftline.toml", "[batching]\nmax_batch_rows = 7")
    model = touch(tmp_path / "flights.onnx")
    assert Bundle.open(model) == Bundle(model, ModelSettings())


def test_triton_keeps_external_data_in_a_folder(tmp_path: Path) -> None:
    model = touch(tmp_path / "model.onnx" / "model.onnx")
    touch(tmp_path / "driftline.toml", "[engine]\nthreads = 2")
    bundle = Bundle.open(tmp_path)
    assert (bundle.model, bundle.settings.engine.threads) == (model, 2)


MLMODEL = "flavors:\n  onnx: {data: net.onnx}\n  python_function: {}\n"


def test_a_folder_of_mlflow_names_its_model(tmp_path: Path) -> None:
    model = touch(tmp_path / "net.onnx")
    touch(tmp_path / "MLmodel", MLMODEL)
    profile = touch(tmp_path / "profile.arrow")
    bundle = Bundle.open(tmp_path)
    assert (bundle.model, bundle.profile) == (model, profile)
    assert bundle.mlmodel is not None
    assert list(bundle.mlmodel.flavors) == ["onnx", "python_function"]


def test_python_code_is_its_description(tmp_path: Path) -> None:
    mlmodel = touch(tmp_path / "MLmodel", "flavors: {sklearn: {}, python_function: {}}")
    assert Bundle.open(tmp_path).model == mlmodel


@pytest.mark.parametrize(
    ("mlmodel", "message"),
    [
        (MLMODEL, "expected a file net.onnx, there is none"),
        ("flavors: {sklearn: {}, spark: {}}", "its flavors are: sklearn, spark"),
        ("flavors: {onnx: {data: ../net.onnx}}", r"expected a file in this folder, got '../net.onnx'"),
        ("flavors: {onnx: {data: /net.onnx}}", r"expected a file in this folder, got '/net.onnx'"),
        ("flavors: {onnx: {data: 3}}", "expected a file in this folder, got 3"),
        ("nothing", "MLmodel: expected a mapping"),
    ],
)
def test_a_wrong_folder_of_mlflow_is_refused(tmp_path: Path, mlmodel: str, message: str) -> None:
    touch(tmp_path / "MLmodel", mlmodel)
    with pytest.raises(ModelError, match=message):
        Bundle.open(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none: expected a version's folder or an \.onnx file, there is no"):
        Bundle.open(tmp_path / "none")
    with pytest.raises(ModelError, match=f"^{tmp_path}: expected a file model.onnx, there is none$"):
        Bundle.open(tmp_path)
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(
        ModelError, match=r"a file model\.onnx/model\.onnx, there is none; there are: model\.onnx$"
    ):
        Bundle.open(tmp_path)


def test_what_lies_in_the_place_of_a_model_is_named(tmp_path: Path) -> None:
    for name in "lkjihgfedcba":
        touch(tmp_path / f"{name}.onnx")
    with pytest.raises(ModelError, match=r"there is none; there are: a\.onnx, b\.onnx, .*, h\.onnx, \.\.\.$"):
        Bundle.open(tmp_path)


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "model.onnx")
    touch(tmp_path / "driftline.toml", "[batching]\nrows = 7")
    with pytest.raises(ConfigError, match=r"driftline\.toml: batching: rows = 7: unknown key"):
        Bundle.open(tmp_path)


def test_a_file_of_another_library_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "lr.joblib"
    path.write_bytes(b"pickle")
    with pytest.raises(
        ModelError, match=r"lr\.joblib: expected an \.onnx file, got .*joblib; `driftline convert`"
    ):
        Bundle.open(path)


@pytest.mark.parametrize("name", ["profile.arrow", "transform.json", "MLmodel"])
def test_what_only_has_the_name_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "model.onnx")
    (tmp_path / name).symlink_to("nothing")
    with pytest.raises(ModelError, match=f"{name}: expected a file, got a link to nothing"):
        Bundle.open(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()  # as a volume of a file that is not there
    with pytest.raises(ModelError, match=f"{name}: expected a file, got a folder"):
        Bundle.open(tmp_path)


def test_settings_that_are_a_link_to_nothing_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "model.onnx")
    (tmp_path / "driftline.toml").symlink_to("nothing")
    with pytest.raises(ConfigError, match=r"driftline.toml: .*No such file"):
        Bundle.open(tmp_path)
