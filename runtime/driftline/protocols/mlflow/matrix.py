"""Rows of numbers that are a model's only input unchanged, without making columns of them in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from driftline.errors import BadRequest
from driftline.mlmodel import Column, MlflowSignature, Tensor
from driftline.protocols import numbers
from driftline.tensors import Signature, Tensors, TensorSpec, coerce

_INTEGERS = {"integer", "long"}
_MAX_INTEGER = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Matrix:
    """How a table of numbers becomes the input of a model.

    names         of the columns, in the order of the input; None if any will do
    integers      which of them are whole numbers
    from_tables   whether the input may come as a table
    from_tensors  whether it may come as `inputs` or `instances`
    """

    spec: TensorSpec
    names: tuple[str, ...] | None
    integers: tuple[int, ...]
    from_tables: bool
    from_tensors: bool

    @classmethod
    def of(cls, signature: Signature, declared: MlflowSignature) -> Self | None:
        """Return the matrix of a model; None if it has other inputs, or declared types that need checks."""
        spec, schema = signature.inputs[0], declared.inputs
        if len(signature.inputs) > 1 or not numbers.readable(spec) or len(spec.shape) != 2:
            return None
        if not schema:
            return cls(spec, spec.column_names or None, (), True, True)
        if isinstance(schema[0], Tensor):
            is_same = (schema[0].dtype, schema[0].shape) == (spec.datatype.dtype, spec.shape)
            return cls(spec, None, (), False, True) if is_same and len(schema) == 1 else None
        columns = [column for column in schema if isinstance(column, Column) and column.name is not None]
        exact = _INTEGERS | ({"double"} if spec.datatype.name == "FP64" else {"double", "float"})
        if (
            spec.datatype.dtype.kind != "f"
            or not columns
            or spec.column_names not in ((), tuple(column.name for column in columns))
            or any(column.type.name not in exact for column in columns)
        ):
            return None
        integers = tuple(index for index, column in enumerate(columns) if column.type.name in _INTEGERS)
        return cls(spec, tuple(str(column.name) for column in columns), integers, True, False)

    def is_unchanged(self, key: str, value: Any) -> bool:
        """Return whether the numbers of this request, and of all like it, are the input unchanged."""
        if key == "dataframe_split":
            names = None if value.get("columns") is None else tuple(value["columns"])
            return self.from_tables and not self.integers and self._is_in_order(names)
        return self.from_tensors and key != "dataframe_records" and type(value) is list

    def _is_in_order(self, names: tuple[Any, ...] | None) -> bool:
        """Whether columns of these names, or of none, are those of the input as they stand."""
        return self.names in (None, names) or (names is None and self.from_tensors)

    def read(self, names: tuple[Any, ...] | None, rows: Any) -> Tensors | None:
        """Return the input from a table's rows; None if that takes more work, or something is wrong."""
        if not self.from_tables:
            return None
        try:
            array = coerce(self.spec, rows)
        except BadRequest:
            return None
        if array.ndim != 2 or len(array) == 0 or (names is not None and len(names) != array.shape[1]):
            return None
        if not self._is_in_order(names):
            expected = self.names or ()
            if names is None or len(set(names)) < len(names) or not set(expected).issubset(names):
                return None
            array = np.take(array, [names.index(name) for name in expected], axis=1)
        if self.integers:
            values = array[:, self.integers]
            if not np.array_equal(values, np.trunc(values)) or np.abs(values).max() > _MAX_INTEGER:
                return None
        return {self.spec.name: array} if self.spec.accepts(array.shape) else None
