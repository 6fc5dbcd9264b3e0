"""Raw columns of any form as arrays that kernels can read in place."""

from __future__ import annotations

import datetime
import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftline.arrays import is_foreign
from driftline.columns import array_of, as_table, columns_of, decode_dictionary
from driftline.errors import BadRequest
from driftline.tensors import shorten
from driftline_kernels import memory

WORDS = {"number": "numbers", "string": "strings", "datetime": "dates or times"}
"""The kinds of raw columns, and the words for their values in messages."""

_KINDS = {
    np.dtype(dtype): kind
    for dtype, kind in (
        *((np.float32, memory.FLOAT32), (np.float64, memory.FLOAT64), (np.bool_, memory.UINT8)),
        *(
            (np.int8, memory.INT8),
            (np.int16, memory.INT16),
            (np.int32, memory.INT32),
            (np.int64, memory.INT64),
        ),
        *((np.uint8, memory.UINT8), (np.uint16, memory.UINT16), (np.uint32, memory.UINT32)),
        (np.uint64, memory.UINT64),
    )
}
_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000, "D": -86_400, "h": -3600, "m": -60}
MICROSECONDS = _UNITS["us"]
"""The unit of whole numbers read as times, since 1970, as driftline.columns makes them."""

Layout = tuple[int, int, int]
"""Kind, stride and units per second of a source."""

PARSED_TIME: Layout = (memory.INT64, 8, MICROSECONDS)
"""The layout of times parsed from text."""


@dataclass(frozen=True, slots=True)
class Input:
    """A raw column: 'number', 'string' or 'datetime'; values that can't be read are 'missing' or 'raise'."""

    name: str
    kind: str
    on_error: str = "raise"


def by_name(data: Any) -> Mapping[str, Any]:
    """Return the columns of a table or DataFrame by name; an array's are x0, x1, ..., as in scikit-learn.

    Raises BadRequest for a duplicate name.
    """
    data = array_of("x", as_table(data))
    if isinstance(data, np.ndarray) and data.ndim == 2:
        return {f"x{index}": column for index, column in enumerate(data.T)}
    if hasattr(data, "column_names"):
        return mapping_of(data.column_names, data.columns)
    if hasattr(data, "items") and hasattr(data, "columns"):
        return mapping_of(map(str, data.columns), (column for _, column in data.items()))
    return columns_of(data)


def mapping_of(names: Iterable[str], columns: Iterable[Any]) -> dict[str, Any]:
    """Return columns by name; BadRequest for a duplicate name."""
    mapping: dict[str, Any] = {}
    for name, column in zip(names, columns, strict=True):
        if name in mapping:
            raise BadRequest(f"column {name!r}: expected it once, got twice")
        mapping[name] = column
    return mapping


def kind_of(name: str, column: Any) -> str:
    """Return a column's kind, 'number', 'string' or 'datetime'; BadRequest for values of several kinds."""
    dtype = getattr(column, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind in "fiubM":
        return "datetime" if dtype.kind == "M" else "number"
    import pyarrow as pa

    try:
        kind = _to_arrow(column).type
    except (ValueError, TypeError, NotImplementedError, OverflowError) as error:
        raise BadRequest(
            f"column {name!r}: expected values of one kind, got {shorten(column)}: {error}"
        ) from None
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_temporal(kind):
        return "datetime"
    return "string" if _is_text(kind) else "number"


def make_readable(field: Input, column: Any, errors: Counter[str], first: int = 0) -> Any:
    """Return a column as it is if kernels can read it, else converted, with numbers and dates parsed.

    Counts in `errors` the values taken as missing. Row numbers in a BadRequest start at `first`.
    """
    if type(column) is np.ndarray:
        if column.ndim == 2 and column.shape[1] == 1:
            column = column[:, 0]
        if column.ndim == 1 and numpy_layout(field, column.dtype, column.strides[0]) is not None:
            return column
        if column.ndim == 1 and field.kind == "number" and column.dtype.kind in "fiu":
            return column.astype(np.float64)
        if column.ndim == 1 and field.kind == "datetime" and column.dtype.kind == "M":
            return column.astype("datetime64[s]")
    elif isinstance(column, _arrow_array()) and arrow_layout(field, column.type) is not None:
        return column
    if is_foreign(column):
        return make_readable(field, array_of(field.name, column), errors, first)
    try:
        array = _to_arrow(column)
    except (ValueError, TypeError, NotImplementedError, OverflowError):  # as Arrow's errors: several kinds
        return _convert_values(field, column, errors, first)
    if arrow_layout(field, array.type) is not None:
        return array
    return _convert(field, array, errors, first)


def numpy_layout(field: Input, dtype: Any, stride: int) -> Layout | None:
    """Return the memory layout of a numpy array; None if kernels can't read it as the input's kind."""
    if field.kind == "string":
        return None
    if dtype.kind == "M" and field.kind == "datetime":
        unit, count = np.datetime_data(dtype)
        scale = _UNITS.get(unit)
        return (memory.INT64, stride, scale) if scale and count == 1 and dtype.isnative else None
    kind = _KINDS.get(dtype)
    return None if kind is None else (kind, stride, MICROSECONDS if field.kind == "datetime" else 0)


def arrow_layout(field: Input, kind: Any) -> Layout | None:
    """Return the memory layout of Arrow arrays of a type; None if they must be converted."""
    key = field.kind, kind.id  # a type's own hash is ten times slower
    layout = _LAYOUTS.get(key)
    if layout is None:
        layout = _layout_of(field, kind)
        if layout is not None and not hasattr(kind, "unit"):
            _LAYOUTS[key] = layout
    return layout


_LAYOUTS: dict[tuple[str, int], Layout] = {}


def _layout_of(field: Input, kind: Any) -> Layout | None:
    import pyarrow as pa

    if field.kind == "string":
        if pa.types.is_string(kind):
            return memory.STRING, 0, 0
        return (memory.LARGE_STRING, 0, 0) if pa.types.is_large_string(kind) else None
    if pa.types.is_temporal(kind):
        return _time_layout(kind) if field.kind == "datetime" else None
    per_second = MICROSECONDS if field.kind == "datetime" else 0
    if pa.types.is_boolean(kind):
        return None if per_second else (memory.BITS, 0, 0)
    if pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind):
        dtype = np.dtype(kind.to_pandas_dtype())
        return _KINDS[dtype], dtype.itemsize, per_second
    return None


def _time_layout(kind: Any) -> Layout | None:
    import pyarrow as pa

    if pa.types.is_date32(kind):
        return memory.INT32, 4, _UNITS["D"]
    if pa.types.is_date64(kind):
        return memory.INT64, 8, _UNITS["ms"]
    if pa.types.is_time32(kind):
        return memory.INT32, 4, _UNITS[kind.unit]
    if pa.types.is_time64(kind) or pa.types.is_timestamp(kind):
        return memory.INT64, 8, _UNITS[kind.unit]
    return None


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


@functools.cache
def _arrow_array() -> Any:
    import pyarrow as pa

    return pa.Array


def _to_arrow(column: Any) -> Any:
    """Convert anything one-dimensional to Arrow; ValueError or TypeError for values of several kinds."""
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        return column.combine_chunks()
    if isinstance(column, pa.Array):
        return column
    return pa.array(_from_pandas(column), from_pandas=True)


def _from_pandas(column: Any) -> Any:
    """Convert pandas columns that Arrow can't take to numpy: sparse ones, and times with a zone, to UTC and
    without a warning."""
    dtype = getattr(column, "dtype", None)
    if type(dtype).__name__ == "SparseDtype":
        return np.asarray(column)
    if type(dtype).__name__ == "DatetimeTZDtype":
        return np.asarray(column, f"datetime64[{dtype.unit}]")  # type: ignore[union-attr]
    return column


def _convert(field: Input, array: Any, errors: Counter[str], first: int) -> Any:
    import pyarrow as pa

    kind = array.type
    if pa.types.is_dictionary(kind):
        return make_readable(field, decode_dictionary(array), errors, first)
    arrow_type = {"number": pa.float64(), "string": pa.string(), "datetime": pa.timestamp("us")}[field.kind]
    if pa.types.is_null(kind):
        return pa.nulls(len(array), arrow_type)
    if pa.types.is_string_view(kind):
        return make_readable(field, array.cast(pa.large_string()), errors, first)
    if _is_text(kind) or (pa.types.is_binary(kind) and field.kind == "string"):
        try:
            return array.cast(arrow_type)
        except pa.ArrowException:  # Arrow can't cast one of the values
            return _convert_values(field, array.to_pylist(), errors, first)
    if field.kind == "number" and (pa.types.is_decimal(kind) or pa.types.is_float16(kind)):
        return array.cast(arrow_type)
    raise BadRequest(f"column {field.name!r}: expected {WORDS[field.kind]}, got {kind}")


def _convert_values(field: Input, column: Any, errors: Counter[str], first: int) -> Any:
    """Convert values of any kind one by one."""
    import pyarrow as pa

    column = column.tolist() if isinstance(column, np.ndarray) else column  # a scalar if it has no dimension
    if not isinstance(column, Iterable):
        raise BadRequest(f"column {field.name!r}: expected {WORDS[field.kind]}, got {shorten(column)}")
    parse, arrow_type = {
        "number": (_parse_number, pa.float64()),
        "string": (_parse_text, pa.string()),
        "datetime": (_parse_time, pa.timestamp("us")),
    }[field.kind]
    values: list[Any] = []
    for row, value in enumerate(column):
        try:
            values.append(None if value is None or value != value else parse(value))
        except (ValueError, TypeError, OverflowError):
            if field.on_error == "raise" or field.kind == "string":
                where = f"column {field.name!r}, row {first + row}"
                raise BadRequest(f"{where}: expected {WORDS[field.kind]}, got {shorten(value)}") from None
            errors[field.name] += 1
            values.append(None)
    return pa.array(values, arrow_type)


def _parse_number(value: Any) -> float:
    if isinstance(value, str) and "_" in value:
        raise ValueError(value)
    return float(value)


def _parse_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value.encode().decode()  # ValueError if it isn't valid Unicode
    raise TypeError(value)


def _parse_time(value: Any) -> datetime.datetime:
    time = datetime.datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
    if not isinstance(time, datetime.datetime):
        time = datetime.datetime.combine(time, datetime.time())  # TypeError unless it is a date
    return time if time.tzinfo is None else time.astimezone(datetime.UTC).replace(tzinfo=None)
