"""Conversion of batches of any form to what is counted: a matrix of numbers, and codes of categories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftline.columns import (
    Column,
    Columns,
    as_table,
    columns_of,
    float32,
    names_in,
    names_of,
    text_of,
    validity_of,
)
from driftline.errors import BadRequest, listed
from driftline.monitor.reference.column import Categorical, Numeric, Reference
from driftline.tensors import Array
from driftline_kernels import strings

BLOCK_ROWS = 8_192
"""Rows that are converted together: columns of any length take bounded memory."""

MAX_PLANS = 64
"""Forms of batches whose plans are remembered, at most."""

Codes = tuple[Array, ...]
"""(rows,) int32 for each categorical column: the index of each value among the categories."""

_FLOAT32 = np.dtype(np.float32)
_ALL_VALID = np.empty(0, np.uint8)


@dataclass(frozen=True, slots=True)
class Part:
    """An array of a batch, and where its columns go.

    name    of the array
    dtype   that it must have
    shape   that a row of it must have
    moves   columns of the array, and the columns of the matrix that they become
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    moves: list[tuple[slice, slice]]


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the columns of a profile are in a batch of arrays.

    parts       the arrays
    categories  for each categorical column, the name of its array and its column there
    """

    parts: tuple[Part, ...]
    categories: tuple[tuple[str, int], ...]


class Reader:
    """Reads batches in the form that a profile's references need.

    numeric      references of the columns of the matrix, in order
    categorical  references of the codes, in order
    """

    def __init__(self, numeric: Sequence[Numeric], categorical: Sequence[Categorical]) -> None:
        self._references: list[Reference] = [*numeric, *categorical]
        self._sources = tuple(reference.source for reference in numeric)
        self._width = len(numeric)
        self._row_shape = (self._width,)
        names = {name for reference in self._references for name in (reference.source, reference.name)}
        self._wanted = names | {name.rpartition("_")[0] for name in names}  # as one array, or a column each
        self._categorical = categorical
        self._tables = [_build_table(reference) for reference in categorical]
        prefix = self._sources[0].rpartition("_")[0] if self._sources and not categorical else ""
        self._prefix = prefix if self._sources == names_of(prefix, self._width) else ""
        self._plans: dict[tuple[str, ...], Plan] = {}

    def as_matrix(self, columns: object) -> Array | None:
        """Return the matrix in `columns` if it is the profile's columns without any conversion; else None."""
        if type(columns) is dict and len(columns) == 1 and self._prefix:
            matrix = columns.get(self._prefix)
            if (
                type(matrix) is np.ndarray
                and matrix.dtype is _FLOAT32
                and matrix.shape[1:] == self._row_shape
                and matrix.flags.c_contiguous
            ):
                return matrix
        return None

    def blocks(self, columns: object) -> Iterator[tuple[Array, Codes]]:
        """Yield columns of any form by block: the numeric ones as a matrix, codes of the categorical ones.

        Columns may also have the names that the profile gives them, as in the data that it was made of.

        Raises BadRequest, which names the column, if one of the profile is missing or of another type.
        """
        if type(columns) is dict:
            converted = self._convert_arrays(columns)
            if converted is not None:
                yield converted
                return
        columns = as_table(columns)  # a stream is read once
        named = columns_of(columns, self._wanted)
        for reference in self._references:
            if reference.source not in named and reference.name in named:
                named[reference.source] = named[reference.name]
            if reference.source not in named:
                raise BadRequest(
                    f"column {reference.name!r}: expected as in the profile, got none; "
                    f"there are: {listed(names_in(columns))}"
                )
        length = len(next(iter(named.values()), ()))
        for start in range(0, length, BLOCK_ROWS):
            block = {name: column[start : start + BLOCK_ROWS] for name, column in named.items()}
            yield self._matrix(block, min(BLOCK_ROWS, length - start)), self._codes(block)

    def empty_block(self) -> tuple[Array, Codes]:
        """Return a block without rows."""
        empty = {
            reference.source: _to_arrow_strings([]) if reference.kind == "string" else np.empty(0, np.int64)
            for reference in self._categorical
        }
        return np.empty((0, self._width), np.float32), self._codes(empty)

    def _convert_arrays(self, arrays: Mapping[str, Any]) -> tuple[Array, Codes] | None:
        """Convert a batch of arrays, such as a model's tensors, in one step; None if that is not possible."""
        names = tuple(arrays)
        plan = self._plans.get(names)
        block = self._apply_plan(plan, arrays) if plan is not None else None
        if block is None and (plan := self.plan(arrays)) is not None:
            if len(self._plans) == MAX_PLANS:
                self._plans.clear()
            self._plans[names] = plan
            block = self._apply_plan(plan, arrays)
        return block

    def _apply_plan(self, plan: Plan, arrays: Mapping[str, Any]) -> tuple[Array, Codes] | None:
        """Convert a batch by a plan; None if the plan does not fit."""
        first = arrays[plan.parts[0].name]
        if type(first) is not np.ndarray or not first.ndim or (rows := len(first)) > BLOCK_ROWS:
            return None
        matrix = np.empty((rows, self._width), np.float32)
        with np.errstate(over="ignore"):  # values beyond float32 become infinite
            for part in plan.parts:
                array = arrays[part.name]
                if type(array) is not np.ndarray or array.dtype != part.dtype:
                    return None
                if len(array) != rows or array.shape[1:] != part.shape:
                    return None
                for columns, target in part.moves:
                    matrix[:, target] = array[:, columns] if part.shape else array[:, None]
        codes = []
        for (name, column), reference, table in zip(
            plan.categories, self._categorical, self._tables, strict=True
        ):
            values = arrays[name][:, column] if arrays[name].ndim == 2 else arrays[name]
            if values.dtype == object and (values := _to_arrow_strings(values)) is None:
                return None
            codes.append(codes_of(reference, table, values))
        return matrix, tuple(codes)

    def plan(self, arrays: Mapping[str, Any]) -> Plan | None:
        """Return where the columns are, if all are in arrays of numbers or strings, of any number of rows."""
        locations: dict[str, tuple[str, int]] = {}
        for name, array in arrays.items():
            if type(array) is not np.ndarray or array.ndim not in (1, 2) or array.dtype.kind not in "fiubO":
                return None
            width = array.shape[1] if array.ndim == 2 else 1
            locations |= {column: (name, index) for index, column in enumerate(names_of(name, width))}
        if not all(reference.source in locations for reference in self._references):
            return None
        parts = {name: Part(name, array.dtype, array.shape[1:], []) for name, array in arrays.items()}
        for target, column in enumerate(self._sources):
            name, index = locations[column]
            if arrays[name].dtype == object:
                return None
            moves = parts[name].moves
            if moves and moves[-1][0].stop == index and moves[-1][1].stop == target:
                source, target_slice = moves.pop()
                moves.append((slice(source.start, index + 1), slice(target_slice.start, target + 1)))
            else:
                moves.append((slice(index, index + 1), slice(target, target + 1)))
        categories = tuple(locations[reference.source] for reference in self._categorical)
        return Plan(tuple(parts.values()), categories) if parts else None

    def _matrix(self, block: Columns, length: int) -> Array:
        matrix = np.empty((length, self._width), np.float32)
        for index, name in enumerate(self._sources):
            column = block[name]
            if not isinstance(column, np.ndarray) and (column := _booleans_as_numbers(column)) is None:
                raise BadRequest(f"column {name!r}: expected numbers as in the profile, got strings")
            matrix[:, index] = float32(column)
        return matrix

    def _codes(self, block: Columns) -> Codes:
        return tuple(
            codes_of(reference, table, block[reference.source])
            for reference, table in zip(self._categorical, self._tables, strict=True)
        )


def _to_arrow_strings(values: Array | Sequence[str]) -> Any:
    """Convert Python's strings to Arrow's; None if there are other values."""
    import pyarrow as pa  # 24 MB, not needed for numbers

    try:
        return pa.array(values, pa.string(), from_pandas=True)
    except (pa.ArrowException, ValueError):
        return None


def _build_table(reference: Categorical) -> strings.Table | strings.IntegerTable:
    """Return the table of the codes of a reference's categories."""
    if reference.kind == "string":
        return strings.build_table(*text_of(_to_arrow_strings(reference.categories)))
    numbers = [text == "True" if reference.kind == "boolean" else int(text) for text in reference.categories]
    # Modulo 2^64, so that unsigned 64-bit integers fit, too.
    return strings.build_integer_table(np.array([n % 2**64 for n in numbers], np.uint64).view(np.int64))


def codes_of(reference: Categorical, table: strings.Table | strings.IntegerTable, values: Column) -> Array:
    """Return (rows,) int32: each value's index among the categories, their number if unseen, -1 if missing.

    Raises BadRequest, which names the column, for strings where the profile has numbers, or the reverse. But
    booleans with nulls, which are strings, match those without, and a column whose values are all missing
    matches either: it has no type.
    """
    codes = np.empty(len(values), np.int32)
    if isinstance(values, np.ndarray) != isinstance(table, strings.IntegerTable):
        values = _to_reference_form(reference, values)
    actual = "numbers" if isinstance(values, np.ndarray) else "strings"
    if actual != ("strings" if isinstance(table, strings.Table) else "numbers"):
        raise BadRequest(
            f"column {reference.name!r}: expected {reference.kind}s as in the profile, got {actual}"
        )
    if isinstance(table, strings.Table):
        strings.look_up(*text_of(values), *validity_of(values), table, reference.unseen, codes)
        return codes
    if values.dtype.kind != "f":
        integers = values.astype(np.int64, copy=False)
        strings.look_up_integers(integers, _ALL_VALID, 0, table, reference.unseen, codes)
        if values.dtype == np.uint64:  # never a negative category
            codes[np.array([*(text.startswith("-") for text in reference.categories), False])[codes]] = (
                reference.unseen
            )
        return codes
    in_range = (values >= -(2.0**63)) & (values < 2.0**63)
    integers = np.where(in_range, values, 0).astype(np.int64)
    strings.look_up_integers(integers, _ALL_VALID, 0, table, reference.unseen, codes)
    codes[~in_range | (integers != values)] = reference.unseen
    codes[np.isnan(values)] = strings.MISSING
    return codes


def _to_reference_form(reference: Categorical, values: Column) -> Column:
    """Convert values to the reference's form, where only the form differs."""
    if not isinstance(values, np.ndarray):
        numbers = _booleans_as_numbers(values)
        return values if numbers is None else numbers
    import pyarrow as pa
    import pyarrow.compute as pc

    if values.dtype.kind == "b":
        return pc.if_else(pa.array(values), "True", "False")
    return pa.nulls(len(values), pa.string()) if np.isnan(values).all() else values


def _booleans_as_numbers(values: Column) -> Array | None:
    """Convert booleans with nulls, which are strings, to numbers; None if there are other strings."""
    import pyarrow as pa
    import pyarrow.compute as pc

    indices = pc.index_in(values, pa.array(["False", "True", None], values.type))
    return None if indices.null_count else np.array([0, 1, np.nan])[np.from_dlpack(indices)]
