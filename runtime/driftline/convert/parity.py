"""Measures how much the predictions of an ONNX model differ from those of the original model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from driftline.engine.model import Model
from driftline.errors import BadRequest
from driftline.tensors import Array, Tensors, TensorSpec, shorten

if TYPE_CHECKING:
    from driftline.convert.example import Example
    from driftline.convert.kinds import Native


TIE = 1e-6
"""Scores below the best one by less than this, relative to it, can't be told from it in 32-bit floats: the
class of any may be the label. If all scores are below this, they say nothing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two models differ most, and by how much.

    The difference of numbers is absolute below 1 and relative above; of different labels it is infinite.

    ties  number of rows whose labels differ but have the same score, which is not counted as a difference
    """

    value: float
    output: str
    row: int
    expected: str
    actual: str
    ties: int = 0

    def __str__(self) -> str:
        ties = f"; rows whose label is another one with the same score: {self.ties}" if self.ties else ""
        if self.value == 0:
            return f"no difference{ties}"
        where = f"in output {self.output!r}, row {self.row}"
        return f"{self.value:.2g} {where}: expected {self.expected}, got {self.actual}{ties}"


def largest_difference(model: Model, native: Native, example: Example) -> Difference:
    """Return the largest difference on the rows of an example, run together and the first one alone.

    A classifier may give another label with the same score, when half of a forest's trees vote for one and
    half for the other.

    Raises BadRequest if the ONNX model does not take the rows, or gives other shapes.
    """
    inputs = inputs_of(model, example)
    actual = dict(model.predict(inputs))
    if model.signature.batched:
        first_alone = model.predict({name: array[:1] for name, array in inputs.items()})
        for name, array in first_alone.items():
            actual[name] = np.concatenate([array, actual[name][1:]]) if len(actual[name]) else array
    expected = native.predict(example)
    names = [spec.name for spec in model.signature.outputs]
    ties = 0
    if native.classes is not None and expected[0].ndim == 1 and actual[names[0]].size == len(expected[0]):
        labels = actual[names[0]].ravel()
        is_tie = tied(labels, expected[0], expected[1], native.classes)
        actual[names[0]] = np.where(is_tie, expected[0].astype(labels.dtype), labels)
        ties = int(is_tie.sum())
    pairs = zip(names, expected, strict=False)
    differences = [_compare(name, actual[name], array) for name, array in pairs]
    return replace(max(differences, key=lambda difference: difference.value), ties=ties)


def inputs_of(model: Model, example: Example) -> Tensors:
    """Return an example as inputs of an ONNX model: all of it as its only tensor, else by name or order."""
    specs = model.signature.inputs
    if len(specs) == 1:
        if specs[0].datatype.dtype == object:
            return {specs[0].name: _cast(specs[0], next(iter(example.arrays.values())))}
        return {specs[0].name: example.matrix(specs[0].datatype.dtype.type)}
    arrays = example.arrays
    if len(arrays) != len(specs):
        raise BadRequest(f"expected {len(specs)} inputs in the example, got {len(arrays)}")
    if not {spec.name for spec in specs} <= arrays.keys():
        arrays = dict(zip((spec.name for spec in specs), arrays.values(), strict=True))
    return {spec.name: _cast(spec, arrays[spec.name]) for spec in specs}


def _cast(spec: TensorSpec, array: Array) -> Array:
    if spec.datatype.dtype == object:
        array = array.astype(np.str_).astype(object)
    return array.astype(spec.datatype.dtype, copy=False)


def tied(actual: Array, expected: Array, scores: Array, classes: Array) -> Array:
    """Return (rows,) whether a label differs from the expected one but has the best score, too.

    actual, expected  (rows,) labels
    scores            (rows, classes), none below 0, of the model that gave `expected`
    classes           the labels of the columns of the scores
    """
    actual_text, expected_text, class_text = (
        np.asarray(labels).astype(actual.dtype).astype(str) for labels in (actual, expected, classes)
    )
    column_of = {label: column for column, label in enumerate(class_text.tolist())}
    columns = np.array([column_of.get(label, -1) for label in actual_text.tolist()], np.intp)
    best, score = scores.max(axis=1), scores[np.arange(len(scores)), columns]
    differ = actual_text != expected_text
    return np.asarray(differ & (columns >= 0) & (best > TIE) & (score >= best * (1 - TIE)))


def _compare(name: str, actual: Array, expected: Array) -> Difference:
    expected = np.asarray(expected)
    if actual.size != expected.size or actual.shape[:1] != expected.shape[:1]:
        raise BadRequest(f"output {name!r}: expected shape {list(expected.shape)}, got {list(actual.shape)}")
    actual = actual.reshape(expected.shape)
    if expected.dtype.kind == "f" and actual.dtype != object:
        a, b = actual.astype(np.float64), expected.astype(np.float64)
        with np.errstate(invalid="ignore"):
            differences = np.abs(a - b) / np.maximum(1.0, np.abs(b))
        differences[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
        differences[np.isnan(differences)] = np.inf
    else:
        differences = np.where(actual.astype(str) == expected.astype(actual.dtype).astype(str), 0.0, np.inf)
    index = np.unravel_index(int(differences.argmax()), differences.shape)
    expected_value, actual_value = (
        array[index].item() if array.dtype != object else array[index] for array in (expected, actual)
    )
    return Difference(
        float(differences[index]), name, int(index[0]), shorten(expected_value), shorten(actual_value)
    )
