"""scikit-learn's models: estimators and pipelines, including any with XGBoost or LightGBM models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx.common import data_types
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)
from skl2onnx.proto import get_latest_tested_opset_version
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from driftline.convert.example import Example
from driftline.convert.kinds import reason
from driftline.convert.source import Source
from driftline.errors import BadRequest
from driftline.tensors import Array

_ML_OPSET = 3
"""The newest version that XGBoost's and LightGBM's converters support."""


def native(model: Any, source: Source) -> SklearnModel:
    """Take an estimator, or load a skops file, which has no code, only the names of what it needs."""
    return SklearnModel(_load_skops(model) if isinstance(model, Path) else model)


class SklearnModel:
    """An estimator: its input is one matrix of numbers, or single columns if it selects them itself."""

    kind = "sklearn"

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it was fitted on, if it was a DataFrame, without those that its first step drops."""
        fitted = tuple(map(str, getattr(self._estimator, "feature_names_in_", ())))
        first = self._estimator
        while isinstance(first, Pipeline):
            first = first[0]
        branches = _branches(first) if isinstance(first, ColumnTransformer) else []
        if not all(_is_by_name(selection) for _, selection, _ in branches):
            return fitted
        selected = {name for _, _, names in branches for name in names}
        return tuple(name for name in fitted if name in selected) or fitted

    @property
    def texts(self) -> set[str]:
        """The columns whose learnt categories or fill values are text."""
        return _texts(self._estimator, self.columns)

    @property
    def classes(self) -> Array | None:
        """The classes of a classifier with probabilities; None if it predicts several labels at once."""
        classes = getattr(self._estimator, "classes_", None) if self._has_scores() else None
        return classes if isinstance(classes, np.ndarray) else None

    def export(self, example: Example, path: Path) -> None:
        """Write it as ONNX: a classifier gives `label` and `probabilities`, with a column for each class."""
        register_boosters()
        types = self._input_types(example)
        try:
            model = _to_onnx(self._estimator, types)
        except Exception as error:  # whatever converters raise
            if not self._has_transform():
                raise
            raise BadRequest(
                f"can't be converted to ONNX in one: {reason(error)}; its first step can be a transform "
                "beside the rest: dl.Transform.from_sklearn(pipeline[0]).save('transform.json'), and convert "
                "pipeline[1:], with the rows that pipeline[0] makes as --data FILE.npy"
            ) from error
        _rename_inputs(model.graph, [name for name, _ in types])
        path.write_bytes(model.SerializeToString())

    def predict(self, example: Example) -> list[Array]:
        """Return labels and probabilities, or the outputs of another kind of model."""
        rows = example.data
        if example.is_table and not self.columns:  # fitted on a matrix, it expects one
            rows = rows.to_numpy()
        if not hasattr(self._estimator, "predict"):
            return [self._estimator.transform(rows)]
        outputs = [np.asarray(self._estimator.predict(rows))]
        if self._has_scores():
            outputs.append(self._estimator.predict_proba(rows))
        return outputs

    def _has_scores(self) -> bool:
        return is_classifier(self._estimator) and hasattr(self._estimator, "predict_proba")

    def _input_types(self, example: Example) -> list[tuple[str, Any]]:
        if not example.is_table or not self._selects_columns():
            return [("input", data_types.FloatTensorType([None, example.matrix().shape[1]]))]
        return [(name, _onnx_type(array)) for name, array in example.arrays.items()]

    def _has_transform(self) -> bool:
        """Return whether a pipeline's first step can be a transform, and the rest can be converted."""
        if not isinstance(self._estimator, Pipeline) or len(self._estimator) < 2:
            return False
        from driftline.features.transform import Transform  # compiled code, which few conversions need

        try:
            width = Transform.from_sklearn(self._estimator[0]).width
            _to_onnx(self._estimator[1:], [("input", data_types.FloatTensorType([None, width]))])
        except Exception:  # as above
            return False
        return True

    def _selects_columns(self) -> bool:
        parts = [self._estimator, *self._estimator.get_params(deep=True).values()]
        return any(isinstance(part, ColumnTransformer) for part in parts)


def _to_onnx(estimator: Any, types: list[tuple[str, Any]]) -> Any:
    return convert_sklearn(
        estimator,
        initial_types=types,
        options={"zipmap": False} if is_classifier(estimator) else None,
        target_opset={"": get_latest_tested_opset_version(), "ai.onnx.ml": _ML_OPSET},
    )


def _rename_inputs(graph: Any, names: Sequence[str]) -> None:
    """Give the inputs these names: the converter has underscores for all but letters and digits.

    A name that is an output's, too, stays as the converter has it.
    """
    outputs = {output.name for output in graph.output}
    pairs = zip(graph.input, names, strict=True)
    new_names = {tensor.name: name for tensor, name in pairs if name not in outputs}
    for tensor in graph.input:
        tensor.name = new_names.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [new_names.get(name, name) for name in node.input]


def _branches(selector: Any) -> list[tuple[Any, Any, list[str]]]:
    """Return what a fitted ColumnTransformer does not drop: each transformer, its selection of columns, and
    the names of those columns. Empty if it was fitted on a matrix."""
    names: Any = getattr(selector, "feature_names_in_", None)
    return [
        (step, selection, [str(names[index]) for index in selector._transformer_to_input_indices[name]])
        for name, step, selection in (selector.transformers_ if names is not None else ())
        if not (isinstance(step, str) and step == "drop")
    ]


def _is_by_name(selection: Any) -> bool:
    """Return whether columns are selected by name, not by position, which depends on the other columns."""
    return isinstance(selection, Iterable) and all(isinstance(name, str) for name in selection)


def _texts(estimator: Any, columns: Sequence[str]) -> set[str]:
    """Return those of a fitted estimator's columns that it knows to be text."""
    if isinstance(estimator, ColumnTransformer):
        return {text for step, _, names in _branches(estimator) for text in _texts(step, names)}
    if isinstance(estimator, Pipeline):
        return _texts(estimator[0], columns)
    learnt = getattr(estimator, "categories_", getattr(estimator, "statistics_", ()))
    pairs = zip(columns, learnt, strict=False)
    return {name for name, values in pairs if any(isinstance(value, str) for value in np.ravel(values))}


def _onnx_type(array: Array) -> Any:
    """Return the type of a column: text, or else a number, since converters mix no other types."""
    text = array.dtype.kind not in "fiub"
    return (data_types.StringTensorType if text else data_types.FloatTensorType)([None, 1])


def _load_skops(path: Path) -> Any:
    try:
        from skops import io
    except ImportError as error:
        raise BadRequest(f"{path}: read with skops ({error}); pip install 'driftline[sklearn]'") from error
    return io.load(path)


def register_boosters() -> None:
    """Let scikit-learn's converter convert XGBoost's and LightGBM's models, where they are installed."""
    with suppress(ImportError):
        from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
        from xgboost import XGBClassifier, XGBRegressor

        _register(XGBClassifier, XGBRegressor, convert_xgboost, {})
    with suppress(ImportError):
        from lightgbm import LGBMClassifier, LGBMRegressor
        from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

        _register(LGBMClassifier, LGBMRegressor, convert_lightgbm, {"split": None})


def _register(classifier: Any, regressor: Any, converter: Any, regressor_options: dict[str, Any]) -> None:
    classifier_options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    for model, shapes, options in (
        (classifier, calculate_linear_classifier_output_shapes, classifier_options),
        (regressor, calculate_linear_regressor_output_shapes, regressor_options),
    ):
        update_registered_converter(model, f"driftline{model.__name__}", shapes, converter, options=options)
