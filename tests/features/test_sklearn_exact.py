"""What scikit-learn tells apart and steps can't is refused at import, not read wrongly in silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, make_pipeline
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

ENCODER = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
FILLED = make_pipeline(SimpleImputer(strategy="most_frequent"), ENCODER)


def texts(missing: Any, often: int = 1) -> pd.DataFrame:
    return pd.DataFrame({"s": np.array(["x", "x", "y", "z", *[missing] * often], object)})


@pytest.mark.parametrize(
    ("transformer", "often"),
    [
        (FILLED, 1),
        (SimpleImputer(strategy="most_frequent"), 3),  # None is the most frequent value
        (FeatureUnion([("codes", OrdinalEncoder()), ("gaps", MissingIndicator(features="all"))]), 1),
        (FeatureUnion([("gaps", MissingIndicator(features="all")), ("codes", ENCODER)]), 1),
    ],
)
def test_none_that_is_not_missing_is_refused(transformer: Any, often: int) -> None:
    fitted = transformer.fit(texts(None, often))
    with pytest.raises(BadRequest, match="column 's': expected NaN or None for what is missing, got both"):
        dl.Transform.from_sklearn(fitted)


@pytest.mark.parametrize(
    "transformer",
    [
        FILLED,
        FeatureUnion([("codes", ENCODER), ("gaps", MissingIndicator(features="all"))]),
        make_pipeline(OrdinalEncoder(), SimpleImputer(add_indicator=True), StandardScaler()),
    ],
)
def test_nan_is_missing(transformer: Any) -> None:
    data = texts(np.nan)
    fitted = transformer.fit(data)
    np.testing.assert_allclose(dl.Transform.from_sklearn(fitted).apply(data), fitted.transform(data), 1e-6)


def test_products_of_encoded_text_are_numbers() -> None:
    data = texts(np.nan)
    fitted = make_pipeline(ENCODER, PolynomialFeatures(2), StandardScaler()).fit(data)
    np.testing.assert_allclose(
        dl.Transform.from_sklearn(fitted).apply(data), fitted.transform(data), 1e-6, 1e-7
    )


def test_codes_of_none_are_codes() -> None:
    data = texts(None)
    fitted = make_pipeline(OrdinalEncoder(), SimpleImputer()).fit(data)
    assert dl.Transform.from_sklearn(fitted).apply(data).tolist() == fitted.transform(data).tolist()


X = np.random.default_rng(0).integers(1, 40, (300, 3)) / 7
CODES = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
TIES = QuantileTransformer(n_quantiles=100)


@pytest.mark.parametrize(
    ("transformers", "what"),
    [
        ([FunctionTransformer(np.log1p), CODES], "categories"),
        ([FunctionTransformer(np.sqrt), StandardScaler(), ENCODER], "categories"),
        ([FunctionTransformer(np.log1p), SimpleImputer(), KBinsDiscretizer(5)], "bins"),
        ([FunctionTransformer(np.log1p), FeatureUnion([("t", TIES)])], "repeated quantiles"),
        ([PowerTransformer(), TargetEncoder()], "categories"),
        ([PowerTransformer(), PolynomialFeatures(2), CODES], "categories"),
        ([QuantileTransformer(n_quantiles=50), CODES], "categories"),
        ([PolynomialFeatures(3), CODES], "categories"),
        ([PCA(), Binarizer()], "thresholds"),
        ([TruncatedSVD(), CODES], "categories"),
        ([SplineTransformer(), CODES], "categories"),
        ([FunctionTransformer(np.log1p), SplineTransformer(60, knots="quantile")], "repeated knots"),
        ([Normalizer(), CODES], "categories"),
    ],
)
def test_what_compares_computed_numbers_is_refused(transformers: Any, what: str) -> None:
    """Categories that were fitted were taken as unknown, values at an edge fell into the next bin."""
    fitted = make_pipeline(*transformers).fit(X, np.arange(len(X)) % 2)
    with pytest.raises(BadRequest, match=f": {what} of computed numbers can't be imported: rounding differs"):
        dl.Transform.from_sklearn(fitted)


@pytest.mark.parametrize(
    "transformers",
    [
        [SimpleImputer(), StandardScaler()],
        [MinMaxScaler((-1, 3))],
        [MaxAbsScaler(), RobustScaler()],
        [PolynomialFeatures(2, include_bias=False)],
        [OrdinalEncoder()],
    ],
)
@pytest.mark.parametrize("last", [CODES, KBinsDiscretizer(5, encode="ordinal"), TIES])
def test_exact_numbers_may_be_compared(transformers: Any, last: Any) -> None:
    fitted = make_pipeline(*transformers, last).fit(X)
    np.testing.assert_allclose(dl.Transform.from_sklearn(fitted).apply(X), fitted.transform(X), 1e-6, 1e-7)


def test_quantiles_without_ties_may_be_of_computed_numbers() -> None:
    x = np.random.default_rng(1).exponential(size=(300, 1))
    fitted = make_pipeline(FunctionTransformer(np.log1p), QuantileTransformer(n_quantiles=100)).fit(x)
    np.testing.assert_allclose(dl.Transform.from_sklearn(fitted).apply(x), fitted.transform(x), 1e-6, 1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [0.0, 1e-15, 1e-12, 1e-6, 1e-5, 1.0])
def test_a_range_of_almost_nothing_is_that_of_a_constant(dtype: Any, width: float) -> None:
    x = np.array([[0.0], [width / 2], [width]], dtype)
    fitted = MinMaxScaler((-1, 2)).fit(x)
    np.testing.assert_allclose(dl.Transform.from_sklearn(fitted).apply(x), fitted.transform(x), 1e-6, 1e-6)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_rows_of_almost_nothing_are_not_made_longer(norm: str) -> None:
    """scikit-learn takes lengths below 10 machine epsilons as rounding errors, and divides by 1."""
    x = np.array([[3.0, -4.0], [0.0, 0.0], [3e-16, -4e-16], [3e-15, 4e-15], [np.inf, 1.0], [np.nan, 1.0]])
    ours = dl.Transform.from_sklearn(Normalizer(norm).fit(x[:4]))
    np.testing.assert_allclose(ours.apply(x[:4]), Normalizer(norm).transform(x[:4]), 1e-6)
    assert np.isnan(ours.apply(x[4:])).tolist() == [[True, False], [True, True]]
