"""Rows of numbers that are a model's only input unchanged, without making columns of them in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from driftline.errors import BadRequest
from driftline.mlmodel import Column, MlflowSignature, Tensor
from driftline.protocols import numbers
from driftline.tensors import Signature, Tensors, TensorSpec, coerce

_WHOLE = {"integer", "long"}
_MOST_WHOLE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Matrix:
    """How a table of numbers becomes the input of a model.

    names    of the columns that are declared, in the order of the input; None if any will do
    whole    which of them are whole numbers
    tables   whether the input may come as a table
    tensors  whether it may come as `inputs` or `instances`
    """

    spec: TensorSpec
    names: tuple[str, ...] | None
    whole: tuple[int, ...]
    tables: bool
    tensors: bool

    @classmethod
    def of(cls, signature: Signature, declared: MlflowSignature) -> Self | None:
        """Return the matrix of a model; None if it has other inputs, or declared types that need checks."""
        spec, schema = signature.inputs[0], declared.inputs
        if len(signature.inputs) > 1 or not numbers.readable(spec) or len(spec.shape) != 2:
            return None
        if not schema:
            return cls(spec, None, (), True, True)
        if isinstance(schema[0], Tensor):
            same = (schema[0].dtype, schema[0].shape) == (spec.datatype.dtype, spec.shape)
            return cls(spec, None, (), False, True) if same and len(schema) == 1 else None
        columns = [one for one in schema if isinstance(one, Column) and one.name is not None]
        exact = _WHOLE | ({"double"} if spec.datatype.name == "FP64" else {"double", "float"})
        if (
            spec.datatype.dtype.kind != "f"
            or not columns
            or any(one.type.name not in exact for one in columns)
        ):
            return None
        whole = tuple(index for index, one in enumerate(columns) if one.type.name in _WHOLE)
        return cls(spec, tuple(str(one.name) for one in columns), whole, True, False)

    def is_all(self, key: str, value: Any) -> bool:
        """Return whether the numbers of this request, and of all like it, are the input unchanged."""
        if key == "dataframe_split":
            names = None if value.get("columns") is None else tuple(value["columns"])
            return self.tables and not self.whole and self.names in (None, names)
        return self.tensors and key != "dataframe_records" and type(value) is list

    def read(self, names: tuple[Any, ...] | None, rows: Any) -> Tensors | None:
        """Return the input from a table's rows; None if that takes more work, or something is wrong."""
        if not self.tables:
            return None
        try:
            array = coerce(self.spec, rows)
        except BadRequest:
            return None
        if array.ndim != 2 or len(array) == 0 or (names is not None and len(names) != array.shape[1]):
            return None
        if self.names not in (None, names):
            if names is None or len(set(names)) < len(names) or not set(self.names).issubset(names):
                return None
            array = np.take(array, [names.index(name) for name in self.names], axis=1)
        if self.whole:
            part = array[:, self.whole]
            if not np.array_equal(part, np.trunc(part)) or np.abs(part).max() > _MOST_WHOLE:
                return None
        return {self.spec.name: array} if self.spec.accepts(array.shape) else None
