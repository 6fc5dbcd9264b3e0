"""Files that can be served, and files that can't."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import identity, scale, slow, with_transform

import driftline as dl
from driftline.engine.bundle import Bundle
from driftline.engine.verify import verify
from driftline.errors import ConfigError, DriftlineError, ModelError

DATA = {"x": np.arange(600, dtype=np.float32).reshape(200, 3)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scale(tmp_path / "model.onnx", 2.0)
    dl.Profile.fit(DATA).save(tmp_path / "profile.arrow")
    (tmp_path / "driftline.toml").write_text("[batching]\nmax_batch_rows = 8\n")
    return tmp_path


def described(folder: Path, **signature: object) -> None:
    """An MLflow model of Python code that nobody may run."""
    document = {
        "flavors": {"python_function": {"loader_module": "nothing.that.exists"}},
        "signature": {key: json.dumps(value) for key, value in signature.items()},
    }
    (folder / "MLmodel").write_text(json.dumps(document))


def refused(folder: Path, kind: type[DriftlineError] = DriftlineError) -> str:
    with pytest.raises(kind) as caught:
        verify(folder)
    return str(caught.value)


def test_what_fits_is_loaded(folder: Path) -> None:
    assert verify(folder)
    assert verify(Bundle.open(folder))


def test_a_model_for_gpus_is_loaded_on_the_cpu(folder: Path) -> None:
    settings = 'device = "cuda"\ntensorrt = true\nbuckets = [8]\ninstances = 2\n'
    (folder / "driftline.toml").write_text(f"[engine]\n{settings}")
    assert verify(folder)
    (folder / "driftline.toml").write_text(f"[engine]\n{settings}cuda_graphs = true\n")
    assert "expected engine.cuda_graphs = false" in refused(folder, ConfigError)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.onnx", b"junk", "expected an ONNX model, got 4 bytes"),
        ("model.onnx", b"", "expected an ONNX model, got an empty file"),
        ("transform.json", b"{", "expected a transform in JSON"),
        ("profile.arrow", b"junk", "expected a profile"),
        ("driftline.toml", b"[engine]\ndevice = 'tpu'", "engine.device = 'tpu': expected 'cpu'"),
        ("driftline.toml", b"[[[", ""),
        ("MLmodel", b"[", ""),
    ],
)
def test_what_is_broken_is_named(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / name).write_bytes(content)
    assert refused(folder).startswith(f"{folder / name}: {message}")


def test_what_does_not_fit_the_model_is_named(folder: Path) -> None:
    identity(folder / "model.onnx", shape=("N", 2))
    assert refused(folder).startswith(
        f"{folder / 'profile.arrow'}: column 'x_2': the model has no such column"
    )
    (folder / "profile.arrow").unlink()
    transform = dl.Transform([dl.Pass("a")]).fit({"a": [1.0, 2.0]})
    transform.save(folder / "transform.json")
    assert refused(folder, ModelError).startswith(
        f"{folder / 'transform.json'}: expected a model of one input"
    )
    with_transform(folder, transform)
    assert verify(folder)


def test_weights_that_are_missing_are_missed(tmp_path: Path) -> None:
    path = slow(tmp_path / "model.onnx", width=64, layers=1)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights")
    assert verify(tmp_path)
    (tmp_path / "weights").unlink()
    assert "weights" in refused(tmp_path, ModelError)


def test_python_code_is_run_only_if_somebody_vouches_for_it(tmp_path: Path) -> None:
    columns = [{"name": "a", "type": "double"}]
    described(tmp_path, inputs=columns, outputs=columns)
    dl.Profile.fit({"a": np.arange(200.0)}).save(tmp_path / "profile.arrow")
    assert not verify(tmp_path)
    dl.Profile.fit({"b": np.arange(200.0)}).save(tmp_path / "profile.arrow")
    assert "column 'b': the model has no such column" in refused(tmp_path)
    described(tmp_path, inputs=columns)  # what it gives, only running it tells
    assert not verify(tmp_path)
    described(tmp_path)
    assert "expected a signature" in refused(tmp_path, ModelError)
