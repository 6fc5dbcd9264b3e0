"""How far an ONNX model is from what it was made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from driftline.engine.model import Model
from driftline.errors import BadRequest
from driftline.tensors import Array, Tensors, TensorSpec, shorten

if TYPE_CHECKING:
    from driftline.convert.example import Example
    from driftline.convert.kinds import Native


TIE = 1e-6
"""Between classes whose scores are no further apart, floats of 32 bits can't tell: either is the label."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two models differ most, and by how much.

    The difference of numbers is absolute below 1 and relative above; of different labels it is infinite.
    """

    value: float
    output: str
    row: int
    expected: str
    came: str

    def __str__(self) -> str:
        if self.value == 0:
            return "no difference"
        where = f"in output {self.output!r}, row {self.row}"
        return f"{self.value:.2g} {where}: expected {self.expected}, came {self.came}"


def largest(model: Model, native: Native, example: Example) -> Difference:
    """The largest difference on the rows of an example, run together and the first one alone.

    Labels may differ where two classes have the same score, as half of a forest's trees say one and half the
    other.

    Raises BadRequest if the ONNX model does not take them, or gives other shapes.
    """
    inputs = inputs_of(model, example)
    came = dict(model.predict(inputs))
    if model.signature.batched:
        alone = model.predict({name: array[:1] for name, array in inputs.items()})
        for name, array in alone.items():
            came[name] = np.concatenate([array, came[name][1:]]) if len(came[name]) else array
    expected = native.predict(example)
    pairs = zip(model.signature.outputs, expected, strict=False)
    ties = _ties(expected)
    found = [_between(spec.name, came[spec.name], want, ties) for spec, want in pairs]
    return max(found, key=lambda difference: difference.value)


def inputs_of(model: Model, example: Example) -> Tensors:
    """An example as what an ONNX model takes: all of it as its only tensor, else by name or order."""
    specs = model.signature.inputs
    if len(specs) == 1:
        if specs[0].datatype.dtype == object:
            return {specs[0].name: _cast(specs[0], next(iter(example.arrays.values())))}
        return {specs[0].name: example.matrix(specs[0].datatype.dtype.type)}
    arrays = example.arrays
    if len(arrays) != len(specs):
        raise BadRequest(f"expected {len(specs)} inputs in the example, came {len(arrays)}")
    if not {spec.name for spec in specs} <= arrays.keys():
        arrays = dict(zip((spec.name for spec in specs), arrays.values(), strict=True))
    return {spec.name: _cast(spec, arrays[spec.name]) for spec in specs}


def _cast(spec: TensorSpec, array: Array) -> Array:
    if spec.datatype.dtype == object:
        array = array.astype(np.str_).astype(object)
    return array.astype(spec.datatype.dtype, copy=False)


def _ties(outputs: Iterable[Array]) -> Array | None:
    """(rows,) whether the two best classes have the same score; None if there are no scores of classes."""
    for output in map(np.asarray, outputs):
        if output.dtype.kind == "f" and output.ndim == 2 and output.shape[1] > 1:
            best = np.sort(output, axis=1)[:, -2:]
            return np.asarray(best[:, 1] - best[:, 0] <= TIE)
    return None


def _between(name: str, came: Array, want: Array, ties: Array | None) -> Difference:
    want = np.asarray(want)
    if came.size != want.size or came.shape[:1] != want.shape[:1]:
        raise BadRequest(f"output {name!r}: expected shape {list(want.shape)}, came {list(came.shape)}")
    came = came.reshape(want.shape)
    if want.dtype.kind == "f" and came.dtype != object:
        both = came.astype(np.float64), want.astype(np.float64)
        with np.errstate(invalid="ignore"):
            differences = np.abs(both[0] - both[1]) / np.maximum(1.0, np.abs(both[1]))
        differences[(both[0] == both[1]) | (np.isnan(both[0]) & np.isnan(both[1]))] = 0.0
        differences[np.isnan(differences)] = np.inf
    else:
        differences = np.where(came.astype(str) == want.astype(came.dtype).astype(str), 0.0, np.inf)
        if ties is not None and differences.ndim == 1:
            differences[ties] = 0.0
    at = np.unravel_index(int(differences.argmax()), differences.shape)
    expected, found = (array[at].item() if array.dtype != object else array[at] for array in (want, came))
    return Difference(float(differences[at]), name, int(at[0]), shorten(expected), shorten(found))
