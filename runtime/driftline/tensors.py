"""Datatypes, and shapes of a model's inputs and outputs, in the terms of the Open Inference Protocol."""

from __future__ import annotations

from array import array as ctype_array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from driftline.arrays import as_array
from driftline.blocks import Array as Array
from driftline.blocks import Blocks
from driftline.blocks import Tensors as Tensors
from driftline.errors import BadRequest, shown, shown_with_type
from driftline.errors import shorten as shorten


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype under all its names: the protocol's, numpy's, ONNX's and Triton's."""

    name: str
    dtype: np.dtype[Any]
    onnx: str

    @property
    def triton(self) -> str:
        """The name in Triton's model configuration, such as TYPE_FP32."""
        return "TYPE_STRING" if self.name == "BYTES" else f"TYPE_{self.name}"


DATATYPES = {
    datatype.name: datatype
    for datatype in (
        Datatype("BOOL", np.dtype(np.bool_), "bool"),
        Datatype("UINT8", np.dtype(np.uint8), "uint8"),
        Datatype("UINT16", np.dtype("<u2"), "uint16"),
        Datatype("UINT32", np.dtype("<u4"), "uint32"),
        Datatype("UINT64", np.dtype("<u8"), "uint64"),
        Datatype("INT8", np.dtype(np.int8), "int8"),
        Datatype("INT16", np.dtype("<i2"), "int16"),
        Datatype("INT32", np.dtype("<i4"), "int32"),
        Datatype("INT64", np.dtype("<i8"), "int64"),
        Datatype("FP16", np.dtype("<f2"), "float16"),
        Datatype("FP32", np.dtype("<f4"), "float"),
        Datatype("FP64", np.dtype("<f8"), "double"),
        Datatype("BYTES", np.dtype(object), "string"),
    )
}
"""All datatypes by their protocol name."""

BY_ONNX = {datatype.onnx: datatype for datatype in DATATYPES.values()}
"""All datatypes by their name in ONNX's `tensor(...)`."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The name, datatype and shape of one tensor; -1 is a dimension that may vary.

    `raw`: a column of a table, (rows,) or (rows, 1), of strings or numbers in any datatype; null is missing.
    `column_names`: of a matrix, what its columns are called in tables; none if that is not known.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    raw: bool = False
    column_names: tuple[str, ...] = ()

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Return whether a tensor of this shape fits."""
        if len(shape) != len(self.shape):
            return self.raw and len(shape) == 2 and shape[1] == 1
        # A loop, not a generator: every request passes through here.
        for size, expected in zip(shape, self.shape, strict=True):
            if size != expected and expected != -1:
                return False
        return True

    @property
    def columns(self) -> tuple[str, ...]:
        """Its columns in a table: its own name, or NAME_0, NAME_1, ..., or NAME_* if their number varies."""
        if len(self.shape) == 1 or self.shape[1:] == (1,):
            return (self.name,)
        if len(self.shape) != 2:
            return ()
        width = self.shape[1]
        return (f"{self.name}_*",) if width == -1 else tuple(f"{self.name}_{i}" for i in range(width))

    @property
    def form(self) -> str:
        """Its datatype and shape, in a message."""
        return f"{self.datatype.name} {list(self.shape)}"

    def as_json(self) -> dict[str, object]:
        """Return the tensor's entry in the protocol's model metadata."""
        return {"name": self.name, "datatype": self.datatype.name, "shape": list(self.shape)}


@dataclass(frozen=True)
class Signature:
    """A model's inputs and outputs.

    `batched`: the first dimension of every tensor counts independent rows, so rows of different requests may
    run together.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool

    def rows(self, inputs: Tensors) -> int:
        """Return the number of rows of a request; 1 for a model without batches.

        Raises BadRequest if its tensors differ in rows.
        """
        if not self.batched:
            return 1
        if type(inputs) is Blocks:
            return inputs.rows
        rows = -1
        for name, array in inputs.items():
            if array.shape[0] != rows:
                if rows >= 0:
                    raise BadRequest(
                        f"input {name!r}: expected {rows} rows as in input {next(iter(inputs))!r}, "
                        f"got {array.shape[0]}"
                    )
                rows = array.shape[0]
        return rows

    def inputs_of(self, columns: object) -> Tensors:
        """Check columns and convert them to the model's input tensors.

        columns  arrays or nested lists by input name; for a model of one input, it alone will do

        Raises BadRequest with the input's name, what was expected and what was given.
        """
        specs = self._specs
        if not isinstance(columns, Mapping):
            if len(specs) != 1:
                raise BadRequest(f"expected values by input name ({', '.join(specs)}), got {shown(columns)}")
            columns = {self.inputs[0].name: columns}
        blocks = self.blocks(columns)
        if blocks is not None:
            return blocks
        for name in columns:
            if name not in specs:
                raise BadRequest(
                    f"input {shown(name)}: the model has no such input; it has: {', '.join(specs)}"
                )
        for name, spec in specs.items():
            if name not in columns:
                raise BadRequest(
                    f"input {name!r}: expected {spec.datatype.name} {list(spec.shape)}, got nothing"
                )
        tensors = {name: coerce(spec, columns[name]) for name, spec in specs.items()}
        for name, spec in specs.items():
            if not spec.accepts(tensors[name].shape):
                raise BadRequest(
                    f"input {name!r}: expected shape {list(spec.shape)}, got {list(tensors[name].shape)}"
                )
            if spec.raw:
                tensors[name] = as_column(spec, tensors[name])
        return tensors

    @property
    def raw(self) -> bool:
        """Whether all inputs are raw columns."""
        return bool(self._groups)

    def blocks(self, columns: Mapping[str, object]) -> Blocks | None:
        """Convert raw columns that are lists, all at once: reading one takes as long as reading thirty.

        None for a model with other inputs, and for columns that need further checks.
        """
        if len(columns) != len(self._specs):
            return None
        blocks = []
        try:
            for group in self._groups:
                lists: list[Any] = [columns[name] for name in group.names]
                if {*map(type, lists)} != {list}:
                    return None
                lengths = {*map(len, lists)}
                if len(lengths) != 1 or 0 in lengths:
                    return None
                blocks.append(group.block(lists).reshape(len(lists), *lengths))
        except (KeyError, BadRequest):  # the column and its error are reported when it is read alone
            return None
        return self._join(blocks)

    def blocks_of_rows(self, rows: Sequence[object]) -> Blocks | None:
        """Do the same for raw columns in rows, each an object of values by name."""
        if {*map(type, rows)} != {dict} or {*map(len, rows)} != {len(self._specs)}:  # type: ignore[arg-type]
            return None
        try:
            blocks = [
                group.block_of_rows(rows).reshape(len(rows), len(group.names)).T for group in self._groups
            ]
        except (KeyError, BadRequest):
            return None
        return self._join(blocks)

    def _join(self, blocks: list[Array]) -> Blocks | None:
        return Blocks(self._names, blocks) if len({block.shape[1] for block in blocks}) == 1 else None

    @cached_property
    def _specs(self) -> dict[str, TensorSpec]:
        return {spec.name: spec for spec in self.inputs}

    @cached_property
    def _groups(self) -> tuple[SameTypeColumns, ...]:
        """Raw columns by datatype; empty if there are other inputs."""
        if not all(spec.raw for spec in self.inputs):
            return ()
        groups: dict[str, list[TensorSpec]] = {}
        for spec in self.inputs:
            groups.setdefault(spec.datatype.name, []).append(spec)
        return tuple(map(SameTypeColumns, groups.values()))

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """The names of the columns of blocks, in their order."""
        return tuple(chain.from_iterable(group.names for group in self._groups))


class SameTypeColumns:
    """Raw columns of one datatype."""

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        self._spec = specs[0]
        self.names = tuple(spec.name for spec in specs)
        self._values_of_row = itemgetter(*self.names)

    def block(self, columns: Iterable[Iterable[object]]) -> Array:
        """Return the values of columns as one flat array, column after column."""
        values = list(chain.from_iterable(columns))
        return _to_tensor(self._spec, values, {*map(type, values)})

    def block_of_rows(self, rows: Iterable[Any]) -> Array:
        """Return the values of rows, each an object of values by name, as one flat array, row after row."""
        values = map(self._values_of_row, rows)
        return self.block(values if len(self.names) > 1 else (values,))  # for one name, it returns no tuple


def as_column(spec: TensorSpec, array: Array) -> Array:
    """Convert a raw column, (rows,) or (rows, 1), to (rows,) in its own datatype."""
    return array.reshape(len(array)).astype(spec.datatype.dtype, copy=False)


def coerce(spec: TensorSpec, data: object) -> Array:
    """Convert Python values, nested lists or an array to a tensor of `spec`'s datatype, keeping their shape.

    Only conversions that keep the meaning are allowed: no text or booleans for numbers, no fractions and no
    overflow for integers. In floating-point tensors, None becomes NaN, and numbers that are too large become
    infinite. BYTES takes `str`, and `bytes` in UTF-8.

    Raises BadRequest with the tensor's name, what was expected and what was given.
    """
    if type(data) is list:
        values, shape = _flatten(spec, data)
        types = set(map(type, values))
        if types <= _PYTHON_TYPES:
            return _to_tensor(spec, values, types).reshape(shape)
    try:
        data = as_array(data)
    except TypeError as error:
        raise BadRequest(f"input {spec.name!r}: {error}") from None
    if isinstance(data, np.ma.MaskedArray):  # numpy would ignore the mask
        return coerce(spec, data.tolist())
    dtype = spec.datatype.dtype
    try:
        array: Array = np.asarray(data, object if dtype == object else None)
    except ValueError:
        raise _ragged(spec) from None
    if array.size == 0:
        return np.empty(array.shape, dtype)
    if array.dtype == dtype != object:
        return array
    if dtype.kind == "f" and array.dtype.kind in "fiu":
        with np.errstate(over="ignore"):
            return array.astype(dtype)
    if dtype.kind in "iu" and array.dtype.kind in "iu":
        check_range(spec, array.min(), array.max())
        return array.astype(dtype)
    values = [value.item() if isinstance(value, np.generic) else value for value in array.ravel().tolist()]
    return _to_tensor(spec, values, set(map(type, values))).reshape(array.shape)


_PYTHON_TYPES = {bool, int, float, str, bytes, type(None), list, dict}
_ALLOWED_TYPES: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float, type(None)},
    "O": {str, bytes},
}
_RAW_TYPES = {bool, type(None)}
"""Types that a raw column accepts in addition: null for a missing value, and booleans as numbers."""

_MAX_DIMENSIONS = 32

_C_TYPES = {np.dtype(np.float32): "f", np.dtype(np.float64): "d"}
"""Types that Python's own arrays read from a list in half of numpy's time; overflow becomes infinity."""


def _flatten(spec: TensorSpec, data: list[Any]) -> tuple[list[Any], list[int]]:
    """Return the values in nested lists, and the shape that the lists give them.

    numpy would convert a boolean among numbers to a number, and a million numbers with one long text among
    them to a million long texts.
    """
    shape = [len(data)]
    while data and type(data[0]) is list:
        lengths = set(map(len, data)) if set(map(type, data)) == {list} else set()
        if len(lengths) != 1:
            raise _ragged(spec)
        if len(shape) == _MAX_DIMENSIONS:
            raise BadRequest(
                f"input {spec.name!r}: expected shape {list(spec.shape)}, got lists nested too deep"
            )
        shape += lengths
        data = list(chain.from_iterable(data))
    return data, shape


def _ragged(spec: TensorSpec) -> BadRequest:
    return BadRequest(f"input {spec.name!r}: expected a regular array, got nested lists that differ")


def _to_tensor(spec: TensorSpec, values: list[Any], types: set[type]) -> Array:
    """Return a flat tensor of Python values whose types are `types`."""
    dtype = spec.datatype.dtype
    allowed = _ALLOWED_TYPES[dtype.kind] | (_RAW_TYPES if spec.raw else set())
    if not types <= allowed:
        refused = types - allowed
        position, value = next(pair for pair in enumerate(values) if type(pair[1]) in refused)
        if refused == {list}:
            raise _ragged(spec)
        raise BadRequest(
            f"input {spec.name!r}: expected {spec.datatype.name} values, got {shown_with_type(value)} "
            f"at position {position}"
        )
    if bytes in types:
        values = [utf8(spec, value) if type(value) is bytes else value for value in values]
    try:
        typecode = _C_TYPES.get(dtype)
        if typecode is not None and type(None) not in types:
            return np.frombuffer(ctype_array(typecode, values), dtype)
        with np.errstate(over="ignore"):
            return np.fromiter(values, dtype, len(values))
    except OverflowError:
        integers = [value for value in values if type(value) is int]
        check_range(spec, min(integers), max(integers))
        raise


def check_range(spec: TensorSpec, *extremes: float) -> None:
    """Raise BadRequest for a number that `spec`'s datatype can't hold."""
    dtype = spec.datatype.dtype
    limits: Any = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    lowest, highest = limits.min, limits.max
    if dtype.kind == "f":
        lowest, highest = float(lowest), float(highest)
    for extreme in map(int, extremes):
        if not lowest <= extreme <= highest:
            raise BadRequest(
                f"input {spec.name!r}: expected {spec.datatype.name} values from {lowest} "
                f"to {highest}, got {shorten(extreme)}"
            )


def utf8(spec: TensorSpec, value: bytes) -> str:
    """Decode bytes of a BYTES tensor to the text that models take; BadRequest if they are not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"input {spec.name!r}: expected UTF-8 strings, got {shorten(value)}: {error.reason}"
        ) from None
