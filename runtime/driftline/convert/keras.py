"""Keras' models, on TensorFlow: files that end in .keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from driftline.convert.example import Example
from driftline.convert.source import Source
from driftline.tensors import Array


def native(model: Any, source: Source) -> KerasModel:
    """Load a file, which Keras refuses if it has Python lambdas, or take a model."""
    return KerasModel(keras.models.load_model(model) if isinstance(model, Path) else model)


class KerasModel:
    """A model: tensors in and out, rows along the first dimension of each."""

    kind = "keras"
    columns: tuple[str, ...] = ()  # tensors have none
    texts = ()
    classes = None

    def __init__(self, model: Any) -> None:
        self._model = model

    def export(self, example: Example, path: Path) -> None:
        """Write it as ONNX."""
        self._predict(example)  # Keras exports only models that have been called
        self._model.export(path, format="onnx", verbose=False)

    def predict(self, example: Example) -> list[Array]:
        """Return its outputs: one tensor, several, or several by name."""
        outputs = self._predict(example)
        if isinstance(outputs, dict):
            outputs = list(outputs.values())
        return [np.asarray(array) for array in (outputs if isinstance(outputs, list) else [outputs])]

    def _predict(self, example: Example) -> Any:
        return self._model(example.matrix() if example.is_table else example.data, training=False)
