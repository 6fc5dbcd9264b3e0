"""Which labels may differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.multioutput import MultiOutputClassifier

from driftline.convert.parity import Difference, tied
from driftline.convert.sklearn import SklearnModel

CLASSES = np.array(["a", "b", "c"])
X = np.array([[0.0], [1.0], [2.0]])


@pytest.mark.parametrize(
    ("actual", "scores", "excused"),
    [
        ("b", [0.45, 0.45, 0.1], True),
        ("b", [0.45, 0.45 * (1 - 1e-7), 0.1], True),
        ("c", [0.45, 0.45, 0.1], False),  # two others tie
        ("d", [0.45, 0.45, 0.1], False),  # no class at all
        ("a", [0.45, 0.45, 0.1], False),  # it is the same
        ("b", [0.5, 0.499, 0.001], False),
        ("b", [9e-7, 1e-8, 1e-8], False),
        ("b", [2e-3, 2e-3 - 9e-7, 0.0], False),  # near, but not relative to the best
        ("b", [0.0, 0.0, 0.0], False),
        ("b", [np.nan, np.nan, np.nan], False),
    ],
)
def test_only_a_label_with_the_best_score_is_excused(actual: str, scores: list[float], excused: bool) -> None:
    labels = np.array([actual, "a"], object)
    assert tied(labels, np.array(["a", "a"]), np.array([scores] * 2), CLASSES).tolist() == [excused, False]


@pytest.mark.parametrize("classes", [np.array([3, 7]), np.array([3.0, 7.0]), np.array([False, True])])
def test_labels_may_be_numbers(classes: Any) -> None:
    actual = classes[[1, 0, 1]].astype(np.int64)
    scores = np.array([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1]])
    assert tied(actual, classes[[0, 0, 0]], scores, classes).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("model", "target", "classes"),
    [
        (RandomForestClassifier(2), ["a", "b", "c"], ["a", "b", "c"]),
        (DummyClassifier(), [3, 3, 7], [3, 7]),
        (RandomForestRegressor(2), [1, 2, 3], None),
        (MultiOutputClassifier(DummyClassifier()), [[1, 2], [2, 1], [1, 1]], None),
    ],
)
def test_only_a_classifier_of_one_label_has_classes(model: Any, target: Any, classes: Any) -> None:
    fitted_classes = SklearnModel(model.fit(X, target)).classes
    assert (None if fitted_classes is None else fitted_classes.tolist()) == classes


def test_how_many_were_excused_is_said() -> None:
    difference = Difference(0.0, "label", 0, "a", "b", ties=3)
    assert str(difference) == "no difference; rows whose label is another one with the same score: 3"
