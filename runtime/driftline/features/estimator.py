"""A transform as an estimator of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from sklearn.base import BaseEstimator, TransformerMixin

from driftline.features.spec import Step
from driftline.features.transform import Transform
from driftline.tensors import Array


class TransformEstimator(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Steps as a transformer in a Pipeline; `transform_` is the fitted Transform, to be saved in the bundle.

    The model in the Pipeline is trained on the matrix of `Transform.fit_apply`.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Fit the steps to X, columns by name."""
        self.transform_ = Transform(self.steps).fit(X, y)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Array:  # noqa: N803
        """Fit, and return the matrix to train a model on."""
        self.transform_ = Transform(self.steps)
        return self.transform_.fit_apply(X, y)

    def transform(self, X: Any) -> Array:  # noqa: N803
        """Return the features of X."""
        return self.transform_.apply(X)

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Return the names of the matrix's columns."""
        import numpy as np

        return np.asarray(self.transform_.outputs, object)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "transform_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.allow_nan, tags.no_validation = True, True, True
        return tags
