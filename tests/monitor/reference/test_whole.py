"""Whole rows of a reference, against numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from driftline.monitor.reference.profile import Profile
from driftline.monitor.reference.whole import FEATURES, MAX_CORRELATED, Whole, correlation, mean_features
from driftline_kernels import moments


def rows(count: int = 3_000) -> np.ndarray:
    random = np.random.default_rng(0)
    mixing = np.array([[1, 0.8, 0], [0, 0.6, 0], [0, 0, 5.0]])
    return (random.standard_normal((count, 3)) @ mixing + [100, 0, -3]).astype(np.float32)


def test_correlations_are_numpys() -> None:
    values = rows()
    whole = Profile.fit({"x": values, "constant": np.ones(len(values))}).whole
    expected = np.eye(4)
    expected[:3, :3] = np.corrcoef(values.astype(np.float64).T)
    np.testing.assert_allclose(correlation(whole.comoments), expected, atol=1e-9)


def test_features_are_cosines_of_what_is_standardised() -> None:
    values = rows().astype(np.float64)
    whole = Profile.fit({"x": values.astype(np.float32)}).whole
    np.testing.assert_allclose(whole.scaling, np.stack([values.mean(0), 1 / values.std(0)], 1), rtol=1e-6)
    weights = whole.weights().astype(np.float64)
    z = (values - values.mean(0)) / values.std(0)
    expected = np.sqrt(2 / FEATURES) * np.cos(z @ weights[:-1] + weights[-1]).mean(axis=0)
    np.testing.assert_allclose(mean_features(whole.features, whole.rows), expected, atol=1e-5)


def test_the_square_norm_of_features_is_one_on_average() -> None:
    names = [str(index) for index in range(40)]
    norms = []
    for seed in range(200):
        weights = replace(Whole.start(names, moments.start(40)), seed=seed).weights()
        z = np.random.default_rng(seed).standard_normal(40)
        norms.append(float(np.square(mean_features(np.cos(z @ weights[:-1] + weights[-1]), 1)).sum()))
    assert np.mean(norms) == pytest.approx(1, abs=0.05)


def test_many_columns_have_no_correlations() -> None:
    values = np.random.default_rng(0).standard_normal((200, MAX_CORRELATED + 1))
    assert Profile.fit({"x": values[:, :-1]}).whole.comoments.shape == (MAX_CORRELATED + 1,) * 2
    many = Profile.fit({"x": values}).whole
    assert many.comoments.shape == correlation(many.comoments).shape == (0, 0)
    assert many.features.any()


def test_strings_alone_have_no_whole_rows() -> None:
    whole = Profile.fit({"a": np.array(["x", "y"] * 100)}).whole
    assert (whole.names, whole.rows, len(whole.features)) == ((), 200, 0)
    assert correlation(whole.comoments).shape == (0, 0)
