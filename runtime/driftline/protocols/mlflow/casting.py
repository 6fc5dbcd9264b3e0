"""Converts values to the types that an MLmodel's signature declares, in the ways that MLflow allows.

Values sent as text, JSON or CSV, are converted as by numpy: integers to floats, floats to integers by
truncation, text that is a number to that number. Values sent with types of their own, Parquet, are converted
only where no value can change. The rules are those of MLflow, in `cast_df_types_according_to_schema` and
`_enforce_mlflow_datatype`. Unlike there, neither text nor null is a boolean, a null is no text, values too
large for an integer are refused, and the format of a date is not guessed.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np

from driftline.errors import BadRequest, SignatureViolation, shown, shown_with_type
from driftline.mlmodel import Tensor
from driftline.tensors import DATATYPES, Array, TensorSpec, coerce

DTYPES = {
    "boolean": np.dtype(np.bool_),
    "integer": np.dtype(np.int32),
    "long": np.dtype(np.int64),
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
}
"""The types of columns of numbers."""

_NUMBERS = {bool, int, float}
_NUMBERS_OR_NONE = {int, float, type(None)}
_INT64_LIMIT = 2.0**63
_MISSING_DATES = {"", "NaT", "nan", "None"}
_DAY = re.compile(r"(?:\d{4}-?\d\d-?\d\d|(\d{4})([-/.])(\d\d?)\2(\d\d?))(?=[Tt ]|\Z)", re.ASCII)
_MIN_TIME = datetime(1677, 9, 21, 0, 12, 43, 145_225)
_MAX_TIME = datetime(2262, 4, 11, 23, 47, 16, 854_775)
_BY_DTYPE = {datatype.dtype: datatype for datatype in DATATYPES.values()}


def convert(name: object, values: Any, declared: str) -> Any:
    """Convert a column sent as text to its declared type; BadRequest names the value that does not fit."""
    if declared in DTYPES:
        return _to_numbers(name, values, declared)
    if declared in _CASTS:
        cast, types = _CASTS[declared], set(map(type, values))
        return values if declared == "string" and types == {str} else [cast(name, value) for value in values]
    return values


def convert_framed(name: object, values: Any, declared: str) -> Any:
    """Convert a column of a DataFrame, where integers beside floats or gaps are floats, also as text."""
    if declared == "string" and len(values) and type(values[0]) in _NUMBERS_OR_NONE:
        kinds = set(map(type, values))
        if int in kinds and len(kinds) > 1 and kinds <= _NUMBERS_OR_NONE:
            values = [
                float(value) if type(value) is int and abs(value) < _INT64_LIMIT else value
                for value in values
            ]
    return convert(name, values, declared)


def _to_numbers(name: object, values: Any, declared: str) -> Array:
    dtype = DTYPES[declared]
    if (
        declared == "boolean"
        and not isinstance(values, np.ndarray)
        and not set(map(type, values)) <= _NUMBERS
    ):
        raise _mismatch(name, declared, next(value for value in values if type(value) not in _NUMBERS))
    try:
        return _to_vector(values, dtype)
    except (ValueError, TypeError, ArithmeticError):
        raise _mismatch(name, declared, next(filter(_invalid_for(dtype), values))) from None


def _to_vector(values: Any, dtype: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore", invalid="raise"):
        array = np.array(values, dtype)
    if array.ndim != 1:
        raise ValueError("nested")
    return array


def _invalid_for(dtype: np.dtype[Any]) -> Callable[[object], bool]:
    def is_invalid(value: object) -> bool:
        try:
            _to_vector([value], dtype)
        except (ValueError, TypeError, ArithmeticError):
            return True
        return False

    return is_invalid


def _mismatch(name: object, declared: str, value: object) -> BadRequest:
    return BadRequest(f"column {shown(name)}: expected {declared}, got {shown_with_type(value)}")


def _is_missing(value: object) -> bool:
    return value is None or value != value  # NaN


def _to_text(name: object, value: object) -> str | None:
    """Convert a value of a column of strings: numbers become what Python writes for them.

    A float as large as `_INT64_LIMIT` was most likely an integer, of which the JSON parser kept the first
    digits.
    """
    if _is_missing(value):
        return None
    if type(value) in (list, dict) or (type(value) is float and _INT64_LIMIT <= abs(value) < math.inf):
        raise _mismatch(name, "string", value)
    return value if type(value) is str else str(value)


def _to_date(name: object, value: object) -> str | None:
    """Convert a value of a column of dates and times to pandas' text; its nanoseconds have 64 bits."""
    try:
        if _is_missing(value) or value in _MISSING_DATES:
            return None
        time = value if isinstance(value, datetime) else _parse_time(value)
    except (ValueError, TypeError):
        raise _mismatch(name, "datetime", value) from None
    if time.tzinfo is not None:
        raise SignatureViolation(
            f"column {shown(name)}: expected datetime without a time zone, got {shown(value)}"
        )
    if not _MIN_TIME <= time <= _MAX_TIME:
        raise BadRequest(
            f"column {shown(name)}: expected datetime from {_MIN_TIME} to {_MAX_TIME}, got {shown(value)}"
        )
    return str(time)


def _parse_time(text: Any) -> datetime:
    """Parse ISO 8601 without weeks; the day may also be written with slashes or dots, and without zeros."""
    day = _DAY.match(text)
    if day is None:
        raise ValueError
    if day[1] is not None:
        text = f"{day[1]}-{day[3]:0>2}-{day[4]:0>2}{text[day.end() :]}"
    return datetime.fromisoformat(text)


def _to_bytes(name: object, value: object) -> bytes | None:
    """Convert a value of a column of bytes, which JSON has in base64."""
    if _is_missing(value) or type(value) is bytes:
        return value if type(value) is bytes else None
    try:
        return base64.decodebytes(value.encode())  # type: ignore[attr-defined]
    except (AttributeError, binascii.Error):
        raise _mismatch(name, "binary", value) from None


_CASTS: dict[str, Callable[[object, object], str | bytes | None]] = {
    "string": _to_text,
    "datetime": _to_date,
    "binary": _to_bytes,
}


def convert_typed(name: object, values: Any, declared: str) -> Any:
    """Convert a column that has a type of its own to its declared type; SignatureViolation names both.

    values  numbers as an array, others as a list
    """
    if declared not in DTYPES:
        if isinstance(values, list):
            try:
                return convert(name, values, declared)
            except BadRequest as error:
                raise SignatureViolation(str(error)) from None
        actual = str(values.dtype)
    elif isinstance(values, list):
        actual = next((type(value).__name__ for value in values if value is not None), "null")
        actual = "string" if actual == "str" else actual
    else:
        target, actual = DTYPES[declared], str(values.dtype)
        zeros_and_ones = actual == "int64" and target.kind == "f" and bool(np.isin(values, (0, 1)).all())
        if zeros_and_ones or _is_safe(values.dtype, target):
            return values.astype(target)
    raise SignatureViolation(f"column {shown(name)}: expected {declared}, got {actual}")


def _is_safe(source: np.dtype[Any], target: np.dtype[Any]) -> bool:
    """Return whether no value can change; a 64-bit integer could as a double."""
    if source.kind == target.kind:
        return source.itemsize <= target.itemsize
    if source.kind == "u" and target.kind == "i":
        return source.itemsize < target.itemsize
    return source.kind in "iu" and target == np.float64 and source.itemsize <= 4


def tensor(declared: Tensor, name: str, value: object) -> Array:
    """Convert nested lists to a tensor of the declared dtype and shape.

    Raises BadRequest for values that are not of this dtype, SignatureViolation for another shape.
    """
    datatype = _BY_DTYPE.get(declared.dtype, DATATYPES["BYTES"] if declared.dtype.kind in "US" else None)
    try:
        if datatype is None:
            raise BadRequest("")
        array = coerce(TensorSpec(name, datatype, declared.shape), value)
    except BadRequest as error:
        if datatype is DATATYPES["BYTES"]:
            raise
        try:
            with np.errstate(over="ignore"):
                array = _cast(value, declared.dtype)
        except (ValueError, TypeError, OverflowError):
            message = str(error) or f"input {name!r}: expected {declared.dtype}, got {shown(value)}"
            raise BadRequest(message) from None
    has_shape = len(array.shape) == len(declared.shape) and all(
        declared_size in (-1, size) for size, declared_size in zip(array.shape, declared.shape, strict=True)
    )
    if not has_shape:
        raise SignatureViolation(
            f"input {name!r}: expected shape {list(declared.shape)}, as the model's signature says, "
            f"got {list(array.shape)}"
        )
    return array


def _cast(value: object, dtype: np.dtype[Any]) -> Array:
    """Convert a value as numpy does, except that only numbers become booleans."""
    if dtype.kind == "b" and np.asarray(value).dtype.kind not in "biuf":
        raise TypeError
    return np.array(value, dtype)
