"""LightGBM's models: its own files, and those of its scikit-learn interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from driftline.convert.example import Example
from driftline.convert.source import Source
from driftline.tensors import Array


def native(model: Any, source: Source) -> LightgbmModel:
    """Load a file, or take a booster or a model of the scikit-learn interface."""
    return LightgbmModel(lightgbm.Booster(model_file=model) if isinstance(model, Path) else model)


class LightgbmModel:
    """Boosted trees: a matrix in; `label` and `probabilities` of a classifier, else `variable` out."""

    kind = "lightgbm"
    texts = ()  # trees have numbers only

    def __init__(self, model: Any) -> None:
        self._model = model
        self._booster = model if isinstance(model, lightgbm.Booster) else model.booster_

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it was fitted on; none if it was a matrix, for which LightGBM makes up names."""
        names = tuple(self._booster.feature_name())
        return () if names == tuple(f"Column_{index}" for index in range(len(names))) else names

    @property
    def classes(self) -> Array | None:
        """A classifier's classes; in its own file they are numbers from 0 on."""
        objective = self._booster.dump_model(num_iteration=1).get("objective", "")
        if not objective.startswith(("binary", "multiclass")):
            return None
        count = max(2, self._booster.num_model_per_iteration())
        return np.asarray(getattr(self._model, "classes_", range(count)))

    def export(self, example: Example, path: Path) -> None:
        """Write it as ONNX."""
        types = [("input", FloatTensorType([None, self._booster.num_feature()]))]
        model = convert_lightgbm(self._model, initial_types=types, zipmap=False)
        for output in model.graph.output:  # it declares one label, whatever the number of rows
            output.type.tensor_type.shape.dim[0].ClearField("dim_value")
        path.write_bytes(model.SerializeToString())

    def predict(self, example: Example) -> list[Array]:
        """Return labels and probabilities, or numbers."""
        matrix = example.matrix(np.float64)
        scores = np.asarray(self._booster.predict(matrix))
        classes = self.classes
        if classes is None:
            return [scores]
        probabilities = np.stack([1 - scores, scores], axis=1) if scores.ndim == 1 else scores
        return [classes[probabilities.argmax(axis=1)], probabilities]
