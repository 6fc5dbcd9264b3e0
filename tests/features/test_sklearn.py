"""Fitted transformers of scikit-learn, imported, give the same features; a transform works in a Pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)

import driftline as dl
from driftline.errors import BadRequest
from driftline.features.sklearn import import_fitted, width_of
from driftline.features.sklearn_steps import TRANSFORMERS


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
        ColumnTransformer(
            [
                ("power", PowerTransformer(), NUMBERS),
                ("box", PowerTransformer("box-cox", standardize=False), ["b"]),
                ("share", QuantileTransformer(n_quantiles=50), ["a", "n"]),
                ("normal", QuantileTransformer(n_quantiles=50, output_distribution="normal"), ["a", "n"]),
                ("binary", Binarizer(threshold=0.5), ["b"]),
                ("log", FunctionTransformer(np.log), ["b"]),
                ("root", FunctionTransformer(np.sqrt), ["b"]),
                ("square", FunctionTransformer(np.square), ["a"]),
                ("products", PolynomialFeatures(3), ["b", "n"]),
                ("pairs", PolynomialFeatures(interaction_only=True, include_bias=False), ["n", "b"]),
            ]
        ),
        ColumnTransformer(
            [
                (
                    "both",
                    make_pipeline(
                        SimpleImputer(),
                        FeatureUnion(
                            [
                                ("scaled", StandardScaler()),
                                ("kept", make_pipeline(SelectKBest(k=2), MinMaxScaler())),
                                ("as", "passthrough"),
                                ("gone", "drop"),
                            ]
                        ),
                        VarianceThreshold(),
                    ),
                    ["a", "b", "n"],
                ),
                ("s", OneHotEncoder(handle_unknown="ignore"), ["s"]),
            ]
        ),
        make_pipeline(
            ColumnTransformer([("a", SimpleImputer(), NUMBERS)], verbose_feature_names_out=False),
            ColumnTransformer([("b", StandardScaler(), [1]), ("c", "passthrough", [0])]),
        ),
    ],
    ids=["usual", "numbers", "categories", "target", "encoded", "shapes", "union", "nested"],
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
            ColumnTransformer([("near", KNNImputer(), ["b"])]),
            "^near: KNNImputer can't be imported; those that can: SimpleImputer, .*, Pipeline, and",
        ),
        (
            ColumnTransformer([("spline", SplineTransformer(extrapolation="error"), ["b"])]),
            "^spline: SplineTransformer: extrapolation: 'error' can't be imported",
        ),
        (
            SplineTransformer(degree=1, extrapolation="linear"),
            "degree: expected 2 or more to extrapolate several columns linearly, got 1",
        ),
        (
            ColumnTransformer([("log", make_pipeline(FunctionTransformer(np.sinh)), ["b"])]),
            r"log.functiontransformer: FunctionTransformer: func: expected numpy.log1p, .*, got .*sinh",
        ),
        (
            ColumnTransformer([("q", QuantileTransformer(n_quantiles=1), ["b"])]),
            "q: QuantileTransformer: n_quantiles: expected 2 at least, got 1",
        ),
        (
            make_pipeline(SimpleImputer(missing_values=np.nan, keep_empty_features=True), Normalizer("max")),
            "^normalizer: Normalizer: norm: expected 'l1' or 'l2', got 'max'",
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


PLAIN = frame()[["b", "n"]].assign(c=np.linspace(-1, 1, 400))


@pytest.mark.parametrize(
    ("names", "transformer"),
    [
        (
            ["a", "b", "a__a"],
            ColumnTransformer([("a", StandardScaler(), ["a"]), ("b", MinMaxScaler(), ["a__a"])]),
        ),
        (["c", "a__c", "b__c"], FeatureUnion([("a", StandardScaler()), ("b", MinMaxScaler())])),
        (["a", "a_missing", "a_missing.2"], SimpleImputer(add_indicator=True)),
        (["polynomial_0", "b", "c"], PolynomialFeatures(2)),
        (["a", "b", "c"], make_pipeline(PolynomialFeatures(2), PolynomialFeatures(2))),
        (["a", "b", "c"], FeatureUnion([("p", PolynomialFeatures()), ("q", PolynomialFeatures(3))])),
        (
            ["a", "b", "c"],
            ColumnTransformer([("p", PolynomialFeatures(), ["a"]), ("q", PolynomialFeatures(), ["b"])]),
        ),
        (["a", "b", "c"], FeatureUnion([("gone", "drop"), ("s", StandardScaler())])),
        (["a", "b", "c"], make_pipeline("passthrough", StandardScaler())),
        (["a", "b", "c"], FeatureUnion([("as", make_pipeline("passthrough")), ("s", StandardScaler())])),
    ],
)
def test_columns_may_have_any_names(names: list[str], transformer: Any) -> None:
    """Of raw columns that were named as what an import makes, the wrong ones were read."""
    data = PLAIN.set_axis(names, axis=1)
    if isinstance(transformer, SimpleImputer):
        data.iloc[::7, 0] = np.nan
    fitted = clone(transformer).fit(data)
    ours = dl.Transform.from_sklearn(fitted).apply(data)
    np.testing.assert_allclose(ours, fitted.transform(data), rtol=1e-5, atol=1e-6)


class Twice(StandardScaler):
    """Makes more columns than its class says."""

    def transform(self, x: Any, copy: bool | None = None) -> Any:
        return np.hstack([super().transform(x, copy)] * 2)

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        return np.array(["a", "b"])


class NoNames(Twice):
    """Has no names for them, as a FunctionTransformer has none."""

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        raise AttributeError


@pytest.mark.parametrize("kind", [Twice, NoNames])
@pytest.mark.parametrize("named", [True, False])
def test_an_import_of_another_width_is_refused(
    kind: type[Twice], named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRANSFORMERS, kind.__name__, TRANSFORMERS["StandardScaler"])
    data = PLAIN[["b"]] if named else PLAIN[["b"]].to_numpy()
    with pytest.raises(BadRequest, match=f"^{kind.__name__}: expected its 2 columns, got 1$"):
        dl.Transform.from_sklearn(kind().fit(data))


def test_widths_are_compared_on_a_row_that_has_known_categories() -> None:
    encoders = [("s", OneHotEncoder(), ["t"]), ("n", OrdinalEncoder(), ["n"])]
    encoder = ColumnTransformer([*encoders, ("log", FunctionTransformer(np.log1p), ["b"])])
    fitted = encoder.fit(frame())
    assert width_of(fitted, import_fitted(fitted)) == dl.Transform.from_sklearn(fitted).width == 5


REAL = st.one_of(st.just(np.nan), st.floats(-100, 100), st.integers(-3, 3).map(float), st.floats(0.001, 1.0))


def same_as_theirs(fitted: Any, values: Any) -> None:
    """Ours, of a fitted transformer of one column, are what it makes of some values, as float32."""
    ours = dl.Transform.from_sklearn(fitted).apply({"x0": values[:, 0]})
    np.testing.assert_allclose(ours, fitted.transform(values), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(max_examples=60, deadline=None)
@given(st.lists(REAL, min_size=5, max_size=40), st.lists(REAL, min_size=1), st.booleans())
def test_power_transforms_are_those_of_scikit_learn(seen: Any, unseen: Any, positive: bool) -> None:
    x, now = np.array(seen)[:, None], np.array([*seen, *unseen])[:, None]
    assume(len(set(x[~np.isnan(x)].tolist())) > 2)
    if positive:
        x, now = np.abs(x) + 0.5, np.abs(now) + 0.5
    fitted = PowerTransformer("box-cox" if positive else "yeo-johnson", standardize=False).fit(x)
    assume(np.isfinite(fitted.lambdas_).all() and abs(fitted.lambdas_[0]) < 20)
    same_as_theirs(fitted, now)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(REAL, min_size=2, max_size=60), st.lists(REAL), st.integers(2, 20), st.booleans(), st.booleans()
)
def test_quantile_transforms_are_those_of_scikit_learn(
    seen: Any, unseen: Any, points: int, normal: bool, one_column: bool
) -> None:
    x, now = np.array(seen)[:, None], np.array([*seen, *unseen])[:, None]
    assume(np.isfinite(x).any())
    points = min(points, len(x))
    distribution = "normal" if normal else "uniform"
    fitted = QuantileTransformer(n_quantiles=points, output_distribution=distribution, subsample=None).fit(x)
    if one_column:
        ours = dl.Transform([dl.Quantile("x", points, normal)]).fit({"x": x[:, 0]})
        np.testing.assert_allclose(ours.apply({"x": now[:, 0]}), fitted.transform(now), rtol=1e-5, atol=1e-6)
    else:
        same_as_theirs(fitted, now)


def test_what_was_fitted_on_nothing_is_refused() -> None:
    nothing = np.full((5, 1), np.nan)
    with pytest.warns(RuntimeWarning):
        fitted = QuantileTransformer(n_quantiles=3).fit(nothing)
    with pytest.raises(BadRequest, match="QuantileTransformer: 'x0': expected it to be fitted on numbers"):
        dl.Transform.from_sklearn(fitted)


def test_what_is_not_fitted_is_refused() -> None:
    with pytest.raises(BadRequest, match="expected a fitted transformer"):
        dl.Transform.from_sklearn(StandardScaler())


def test_arrays_have_columns_by_number() -> None:
    x = np.array([[1.0, 2.0], [3.0, 5.0]])
    ours = dl.Transform.from_sklearn(StandardScaler().fit(x))
    assert [field.name for field in ours.inputs] == ["x0", "x1"]
    assert ours.apply({"x0": x[:, 0], "x1": x[:, 1]}).tolist() == [[-1, -1], [1, 1]]
    assert ours.apply(x).tolist() == dl.Transform([dl.Standardise(["x0", "x1"])]).fit_apply(x).tolist()
    fitted = ColumnTransformer([("b", "passthrough", [1]), ("a", "passthrough", [0])]).fit(x)
    assert dl.Transform.from_sklearn(fitted).apply(x.astype(object)).tolist() == [[2, 1], [5, 3]]
    with pytest.raises(BadRequest, match=r"column 'x1': expected numbers, got nothing; there are: x0$"):
        ours.apply(x[:, :1])


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
    with pytest.raises(BadRequest, match=r"got the model LogisticRegression; .* pipeline\[:-1\]"):
        dl.Transform.from_sklearn(fitted)
    expected = fitted[:-1].transform(data)
    assert np.allclose(dl.Transform.from_sklearn(fitted[:-1]).apply(data), expected)
