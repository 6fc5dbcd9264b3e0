"""What scikit-learn tells apart and steps can't is refused at import, not read wrongly in silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

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


def test_codes_of_none_are_codes() -> None:
    data = texts(None)
    fitted = make_pipeline(OrdinalEncoder(), SimpleImputer()).fit(data)
    assert dl.Transform.from_sklearn(fitted).apply(data).tolist() == fitted.transform(data).tolist()
