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
    came: str
    ties: int = 0

    def __str__(self) -> str:
        ties = f"; rows whose label is another one with the same score: {self.ties}" if self.ties else ""
        if self.value == 0:
            return f"no difference{ties}"
        where = f"in output {self.output!r}, row {self.row}"
        return f"{self.value:.2g} {where}: expected {self.expected}, got {self.came}{ties}"


def largest(model: Model, native: Native, example: Example) -> Difference:
    """Return the largest difference on the rows of an example, run together and the first one alone.

    A classifier may give another label with the same score, when half of a forest's trees vote for one and
    half for the other.

    Raises BadRequest if the ONNX model does not take the rows, or gives other shapes.
    """
    inputs = inputs_of(model, example)
    came = dict(model.predict(inputs))
    if model.signature.batched:
        alone = model.predict({name: array[:1] for name, array in inputs.items()})
        for name, array in alone.items():
            came[name] = np.concatenate([array, came[name][1:]]) if len(came[name]) else array
    expected = native.predict(example)
    names = [spec.name for spec in model.signature.outputs]
    ties = 0
    if native.classes is not None and expected[0].ndim == 1 and came[names[0]].size == len(expected[0]):
        labels = came[names[0]].ravel()
        same = tied(labels, expected[0], expected[1], native.classes)
        came[names[0]] = np.where(same, expected[0].astype(labels.dtype), labels)
        ties = int(same.sum())
    pairs = zip(names, expected, strict=False)
    found = [_between(name, came[name], want) for name, want in pairs]
    return replace(max(found, key=lambda difference: difference.value), ties=ties)


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


def tied(came: Array, want: Array, scores: Array, classes: Array) -> Array:
    """Return (rows,) whether a label differs from the expected one but has the best score, too.

    came, want  (rows,) labels
    scores      (rows, classes), none below 0, of the model that gave `want`
    classes     the labels of the columns of the scores
    """
    said, wanted, known = (
        np.asarray(labels).astype(came.dtype).astype(str) for labels in (came, want, classes)
    )
    columns = {label: column for column, label in enumerate(known.tolist())}
    places = np.array([columns.get(label, -1) for label in said.tolist()], np.intp)
    best, found = scores.max(axis=1), scores[np.arange(len(scores)), places]
    return np.asarray((said != wanted) & (places >= 0) & (best > TIE) & (found >= best * (1 - TIE)))


def _between(name: str, came: Array, want: Array) -> Difference:
    want = np.asarray(want)
    if came.size != want.size or came.shape[:1] != want.shape[:1]:
        raise BadRequest(f"output {name!r}: expected shape {list(want.shape)}, got {list(came.shape)}")
    came = came.reshape(want.shape)
    if want.dtype.kind == "f" and came.dtype != object:
        both = came.astype(np.float64), want.astype(np.float64)
        with np.errstate(invalid="ignore"):
            differences = np.abs(both[0] - both[1]) / np.maximum(1.0, np.abs(both[1]))
        differences[(both[0] == both[1]) | (np.isnan(both[0]) & np.isnan(both[1]))] = 0.0
        differences[np.isnan(differences)] = np.inf
    else:
        differences = np.where(came.astype(str) == want.astype(came.dtype).astype(str), 0.0, np.inf)
    at = np.unravel_index(int(differences.argmax()), differences.shape)
    expected, found = (array[at].item() if array.dtype != object else array[at] for array in (want, came))
    return Difference(float(differences[at]), name, int(at[0]), shorten(expected), shorten(found))
