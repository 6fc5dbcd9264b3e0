from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from tests.demo.conftest import Made

import driftline as dl
from driftline.demo.flights import CATEGORIES, FEATURES, WEATHER
from driftline.demo.quality import auc
from driftline.demo.train import STEPS, TOLERANCE, bundle
from driftline.engine.bundle import Bundle
from driftline.engine.model import Model
from driftline.engine.parity import check
from driftline.errors import BadRequest
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile

CLOSE = 1e-6


@pytest.fixture(scope="module")
def past(flights: pd.DataFrame) -> pd.DataFrame:
    """What `made` has learnt from."""
    return flights[flights["month"] <= 3]


def agree(made: Made, sample: Path, tolerance: float) -> int:
    return check(made.folder, sample, tolerance, lambda rows: None)


def test_the_model_takes_and_gives_plain_tensors_of_any_number_of_rows(
    made: Made, past: pd.DataFrame
) -> None:
    session = onnxruntime.InferenceSession(made.folder / "model.onnx", providers=["CPUExecutionProvider"])
    matrix = dl.Transform.load(made.folder / "transform.json").apply(past[[*FEATURES]][:1000])
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


def test_a_version_takes_the_raw_columns(made: Made) -> None:
    inputs = Model.load(made.folder).signature.inputs
    assert {spec.name: spec.datatype.name for spec in inputs} == {
        name: "BYTES" if name in CATEGORIES else "FP64" for name in FEATURES
    }


def test_features_are_finite_whatever_comes(made: Made, past: pd.DataFrame) -> None:
    transform = dl.Transform.load(made.folder / "transform.json")
    known = past[[*FEATURES]][:2]
    strange = known.assign(carrier="ZZ", origin="", dest="nowhere", **dict.fromkeys(WEATHER, np.nan))
    matrix = transform.apply(strange)
    assert np.isfinite(matrix).all()
    assert transform.width == len(transform.outputs) < 50
    # The same time of the day and the year, a year later.
    later = transform.apply(known.assign(month=known["month"] + 12, hour=known["hour"] + 24))
    np.testing.assert_allclose(later, transform.apply(known), atol=1e-5)


def test_a_version_is_watched_by_the_raw_columns_it_was_trained_on(made: Made, past: pd.DataFrame) -> None:
    version = Bundle.open(made.folder)
    assert version.settings.monitor.window_rows == 123
    assert version.profile is not None
    profile = Profile.load(version.profile)
    model = Model.load(made.folder)
    profile.validate(model.signature)
    assert profile.rows == len(past)
    assert profile.names == (*FEATURES, "label", "probabilities_0", "probabilities_1")
    monitor = Monitor(profile)
    monitor.observe({**past[[*FEATURES]], **model.predict(past[[*FEATURES]])})
    report = monitor.report()
    # Half of the rows chose the categories, the other half was counted: so there chance is at work.
    assert all(psi.value <= psi.null for psi in (column.statistics["psi"] for column in report.columns))
    assert {report[name].kind for name in CATEGORIES} == {"categorical"}


def test_raw_columns_are_predicted_as_xgboost_did_with_and_without_gaps(made: Made) -> None:
    sample = pd.read_feather(made.sample)
    gaps = sample[[*WEATHER]].isna().any(axis=1)
    assert 0 < gaps.sum() < len(gaps)
    assert agree(made, made.sample, CLOSE) == len(sample) == 4096
    files = {"driftline.toml", "model.onnx", "profile.arrow", "transform.json"}
    assert {file.name for file in made.folder.iterdir()} == files


@pytest.mark.parametrize("wrong", [0.01, np.nan])
def test_a_version_that_predicts_otherwise_is_refused(made: Made, wrong: float, tmp_path: Path) -> None:
    sample = pd.read_feather(made.sample)
    sample["probabilities_1"] += np.float32(wrong)
    sample.to_feather(tmp_path / "wrong.feather")
    with pytest.raises(BadRequest, match="output 'probabilities_1', row 0: expected"):
        agree(made, tmp_path / "wrong.feather", TOLERANCE)


def test_the_same_flights_give_the_same_version(past: pd.DataFrame, tmp_path: Path) -> None:
    for name in ("a", "b"):
        bundle(past[:5000], 123, tmp_path / name, tmp_path / "sample.feather")
    for file in ("model.onnx", "transform.json", "driftline.toml"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_every_version_fits_its_own_transform(flights: pd.DataFrame, made: Made) -> None:
    june = flights[flights["month"] == 6][[*FEATURES]]
    fitted = dl.Transform(STEPS).fit(june)
    assert fitted.to_dict() != dl.Transform.load(made.folder / "transform.json").to_dict()
    assert fitted.inputs == dl.Transform.load(made.folder / "transform.json").inputs


def test_it_knows_more_of_april_than_the_share_of_late_flights(
    made: Made, flights: pd.DataFrame, past: pd.DataFrame
) -> None:
    april = flights[flights["month"] == 4]
    truth = april["late"].to_numpy()
    probabilities = Model.load(made.folder).predict(april[[*FEATURES]], ["probabilities"])["probabilities"]
    predicted = probabilities[:, 1]
    always = np.full(len(truth), past["late"].mean())
    assert log_loss(predicted, truth) < log_loss(always, truth)
    assert auc(predicted, truth) > 0.6


def log_loss(probability: np.ndarray, late: np.ndarray) -> float:
    return float(-np.log(np.where(late, probability, 1 - probability)).mean())
