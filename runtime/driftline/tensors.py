"""Datatypes and the shapes of what a model takes and gives, in the words of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftline.errors import BadRequest

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = dict[str, Array]
"""Arrays by tensor name. BYTES tensors are object arrays of `str`."""


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
"""All datatypes by the name that stands in ONNX's `tensor(...)`."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The name, datatype and shape of one tensor; -1 is a dimension that may vary."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape fits."""
        return len(shape) == len(self.shape) and all(
            size == want or want == -1 for size, want in zip(shape, self.shape, strict=True)
        )

    def as_json(self) -> dict[str, object]:
        """The tensor's entry in the protocol's model metadata."""
        return {"name": self.name, "datatype": self.datatype.name, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives.

    `batched`: the first dimension of every tensor counts rows that don't depend on each other, so rows
    of different requests may run together.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool

    def rows(self, inputs: Tensors) -> int:
        """How many rows a request has; 1 for a model without batches.

        Raises BadRequest if its tensors differ in rows.
        """
        if not self.batched:
            return 1
        first, *others = inputs.items()
        rows: int = first[1].shape[0]
        for name, array in others:
            if array.shape[0] != rows:
                raise BadRequest(
                    f"input {name!r}: expected {rows} rows as in input {first[0]!r}, came {array.shape[0]}"
                )
        return rows

    def inputs_of(self, columns: object) -> Tensors:
        """Columns as the model's input tensors, checked.

        columns  arrays or nested lists by input name; for a model of one input, it alone will do

        Raises BadRequest with the input's name, what was expected and what came.
        """
        specs = {spec.name: spec for spec in self.inputs}
        if not isinstance(columns, Mapping):
            if len(specs) != 1:
                raise BadRequest(
                    f"expected values by input name ({', '.join(specs)}), came {shorten(columns)}"
                )
            columns = {self.inputs[0].name: columns}
        for name in columns:
            if name not in specs:
                raise BadRequest(
                    f"input {shorten(name)}: the model has no such input; it has: {', '.join(specs)}"
                )
        for name, spec in specs.items():
            if name not in columns:
                raise BadRequest(
                    f"input {name!r}: expected {spec.datatype.name} {list(spec.shape)}, came nothing"
                )
        tensors = {name: coerce(spec, columns[name]) for name, spec in specs.items()}
        for name, spec in specs.items():
            if not spec.accepts(tensors[name].shape):
                raise BadRequest(
                    f"input {name!r}: expected shape {list(spec.shape)}, came {list(tensors[name].shape)}"
                )
        return tensors


def coerce(spec: TensorSpec, data: object) -> Array:
    """Python values, nested lists or an array as a tensor of `spec`'s datatype, of whatever shape they have.

    Only what means the same afterwards is taken: no text or booleans for numbers, no fractions and no
    overflow for integers. None is NaN in floating-point tensors. BYTES takes `str`, and `bytes` in UTF-8.

    Raises BadRequest with the tensor's name, what was expected and what came.
    """
    want = spec.datatype.dtype
    if want == object:
        return _strings(spec, data)
    try:
        array: Array = np.asarray(data)
    except ValueError:
        raise BadRequest(
            f"input {spec.name!r}: expected a regular array, came nested lists that differ"
        ) from None
    kind = array.dtype.kind
    if want.kind == "f" and kind in "fiu":
        with np.errstate(over="ignore"):
            return array.astype(want, copy=False)
    if array.dtype == want or array.size == 0:
        return array.astype(want, copy=False)
    if want.kind in "iu" and kind in "iu":
        return _fitting(spec, array)
    return _one_by_one(spec, data)


_NUMBERS: dict[str, tuple[type, ...]] = {
    "b": (bool, np.bool_),
    "i": (int,),
    "u": (int,),
    "f": (int, float, type(None)),
}


def _one_by_one(spec: TensorSpec, data: object) -> Array:
    """The values that numpy has no datatype of its own for: None among floats, integers beyond 64 bits."""
    values = np.asarray(data, dtype=object)
    allowed = _NUMBERS[spec.datatype.dtype.kind]
    for position, value in enumerate(values.flat):
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise BadRequest(
                f"input {spec.name!r}: expected {spec.datatype.name} values, came {shorten(value)} "
                f"({type(value).__name__}) at position {position}"
            )
    if spec.datatype.dtype.kind in "iu":
        return _fitting(spec, values)
    with np.errstate(over="ignore"):
        return values.astype(np.float64).astype(spec.datatype.dtype)


def _fitting(spec: TensorSpec, values: Array) -> Array:
    """Integers as `spec`'s datatype, if it can hold them."""
    range_ = np.iinfo(spec.datatype.dtype)
    for extreme in (values.min(), values.max()):
        if not range_.min <= extreme <= range_.max:
            raise BadRequest(
                f"input {spec.name!r}: expected {spec.datatype.name} values from {range_.min} "
                f"to {range_.max}, came {extreme}"
            )
    return values.astype(spec.datatype.dtype)


def _strings(spec: TensorSpec, data: object) -> Array:
    values = np.array(data, dtype=object)
    for position, value in enumerate(values.flat):
        if isinstance(value, bytes):
            values.flat[position] = utf8(spec, value)
        elif not isinstance(value, str):
            raise BadRequest(
                f"input {spec.name!r}: expected strings, came {shorten(value)} ({type(value).__name__}) "
                f"at position {position}"
            )
    return values


def utf8(spec: TensorSpec, value: bytes) -> str:
    """Bytes of a BYTES tensor as the text that models compute with; BadRequest if they are no UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"input {spec.name!r}: expected UTF-8 strings, came {shorten(value)}: {error.reason}"
        ) from None


def shorten(value: object, most: int = 60) -> str:
    """A value for a message: its repr, cut."""
    text = repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"
