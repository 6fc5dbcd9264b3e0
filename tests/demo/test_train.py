from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest

from driftline.demo import train as module
from driftline.demo.flights import NAMES
from driftline.demo.quality import auc
from driftline.demo.train import bundle, train
from driftline.engine.bundle import Bundle
from driftline.engine.model import Model
from driftline.errors import ModelError
from driftline.monitor.monitor import Monitor
from driftline.monitor.profile import Profile


@pytest.fixture(scope="module")
def few(flights: pd.DataFrame, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return matrix[:5000], flights["late"].to_numpy()[:5000]


def test_the_model_takes_and_gives_plain_tensors_of_any_number_of_rows(
    model: Path, matrix: np.ndarray
) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    [entry] = session.get_inputs()
    assert (entry.name, entry.type, entry.shape[1:]) == ("input", "tensor(float)", [matrix.shape[1]])
    assert {out.name: out.type for out in session.get_outputs()} == {
        "label": "tensor(int64)",
        "probabilities": "tensor(float)",
    }
    for rows in (1, 7, 1000):
        label, probabilities = session.run(["label", "probabilities"], {"input": matrix[:rows]})
        assert label.shape == (rows,)
        assert probabilities.shape == (rows, 2)
        assert np.allclose(probabilities.sum(axis=1), 1)
        assert (label == (probabilities[:, 1] > 0.5)).all()


def test_a_bundle_is_watched_by_what_it_was_trained_on(
    few: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    matrix, late = few
    bundle(matrix, late, 123, tmp_path)
    made = Bundle.open(tmp_path)
    assert made.settings.monitor.window_rows == 123
    assert made.profile is not None
    profile = Profile.load(made.profile)
    model = Model.load(tmp_path)
    profile.validate(model.signature)
    assert profile.rows == len(matrix)
    assert {NAMES.get(name, name) for name in profile.names} == {*NAMES.values(), "label"}
    monitor = Monitor(profile)
    monitor.observe({"input": matrix, **model.predict(matrix)})
    report = monitor.report()
    # Half of the rows chose the categories, the other half was counted: so there chance is at work.
    assert all(psi.value <= psi.null for psi in (column.statistics["psi"] for column in report.columns))
    assert report["input_2"].kind == "categorical"


def test_onnx_predicts_what_xgboost_does_with_and_without_gaps(
    few: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(module, "_check", lambda path, sample, expected: seen.append((sample, expected)))
    train(*few, tmp_path / "model.onnx")
    [(sample, expected)] = seen
    gaps = np.isnan(sample).any(axis=1)
    assert 0 < gaps.sum() < len(gaps)
    probabilities = Model.load(tmp_path / "model.onnx").predict(sample, ["probabilities"])["probabilities"]
    assert np.abs(probabilities - expected).max() < 1e-6


def test_a_model_that_predicts_otherwise_is_refused(model: Path, matrix: np.ndarray) -> None:
    sample = matrix[:100]
    expected = Model.load(model).predict(sample, ["probabilities"])["probabilities"]
    module._check(model, sample, expected)
    for wrong in (expected + np.float32(0.01), expected * np.float32(np.nan)):
        with pytest.raises(ModelError, match="expected XGBoost's probabilities"):
            module._check(model, sample, wrong)


def test_the_same_data_gives_the_same_model(few: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        train(*few, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_it_knows_more_of_april_than_the_share_of_late_flights(
    model: Path, flights: pd.DataFrame, matrix: np.ndarray
) -> None:
    late = flights["late"].to_numpy()
    month = flights["month"].to_numpy()
    truth = late[month == 4]
    predicted = Model.load(model).predict(matrix[month == 4], ["probabilities"])["probabilities"][:, 1]
    always = np.full(len(truth), late[month <= 3].mean())
    assert log_loss(predicted, truth) < log_loss(always, truth)
    assert auc(predicted, truth) > 0.6


def log_loss(probability: np.ndarray, late: np.ndarray) -> float:
    return float(-np.log(np.where(late, probability, 1 - probability)).mean())
