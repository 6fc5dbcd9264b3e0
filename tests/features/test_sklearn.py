"""Fitted transformers of scikit-learn, imported, give the same features; a transform works in a Pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

import driftline as dl
from driftline.errors import BadRequest


def frame(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    data: dict[str, Any] = {
        "a": random.normal(5, 3, rows),
        "b": random.exponential(size=rows),
        "n": random.integers(0, 5, rows),
        "s": random.choice(["x", "y", "zürich", ""], rows, p=[0.6, 0.3, 0.08, 0.02]),
        "t": random.choice(["p", "q", "r"], rows),
    }
    table = pd.DataFrame(data)
    table["s"], table["t"] = table["s"].astype(object), table["t"].astype(object)
    table.loc[random.random(rows) < 0.1, "a"] = np.nan
    table.loc[random.random(rows) < 0.1, "s"] = np.nan
    return table


Y = np.random.default_rng(9).integers(0, 2, 400)
NUMBERS = ["a", "b"]
SCALER = MinMaxScaler()


@pytest.mark.parametrize(
    "transformer",
    [
        ColumnTransformer(
            [
                (
                    "num",
                    make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()),
                    NUMBERS,
                ),
                ("cat", make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), ["s"]),
                ("gone", "drop", ["n"]),
            ],
            remainder=OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
        ),
        ColumnTransformer(
            [
                ("scaled", make_pipeline(SimpleImputer(), MinMaxScaler((0, 5), clip=True)), ["b", "a"]),
                ("robust", RobustScaler(unit_variance=True), [0]),
                ("log", FunctionTransformer(np.log1p), ["b"]),
                ("bins", KBinsDiscretizer(4, encode="onehot-dense"), ["b"]),
                ("places", KBinsDiscretizer(4, encode="ordinal", strategy="uniform"), ["b", "n"]),
            ]
        ),
        ColumnTransformer(
            [
                ("n", OneHotEncoder(drop="first"), ["n"]),
                (
                    "s",
                    OneHotEncoder(min_frequency=20, handle_unknown="infrequent_if_exist", drop="if_binary"),
                    ["s"],
                ),
                ("o", OrdinalEncoder(max_categories=2), ["t"]),
                ("fill", SimpleImputer(strategy="constant", fill_value="none"), []),
            ],
            remainder="drop",
        ),
        ColumnTransformer([("t", TargetEncoder(smooth=3.0), ["s", "t"]), ("auto", TargetEncoder(), ["n"])]),
        ColumnTransformer(
            [
                ("t", make_pipeline(TargetEncoder(), StandardScaler()), ["s"]),
                (
                    "o",
                    make_pipeline(OrdinalEncoder(), SimpleImputer(add_indicator=True), MinMaxScaler()),
                    ["s"],
                ),
            ]
        ),
        make_pipeline(
            ColumnTransformer([("a", SimpleImputer(), NUMBERS)], verbose_feature_names_out=False),
            ColumnTransformer([("b", StandardScaler(), [1]), ("c", "passthrough", [0])]),
        ),
    ],
    ids=["usual", "numbers", "categories", "target", "encoded", "nested"],
)
def test_what_is_imported_gives_the_same_features(transformer: Any, tmp_path: Path) -> None:
    fitted = clone(transformer).fit(frame(), Y)
    ours = dl.Transform.from_sklearn(fitted)
    for data in (frame(), frame(100, seed=1)):
        theirs = fitted.transform(data)
        theirs = theirs.toarray() if hasattr(theirs, "toarray") else theirs
        np.testing.assert_allclose(ours.apply(data), np.asarray(theirs, np.float64), rtol=1e-6, atol=1e-6)
    ours.save(tmp_path / "transform.json")
    assert (
        dl.Transform.load(tmp_path / "transform.json").apply(frame()).tobytes()
        == ours.apply(frame()).tobytes()
    )


@pytest.mark.parametrize(
    ("transformer", "words"),
    [
        (
            ColumnTransformer([("poly", PolynomialFeatures(), ["b"])]),
            "poly: PolynomialFeatures can't be imported",
        ),
        (
            ColumnTransformer([("log", make_pipeline(FunctionTransformer(np.sqrt)), ["b"])]),
            "log.functiontransformer: FunctionTransformer: func: expected numpy.log1p",
        ),
        (
            make_pipeline(OneHotEncoder(sparse_output=False), StandardScaler()),
            "standardscaler: StandardScaler after a one-hot encoder",
        ),
        (
            ColumnTransformer([("s", StandardScaler(), ["b"])], transformer_weights={"s": 2}),
            "ColumnTransformer: transformer_weights can't be imported",
        ),
        (
            ColumnTransformer([("i", SimpleImputer(missing_values=-1), ["n"])]),
            "i: SimpleImputer: missing_values: expected NaN",
        ),
    ],
)
def test_what_cannot_be_imported_is_refused_by_name(transformer: Any, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        dl.Transform.from_sklearn(transformer.fit(frame()[["b", "n"]]))


def test_what_is_not_fitted_is_refused() -> None:
    with pytest.raises(BadRequest, match="expected a fitted transformer"):
        dl.Transform.from_sklearn(StandardScaler())


def test_arrays_have_columns_by_number() -> None:
    x = np.array([[1.0, 2.0], [3.0, 5.0]])
    ours = dl.Transform.from_sklearn(StandardScaler().fit(x))
    assert [each.name for each in ours.inputs] == ["x0", "x1"]
    assert ours.apply({"x0": x[:, 0], "x1": x[:, 1]}).tolist() == [[-1, -1], [1, 1]]


def test_a_transform_trains_in_a_pipeline() -> None:
    steps = [dl.Impute("a"), dl.Standardise(NUMBERS), dl.OneHot("s"), dl.TargetMean("t")]
    pipeline = Pipeline([("features", dl.Transform(steps).to_sklearn()), ("model", LogisticRegression())])
    pipeline = clone(pipeline).fit(frame(), Y)
    transform = pipeline["features"].transform_
    assert pipeline[:-1].get_feature_names_out().tolist() == list(transform.outputs)
    probability = pipeline["model"].predict_proba(transform.apply(frame()))
    np.testing.assert_array_equal(pipeline.predict_proba(frame()), probability)


def test_largest_magnitudes_become_one() -> None:
    data = {"a": np.array([-4.0, np.nan, 2.0]), "b": np.array([0.0, 0.0, 0.0])}
    fitted = MaxAbsScaler().fit(pd.DataFrame(data))
    expected = fitted.transform(pd.DataFrame(data))
    assert np.array_equal(dl.Transform.from_sklearn(fitted).apply(data), expected, equal_nan=True)


def test_the_model_at_the_end_of_a_pipeline_is_told_apart() -> None:
    data = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0]})
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(data, [0, 0, 1, 1])
    with pytest.raises(BadRequest, match=r"came the model LogisticRegression; .* pipeline\[:-1\]"):
        dl.Transform.from_sklearn(fitted)
    expected = fitted[:-1].transform(data)
    assert np.allclose(dl.Transform.from_sklearn(fitted[:-1]).apply(data), expected)
