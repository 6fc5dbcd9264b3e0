"""A transform in front of a model: raw columns instead of its input matrix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from driftline.errors import ModelError, listed
from driftline.tensors import DATATYPES, Signature, Tensors, TensorSpec

if TYPE_CHECKING:
    from driftline.features.transform import Transform

DATATYPE = {"number": "FP64", "string": "BYTES", "datetime": "BYTES"}
"""Datatypes of raw columns as tensors, by kind; dates and times are ISO 8601 text."""

EXAMPLE = {
    "number": np.float64(0),
    "string": np.array("", object),
    "datetime": np.array("1970-01-01", object),
}
"""A value of each kind of raw column."""


@dataclass(frozen=True, slots=True)
class Features:
    """A transform in front of a model.

    signature  of transform and model together: a tensor for each raw column
    matrix     the name of the model's input
    """

    signature: Signature
    transform: Transform
    matrix: str

    @classmethod
    def of(cls, path: Path, model: Signature) -> Features:
        """Read a transform for a model.

        path   of the transform.json
        model  the signature of the model, which has to take one matrix as wide as the transform's

        Raises ModelError if the model takes anything else, BadRequest if the file is no transform.
        """
        from driftline.features.transform import Transform  # compiled code, which other models do not need

        transform = Transform.load(path)
        matrix = model.inputs[0]
        fits = len(model.inputs) == 1 and matrix.datatype.name == "FP32" and len(matrix.shape) == 2
        if not fits or matrix.shape[1] not in (-1, transform.width):
            inputs = ", ".join(
                f"{spec.name} {spec.datatype.name} {list(spec.shape)}" for spec in model.inputs
            )
            raise ModelError(
                f"{path}: expected a model of one input FP32 [-1, {transform.width}], which the transform "
                f"makes, got one of {inputs}"
            )
        produced, expected = transform.outputs, matrix.column_names
        if produced != expected and sorted(produced) == sorted(expected):
            raise ModelError(
                f"{path}: expected columns in the model's order, {listed(expected)}, got {listed(produced)}"
            )
        columns = tuple(
            TensorSpec(column.name, DATATYPES[DATATYPE[column.kind]], (-1,), raw=True)
            for column in transform.inputs
        )
        return cls(Signature(columns, model.outputs, model.batched), transform, matrix.name)

    def example(self, rows: int) -> Tensors:
        """Return `rows` rows of raw columns that the transform can read, to warm up with."""
        return {column.name: np.full(rows, EXAMPLE[column.kind]) for column in self.transform.inputs}

    @property
    def unreadable(self) -> dict[str, int]:
        """The number of values that could not be read and were treated as missing, by column."""
        return dict(self.transform.errors)

    def apply(self, columns: Tensors) -> Tensors:
        """Return the model's input; BadRequest names column, row and value if something can't be read."""
        return {self.matrix: self.transform.apply(columns)}
