"""Tables as clients of MLflow send them, and how they become a model's input tensors."""

from __future__ import annotations

from collections.abc import Container, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from driftline.errors import BadRequest, shown
from driftline.protocols import matching
from driftline.tensors import Array, Signature, Tensors, TensorSpec, as_column, coerce

SPLIT_KEYS = {"columns", "index", "data"}


@dataclass(frozen=True, slots=True)
class Frame:
    """A table.

    names    of its columns, in order; numbers from 0 if they have none
    columns  the values of each: a list as JSON has it, or an array
    """

    names: tuple[Hashable, ...]
    columns: list[Any]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.columns[0]) if self.columns else 0

    def by_name(self) -> dict[Hashable, Any]:
        """Return the columns by name; BadRequest if two have the same name."""
        columns = dict(zip(self.names, self.columns, strict=True))
        if len(columns) < len(self.names):
            duplicate = next(name for name in columns if self.names.count(name) > 1)
            raise BadRequest(
                f"column {shown(duplicate)}: expected once, got {self.names.count(duplicate)} times"
            )
        return columns


def parse_split(value: object) -> tuple[tuple[Hashable, ...] | None, list[Any]]:
    """Return the names of the columns, if there are any, and the rows of a `dataframe_split`."""
    if type(value) is not dict or "data" not in value or not SPLIT_KEYS.issuperset(value):
        raise BadRequest(
            "'dataframe_split': expected an object with 'data' and, if need be, 'columns' and 'index', "
            f"got {shown(value)}"
        )
    names, rows, index = value.get("columns"), value["data"], value.get("index")
    if type(rows) is not list:
        raise BadRequest(f"'dataframe_split': expected 'data' as a list of rows, got {shown(rows)}")
    if names is not None and (
        type(names) is not list or not all(type(name) in _NAME_TYPES for name in names)
    ):
        raise BadRequest(f"'dataframe_split': expected 'columns' as a list of names, got {shown(names)}")
    if index is not None and (type(index) is not list or len(index) != len(rows)):
        raise BadRequest(
            f"'dataframe_split': expected 'index' as a list of {len(rows)}, one for each row, "
            f"got {shown(index)}"
        )
    return None if names is None else tuple(names), rows


_NAME_TYPES = {str, int, float, bool, type(None)}


def from_rows(names: Sequence[Hashable] | None, rows: list[Any]) -> Frame:
    """Convert rows to columns; a row that is shorter than others lacks the values of the last columns."""
    is_nested = set(map(type, rows)) <= {list}
    columns = [list(column) for column in zip_longest(*rows)] if is_nested else [rows]
    if names is None:
        names = range(len(columns))
    elif not rows:
        columns = [[] for _ in names]
    if len(names) != len(columns):
        raise BadRequest(f"'dataframe_split': expected {len(names)} values a row, got {len(columns)}")
    return Frame(tuple(names), columns)


def uniform_records(value: object) -> tuple[tuple[Hashable, ...], list[Any]] | None:
    """Return names and rows of records that all have the same names in the same order; else None."""
    if type(value) is not list or not value or set(map(type, value)) != {dict}:
        return None
    names = tuple(value[0])
    return (names, [list(row.values()) for row in value]) if set(map(tuple, value)) == {names} else None


def from_records(value: object, key: str) -> Frame:
    """Convert a list of objects, one for each row, to columns; a row without a name lacks that value."""
    if type(value) is not list:
        raise BadRequest(f"{key!r}: expected a list of objects, one for each row, got {shown(value)}")
    if not set(map(type, value)) <= {dict}:
        return from_rows(None, value)
    names = tuple(dict.fromkeys(chain.from_iterable(value)))
    return Frame(names, [[row.get(name) for row in value] for name in names])


def tensors_of(frame: Frame, signature: Signature) -> Tensors:
    """Convert a table to a model's inputs.

    A model of one input takes the columns that it knows by name, or, if it knows none, all columns in order,
    whatever their names; one of several, or of raw columns, takes each column by its name and no others. So
    does MLflow.

    Raises BadRequest with the column's name, what was expected and what came.
    """
    first = signature.inputs[0]
    if len(signature.inputs) == 1 and not first.raw:
        return {first.name: _reshape(first, _matrix(first, select(first, frame)))}
    columns = frame.by_name()
    blocks = signature.blocks({spec.name: columns.get(spec.name) for spec in signature.inputs})
    if blocks is not None:
        return blocks
    tensors = {}
    for spec in signature.inputs:
        if spec.name not in columns:
            raise BadRequest(
                f"column {spec.name!r}: expected {spec.datatype.name}, got nothing; "
                f"the data has: {', '.join(map(str, columns))}"
            )
        array = _reshape(spec, _values(spec, columns[spec.name]))
        tensors[spec.name] = as_column(spec, array) if spec.raw else array
    return tensors


def wanted(signature: Signature, names: Sequence[str]) -> Container[str]:
    """Return which of a table's columns `tensors_of` takes."""
    first = signature.inputs[0]
    if len(signature.inputs) > 1 or first.raw:
        return {spec.name for spec in signature.inputs}
    return (first.column_names and matching.columns_of(first, names)) or names


def select(spec: TensorSpec, frame: Frame) -> Frame:
    """The columns of a table that an input takes, in its order.

    Raises BadRequest if any is missing, or there twice.
    """
    if not spec.column_names:
        return frame
    names = tuple(map(str, frame.names))
    selected = matching.columns_of(spec, names)
    if not selected:
        if not matching.by_position(spec, names):
            raise matching.missing(spec, names)
        return frame
    columns = Frame(names, frame.columns).by_name()
    return Frame(selected, [columns[name] for name in selected])


def _matrix(spec: TensorSpec, frame: Frame) -> Array:
    """Put columns side by side; a single one may hold lists, or lists of them."""
    arrays = [
        _values(replace(spec, name=str(name)), column)
        for name, column in zip(frame.names, frame.columns, strict=True)
    ]
    if not arrays:
        return np.empty((0, 0), spec.datatype.dtype)
    if len(arrays) == 1:
        return arrays[0]
    if any(array.ndim > 1 for array in arrays):
        raise BadRequest(f"input {spec.name!r}: expected a value a row in each column, got lists")
    return np.stack(arrays, axis=1)


def _values(spec: TensorSpec, column: Any) -> Array:
    """Return a column's values in an input's datatype; booleans are numbers, if it has those, as in Arrow."""
    if spec.datatype.dtype.kind not in "fiu":
        return coerce(spec, column)
    if isinstance(column, np.ndarray):
        return coerce(spec, column.astype(np.uint8) if column.dtype.kind == "b" else column)
    kinds = set(map(type, column))
    if bool in kinds and kinds <= {bool, type(None)}:
        column = [None if value is None else int(value) for value in column]
    return coerce(spec, column)


def _reshape(spec: TensorSpec, array: Array) -> Array:
    """Reshape a column to a tensor, (rows,) or (rows, 1) as the model has it."""
    if array.ndim == 1 and len(spec.shape) == 2:
        array = array.reshape(-1, 1)
    elif array.ndim == 2 and array.shape[1] == 1 and len(spec.shape) == 1:
        array = array.reshape(-1)
    if not spec.accepts(array.shape):
        raise BadRequest(f"input {spec.name!r}: expected shape {list(spec.shape)}, got {list(array.shape)}")
    return array
