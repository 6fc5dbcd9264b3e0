"""XGBoost's models: its own files, and those of its scikit-learn interface."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

from driftline.convert.example import Example
from driftline.convert.kinds import TRUST
from driftline.convert.source import Source
from driftline.errors import BadRequest, listed
from driftline.tensors import Array


def native(model: Any, source: Source) -> XgboostModel:
    """Load a file, or take a booster or a model of the scikit-learn interface.

    Raises BadRequest if it splits on categories.
    """
    if isinstance(model, xgboost.XGBModel):
        return XgboostModel(model, source.path)
    booster = model if isinstance(model, xgboost.Booster) else xgboost.Booster(model_file=model)
    return XgboostModel(_sklearn_model_of(booster), source.path)


class XgboostModel:
    """Boosted trees: a matrix in; `label` and `probabilities` of a classifier, else `variable` out."""

    kind = "xgboost"
    texts = ()  # trees have numbers only

    def __init__(self, model: Any, path: Path) -> None:
        self._model = model
        booster = model.get_booster()
        self._columns = tuple(booster.feature_names or ())
        types = booster.feature_types or ()
        if categorical := [index for index, name in enumerate(types) if name == "c"]:
            names = listed(repr(self._columns[index]) if self._columns else index for index in categorical)
            raise BadRequest(
                f"{path}: can't be converted to ONNX: categorical columns ({names}) of XGBoost; trained on "
                f"numbers instead, one-hot say, it can; an MLflow model is served as it is by {TRUST}"
            )
        self._width = booster.num_features()
        # The converter supports columns by number only.
        booster.feature_names = booster.feature_types = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it was fitted on, if it was a DataFrame."""
        return self._columns

    @property
    def classes(self) -> Array | None:
        """A classifier's classes, which are numbers from 0 on."""
        is_classifier = isinstance(self._model, xgboost.XGBClassifier)
        return np.arange(self._model.n_classes_) if is_classifier else None

    def export(self, example: Example, path: Path) -> None:
        """Write it as ONNX."""
        types = [("input", FloatTensorType([None, self._width]))]
        path.write_bytes(convert_xgboost(self._model, initial_types=types).SerializeToString())

    def predict(self, example: Example) -> list[Array]:
        """Return labels and probabilities, or numbers."""
        matrix = example.matrix()
        outputs = [np.asarray(self._model.predict(matrix))]
        if isinstance(self._model, xgboost.XGBClassifier):
            outputs.append(self._model.predict_proba(matrix))
        return outputs


def _sklearn_model_of(booster: Any) -> Any:
    """Return the model of the scikit-learn interface for a booster's objective."""
    objective = json.loads(booster.save_config())["learner"]["learner_train_param"]["objective"]
    family = objective.partition(":")[0]
    interfaces = {"binary": xgboost.XGBClassifier, "multi": xgboost.XGBClassifier, "rank": xgboost.XGBRanker}
    model = interfaces.get(family, xgboost.XGBRegressor)()
    model.load_model(booster.save_raw("ubj"))
    return model
