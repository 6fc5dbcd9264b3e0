"""Imported from scikit-learn: what changes one-hot columns, sums of columns, splines, weights of branches."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD
from sklearn.feature_selection import SelectFromModel, SelectKBest, SelectPercentile, VarianceThreshold, chi2
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)

import driftline as dl
from driftline.errors import BadRequest

TEXTS = ["s", "t"]
NUMBERS = ["a", "b", "n"]


def frame(rows: int = 300, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "a": np.where(random.random(rows) < 0.1, np.nan, random.normal(50, 3, rows)),
            "b": random.exponential(size=rows),
            "n": random.integers(0, 5, rows),
            "s": random.choice(np.array(["x", "y", "zürich", "w"], object), rows, p=[0.6, 0.3, 0.07, 0.03]),
            "t": random.choice(np.array(["p", "q", None], object), rows, p=[0.5, 0.4, 0.1]),
        }
    )
    table.loc[random.random(rows) < 0.05, "s"] = np.nan
    return table


Y = np.random.default_rng(9).integers(0, 3, 300)
NUMERIC = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())


def columns(*transformers: Any, **options: Any) -> ColumnTransformer:
    return ColumnTransformer(list(transformers), **options)


def same(fitted: Any, *tables: pd.DataFrame) -> dl.Transform:
    """An import gives what the fitted transformer gives, and so does what is read from a file of it."""
    ours = dl.Transform.from_sklearn(fitted)
    read = dl.Transform.from_dict(json.loads(json.dumps(ours.to_dict())))
    for table in tables:
        theirs = fitted.transform(table)
        theirs = theirs.toarray() if hasattr(theirs, "toarray") else np.asarray(theirs, np.float64)
        np.testing.assert_allclose(ours.apply(table), theirs, rtol=1e-5, atol=2e-6)
        assert read.apply(table).tobytes() == ours.apply(table).tobytes()
    return ours


USUAL = columns(("num", NUMERIC, NUMBERS), ("cat", OneHotEncoder(handle_unknown="ignore"), TEXTS))


@pytest.mark.parametrize(
    "transformer",
    [
        columns(
            ("num", NUMERIC, NUMBERS),
            (
                "cat",
                make_pipeline(OneHotEncoder(handle_unknown="ignore"), SelectPercentile(chi2, percentile=50)),
                TEXTS,
            ),
        ),
        make_pipeline(USUAL, SelectKBest(k=4)),
        make_pipeline(columns(*USUAL.transformers[::-1]), MaxAbsScaler(), VarianceThreshold(0.01)),
        columns(
            ("cat", OneHotEncoder(handle_unknown="ignore"), TEXTS),
            ("num", NUMERIC, NUMBERS),
            transformer_weights={"num": 2},
        ),
        make_pipeline(USUAL, SelectFromModel(LogisticRegression())),
        make_pipeline(USUAL, VarianceThreshold(0.05), MaxAbsScaler()),
        make_pipeline(columns(*USUAL.transformers, sparse_threshold=0), StandardScaler(), PCA(3)),
        make_pipeline(USUAL, TruncatedSVD(4)),
        make_pipeline(USUAL, Normalizer()),
        make_pipeline(
            columns(("n", OneHotEncoder(), ["n"]), ("b", "passthrough", ["b"])), PolynomialFeatures()
        ),
        make_pipeline(columns(*USUAL.transformers, sparse_threshold=0), SimpleImputer(add_indicator=True)),
        make_pipeline(
            columns(*USUAL.transformers, sparse_threshold=0),
            columns(("scaled", MinMaxScaler(), [4, 0]), ("as", "passthrough", [5, 1])),
        ),
        make_pipeline(
            columns(*USUAL.transformers, sparse_threshold=0),
            FeatureUnion([("as", "passthrough"), ("main", PCA(2))]),
        ),
        columns(
            ("bins", make_pipeline(KBinsDiscretizer(4), MaxAbsScaler()), ["b", "n"]),
            ("all", OneHotEncoder(handle_unknown="ignore"), ["n"]),
        ),
    ],
)
def test_one_hot_columns_can_be_changed(transformer: Any) -> None:
    fitted = clone(transformer).fit(frame(), Y)
    unseen = frame(50, seed=2)
    if "ignore" in str(transformer):
        unseen.loc[:10, "t"] = "unseen"
    same(fitted, frame(), frame(100, seed=1), unseen)


@pytest.mark.filterwarnings("ignore:Found unknown categories:UserWarning")
@pytest.mark.parametrize("rare", [{}, {"min_frequency": 15}, {"max_categories": 2}, {"min_frequency": 45}])
@pytest.mark.parametrize("drop", [None, "first", "if_binary"])
@pytest.mark.parametrize("unknown", ["error", "ignore", "infrequent_if_exist"])
def test_columns_of_any_one_hot_encoder_are_the_same_after_it(rare: Any, drop: Any, unknown: str) -> None:
    encoder = OneHotEncoder(handle_unknown=unknown, drop=drop, **rare)
    fitted = make_pipeline(encoder, MaxAbsScaler()).fit(frame()[[*TEXTS, "n"]])
    data = frame(100, seed=1)[[*TEXTS, "n"]]
    ours = same(fitted, data)
    data.iloc[3:30:3, 0], data.iloc[4:30:3, 2] = "unseen", 77
    if unknown == "error":
        with pytest.raises(BadRequest, match="column 's', row 3: expected a category that was fitted"):
            ours.apply(data)
    else:
        same(fitted, data)
        again = same(encoder.fit(frame()[[*TEXTS, "n"]]), data)
        refitted = clone(again.to_sklearn()).fit(frame()).transform(data)
        assert refitted.tobytes() == again.apply(data).tobytes()


@pytest.mark.parametrize(
    "transformer",
    [
        columns(*USUAL.transformers, transformer_weights={"num": 3, "cat": 0.25}),
        columns(
            ("as", "passthrough", ["b"]), ("gone", "drop", ["n"]), transformer_weights={"as": 2, "gone": 5}
        ),
        columns(
            (
                "both",
                FeatureUnion(
                    [("a", StandardScaler()), ("b", MinMaxScaler())], transformer_weights={"a": 10, "b": 0}
                ),
                NUMBERS,
            )
        ),
    ],
)
def test_branches_have_weights(transformer: Any) -> None:
    same(clone(transformer).fit(frame()), frame(100, seed=1))


@pytest.mark.parametrize(
    "transformer",
    [
        make_pipeline(make_pipeline("passthrough", USUAL), "passthrough"),
        make_pipeline(FunctionTransformer(), USUAL),
        FeatureUnion(
            [("num", columns(("n", NUMERIC, NUMBERS))), ("cat", columns(("c", OneHotEncoder(), TEXTS)))]
        ),
        columns(
            ("inner", columns(("n", NUMERIC, NUMBERS), ("b", MinMaxScaler(), ["b"])), NUMBERS),
            ("cat", OneHotEncoder(), TEXTS),
        ),
    ],
)
def test_columns_that_nothing_takes_may_hold_anything(transformer: Any) -> None:
    """Those that a ColumnTransformer leaves out were read as numbers if it stood within something else."""
    fitted = clone(transformer).fit(frame().assign(other="text"))
    ours = same(fitted, frame(100, seed=1).assign(other="text"))
    assert "other" not in [field.name for field in ours.inputs]


def test_what_is_missing_is_indicated() -> None:
    parts = [
        ("filled", SimpleImputer()),
        ("gaps", MissingIndicator()),
        ("all", MissingIndicator(features="all")),
    ]
    same(FeatureUnion(parts).fit(frame()[NUMBERS]), frame()[NUMBERS])


@pytest.mark.parametrize("target", [Y, np.array(["no", "maybe", "yes"])[Y]], ids=["numbers", "texts"])
def test_a_mean_for_each_of_many_classes(target: Any) -> None:
    data = frame(100, seed=1)
    data.loc[:5, "s"] = "unseen"
    fitted = make_pipeline(columns(("t", TargetEncoder(), [*TEXTS, "n"])), StandardScaler()).fit(
        frame(), target
    )
    assert same(fitted, data).outputs[:3] == tuple(f"t__s_{field}" for field in np.unique(target))


def test_largest_magnitudes_are_clipped() -> None:
    data = pd.DataFrame({"a": [-4.0, np.nan, 2.0], "b": [0.0, 0.0, 0.0]})
    fitted = MaxAbsScaler(clip=True).fit(data)
    same(fitted, data * 3, data)


def test_logarithms_of_any_base() -> None:
    parts = [("two", FunctionTransformer(np.log2)), ("ten", FunctionTransformer(np.log10))]
    same(FeatureUnion(parts).fit(frame()[["b"]]), frame()[["b"]])


def test_categories_that_are_times_are_refused() -> None:
    times = pd.DataFrame({"when": pd.date_range("2024-01-01", periods=3)})
    for encoder in (OneHotEncoder(), OrdinalEncoder()):
        with pytest.raises(
            BadRequest, match=r"categories of 'when': expected strings or numbers, got .*2024-01"
        ):
            dl.Transform.from_sklearn(encoder.fit(times))


REAL = st.floats(-100, 100).map(lambda x: x if abs(x) > 1e-6 else 0.0)
ROWS = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(REAL, min_size=width, max_size=width), min_size=width + 2, max_size=30)
)


def same_matrix(fitted: Any, x: Any) -> None:
    ours, theirs = dl.Transform.from_sklearn(fitted).apply(x), fitted.transform(x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * max(1, np.abs(theirs).max()))


@settings(max_examples=60, deadline=None)
@given(ROWS, st.sampled_from(["l1", "l2"]))
def test_rows_of_length_one_are_those_of_scikit_learn(rows: Any, norm: str) -> None:
    x = np.array([*rows, [0.0] * len(rows[0])])
    same_matrix(Normalizer(norm).fit(x), x)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(max_examples=60, deadline=None)
@given(ROWS, st.sampled_from([PCA(), PCA(1), IncrementalPCA(), TruncatedSVD(1), "whiten"]))
def test_components_are_those_of_scikit_learn(rows: Any, kind: Any) -> None:
    x = np.array(rows)
    assume(x.std(axis=0).min() > 1e-3 and (x.shape[1] > 1 or not isinstance(kind, TruncatedSVD)))
    if kind == "whiten":
        kind = PCA(1, whiten=True)
    same_matrix(clone(kind).fit(x), x[::-1])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(REAL, min_size=5, max_size=40, unique=True),
    st.lists(st.floats(-300, 300)),
    st.integers(2, 6),
    st.integers(1, 4),
    st.sampled_from(["constant", "linear", "continue", "periodic"]),
    st.sampled_from(["uniform", "quantile"]),
    st.booleans(),
)
def test_splines_are_those_of_scikit_learn(
    seen: Any, unseen: Any, knots: int, degree: int, extrapolation: str, where: str, bias: bool
) -> None:
    x = np.array(seen)[:, None]
    assume(np.ptp(x) > 1 and (where == "uniform" or np.diff(np.sort(seen)).min() > 0.1))
    assume(extrapolation != "periodic" or degree < knots)
    spline = SplineTransformer(
        knots, degree, knots=where, extrapolation=extrapolation, include_bias=bias
    ).fit(x)
    assume(spline.n_features_out_ > 0)
    now = np.array([*seen, *unseen])[:, None]
    same_matrix(spline, now)


@pytest.mark.parametrize("extrapolation", ["constant", "linear", "continue", "periodic"])
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize(("low", "high"), [(-0.2, 9), (-9, 0.3), (-0.4, 0.3)])
def test_splines_of_values_that_repeat_at_the_ends(
    extrapolation: str, degree: int, low: float, high: float
) -> None:
    x = np.clip(np.random.default_rng(0).normal(size=(200, 1)), low, high)
    now = np.concatenate([x, x * 2, [[-12.0], [12.0]]])
    for knots in (4, 5, 9):
        same_matrix(
            SplineTransformer(knots, degree, knots="quantile", extrapolation=extrapolation).fit(x), now
        )


def test_splines_of_the_hours_of_a_day_and_of_nothing() -> None:
    hours = np.linspace(0, 24, 13)[:, None]
    x = np.arange(-30.0, 60.0, 0.5)[:, None]
    same_matrix(SplineTransformer(knots=hours, extrapolation="periodic", include_bias=False).fit(x), x)
    gaps = np.where(np.arange(len(x))[:, None] % 7 == 0, np.nan, x)
    same_matrix(SplineTransformer(handle_missing="zeros").fit(gaps), gaps)
