"""Where the raw columns lie in memory, and what has to be read or converted before they can be used."""

from __future__ import annotations

import datetime
import functools
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftline.columns import columns_of
from driftline.errors import BadRequest
from driftline.tensors import Array, shorten
from driftline_kernels import memory

WORDS = {"number": "numbers", "string": "strings", "datetime": "dates or times"}
"""The kinds of raw columns, and what their values are called."""

_NUMPY = {
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
_CHARS = frozenset(dtype.char for dtype in _NUMPY)
_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000, "D": -86_400, "h": -3600, "m": -60}
MICROSECONDS = _UNITS["us"]
"""Whole numbers are times in microseconds since 1970, as driftline.columns makes them."""

FEW = 64
"""Rows of numpy's columns that are copied: quicker than asking where they lie."""

Layout = tuple[int, int, int]
"""Kind, stride and units per second of a source."""


@dataclass(frozen=True, slots=True)
class Input:
    """A raw column: 'number', 'string' or 'datetime'; what can't be read is 'missing', or an error."""

    name: str
    kind: str
    on_error: str = "raise"


class Sources:
    """Columns in memory, as the kernels take them; valid within `Reader.open`."""

    def __init__(self, count: int) -> None:
        self.table = np.zeros((count, memory.FIELDS), np.int64)
        self.structs = np.zeros((max(count, 1), memory.ARROW_ARRAY), np.int64)
        self.address = self.structs.ctypes.data
        self.which = np.zeros(count, np.int64)
        self.exported = 0
        self.rows = 0
        self.kept: list[Any] = []
        self.packed = np.empty((count, FEW))
        self.packed_at = self.packed.ctypes.data

    def close(self) -> None:
        """Let go of the columns."""
        if self.exported:
            memory.release(self.address, self.exported)
            self.exported = 0
        self.kept.clear()


class Reader:
    """Finds the columns of a transform in data of any form; counts what could not be read."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.inputs = tuple(inputs)
        self.errors: Counter[str] = Counter()
        self._free: list[Sources] = []
        self._schema: Any = None
        self._layout: tuple[Array, Array] | None = None

    @contextmanager
    def open(self, data: Any) -> Iterator[Sources]:
        """The sources of a record batch, a mapping or any other form.

        Raises BadRequest with the column, for one that is missing, of another type, or of another length than
        the rest, and for the first value in it that can't be read.
        """
        sources = self.take(data)
        try:
            yield sources
        finally:
            self.give(sources)

    def take(self, data: Any) -> Sources:
        """As `open`, to be given back: the one row that an application waits for is faster so."""
        sources = self._free.pop() if self._free else Sources(len(self.inputs))
        try:
            if hasattr(data, "_export_to_c") and hasattr(data, "schema"):
                self._batch(data, sources)
            else:
                self._each(data, sources)
        except BaseException:
            self.give(sources)
            raise
        return sources

    def give(self, sources: Sources) -> None:
        """Take sources back."""
        sources.close()
        self._free.append(sources)

    def _batch(self, batch: Any, sources: Sources) -> None:
        schema = batch.schema
        if self._schema is None or not schema.equals(self._schema):
            self._layout, self._schema = self._laid_out(schema), schema
        if self._layout is None:
            self._each(dict(zip(schema.names, batch.columns, strict=True)), sources)
            return
        children, sources.table[:] = self._layout
        batch._export_to_c(sources.address)
        sources.exported = 1
        sources.rows = memory.locate(sources.address, children, sources.table)

    def _laid_out(self, schema: Any) -> tuple[Array, Array] | None:
        """Which child is which input, and how it lies; None if any has to be converted, or is missing."""
        layouts, children = [], []
        for each in self.inputs:
            index = schema.get_field_index(each.name)
            layout = arrow_layout(each, schema.field(index).type) if index >= 0 else None
            if layout is None:
                return None
            layouts.append(layout)
            children.append(index)
        table = np.zeros((len(layouts), memory.FIELDS), np.int64)
        table[:, [memory.KIND, memory.STRIDE, memory.PER_SECOND]] = layouts
        return np.array(children, np.int64), table

    def _each(self, data: Any, sources: Sources) -> None:
        columns = data if isinstance(data, Mapping) else by_name(data)
        rows = -1
        words: list[int] = []
        for index, each in enumerate(self.inputs):
            column = columns.get(each.name)
            if column is None:
                columns = columns_of(data)
                column = columns.get(each.name)
            if column is None:
                raise BadRequest(f"column {each.name!r}: expected {WORDS[each.kind]}, came nothing")
            small = type(column) is np.ndarray and column.ndim == 1 and len(column) <= FEW
            if small and each.kind == "number" and column.dtype.char in _CHARS:
                plain = column
            else:
                plain = readable(each, column, self.errors)
            if rows >= 0 and len(plain) != rows:
                raise BadRequest(
                    f"column {each.name!r}: expected {rows} rows as before it, came {len(plain)}"
                )
            rows = len(plain)
            words += self._place(index, each, plain, sources)
        struct.pack_into(f"{len(words)}q", sources.table.data, 0, *words)
        memory.locate_each(sources.address, sources.exported, sources.table, sources.which)
        sources.rows = max(rows, 0)

    def _place(self, index: int, each: Input, column: Any, sources: Sources) -> tuple[int, ...]:
        """What stands in the table of a column."""
        if isinstance(column, np.ndarray):
            rows = len(column)
            if rows <= FEW and each.kind == "number":
                sources.packed[index, :rows] = column
                return memory.FLOAT64, sources.packed_at + index * FEW * 8, 0, 0, 0, 8, 0
            kind, stride, per_second = numpy_layout(each, column)  # type: ignore[misc]  # it is readable
            sources.kept.append(column)
            return kind, column.ctypes.data, 0, 0, 0, stride, per_second
        kind, stride, per_second = arrow_layout(each, column.type)  # type: ignore[misc]  # it is readable
        column._export_to_c(sources.address + 8 * memory.ARROW_ARRAY * sources.exported)
        sources.which[sources.exported] = index
        sources.exported += 1
        return kind, 0, 0, 0, 0, stride, per_second


def by_name(data: Any) -> Mapping[str, Any]:
    """The columns of a table or DataFrame as they are."""
    if hasattr(data, "column_names"):
        return dict(zip(data.column_names, data.columns, strict=True))
    if hasattr(data, "items") and hasattr(data, "columns"):
        return {str(name): column for name, column in data.items()}
    return columns_of(data)


def kind_of(column: Any) -> str:
    """'number', 'string' or 'datetime': what a column holds."""
    dtype = getattr(column, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind in "fiubM":
        return "datetime" if dtype.kind == "M" else "number"
    import pyarrow as pa

    kind = _arrow(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_temporal(kind):
        return "datetime"
    return "string" if _is_text(kind) else "number"


def readable(each: Input, column: Any, errors: Counter[str]) -> Any:
    """A column as it is if kernels can read it, else converted: numbers and dates in strings are parsed."""
    if isinstance(column, np.ndarray):
        if column.ndim == 2 and column.shape[1] == 1:
            column = column[:, 0]
        if column.ndim == 1 and numpy_layout(each, column) is not None:
            return column
        if column.ndim == 1 and each.kind == "number" and column.dtype == np.float16:
            return column.astype(np.float32)
        if column.ndim == 1 and each.kind == "datetime" and column.dtype.kind == "M":
            return column.astype("datetime64[s]")
    elif isinstance(column, _arrow_array()) and arrow_layout(each, column.type) is not None:
        return column
    try:
        array = _arrow(column)
    except BadRequest as error:
        raise BadRequest(f"column {each.name!r}: expected {WORDS[each.kind]}: {error}") from None
    if arrow_layout(each, array.type) is not None:
        return array
    return _converted(each, array, errors)


def numpy_layout(each: Input, column: Array) -> Layout | None:
    """How an array lies in memory; None if it is not of the input's kind."""
    dtype, stride = column.dtype, column.strides[0]
    if each.kind == "string":
        return None
    if dtype.kind == "M" and each.kind == "datetime":
        unit, count = np.datetime_data(dtype)
        scale = _UNITS.get(unit)
        return (memory.INT64, stride, scale) if scale and count == 1 and dtype.isnative else None
    kind = _NUMPY.get(dtype)
    return None if kind is None else (kind, stride, MICROSECONDS if each.kind == "datetime" else 0)


def arrow_layout(each: Input, kind: Any) -> Layout | None:
    """How an Arrow array of a type lies in memory; None if it has to be converted."""
    key = each.kind, kind.id  # a type's own hash is ten times slower
    layout = _LAYOUTS.get(key)
    if layout is None:
        layout = _layout_of(each, kind)
        if layout is not None and not hasattr(kind, "unit"):
            _LAYOUTS[key] = layout
    return layout


_LAYOUTS: dict[tuple[str, int], Layout] = {}


def _layout_of(each: Input, kind: Any) -> Layout | None:
    import pyarrow as pa

    if each.kind == "string":
        if pa.types.is_string(kind):
            return memory.STRING, 0, 0
        return (memory.LARGE_STRING, 0, 0) if pa.types.is_large_string(kind) else None
    if pa.types.is_temporal(kind):
        return _time_layout(kind) if each.kind == "datetime" else None
    per_second = MICROSECONDS if each.kind == "datetime" else 0
    if pa.types.is_boolean(kind):
        return None if per_second else (memory.BITS, 0, 0)
    if pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind):
        dtype = np.dtype(kind.to_pandas_dtype())
        return _NUMPY[dtype], dtype.itemsize, per_second
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


def _arrow(column: Any) -> Any:
    """Anything one-dimensional as an Arrow array."""
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        return column.combine_chunks()
    if isinstance(column, pa.Array):
        return column
    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise BadRequest(f"{error}; came {shorten(column)}") from None


def _converted(each: Input, array: Any, errors: Counter[str]) -> Any:
    import pyarrow as pa

    kind = array.type
    if pa.types.is_dictionary(kind):
        return readable(each, array.dictionary_decode(), errors)
    wanted = {"number": pa.float64(), "string": pa.string(), "datetime": pa.timestamp("us")}[each.kind]
    if pa.types.is_null(kind):
        return pa.nulls(len(array), wanted)
    if pa.types.is_string_view(kind):
        return readable(each, array.cast(pa.large_string()), errors)
    if _is_text(kind):
        return _parsed(each, array, wanted, errors)
    if pa.types.is_binary(kind) and each.kind == "string":
        return array.cast(wanted)
    if each.kind == "number" and (pa.types.is_decimal(kind) or pa.types.is_float16(kind)):
        return array.cast(wanted)
    raise BadRequest(f"column {each.name!r}: expected {WORDS[each.kind]}, came {kind}")


def _parsed(each: Input, array: Any, wanted: Any, errors: Counter[str]) -> Any:
    """Strings as numbers or times: by Arrow, and one by one if there is any that it doesn't take."""
    import pyarrow as pa

    try:
        return array.cast(wanted)
    except pa.ArrowException:
        pass
    parse: Callable[[str], Any] = _number if each.kind == "number" else _time
    values: list[Any] = array.to_pylist()
    for row, text in enumerate(values):
        if text is not None:
            try:
                values[row] = parse(text)
            except (ValueError, OverflowError):
                if each.on_error == "raise":
                    raise BadRequest(
                        f"column {each.name!r}, row {row}: expected {WORDS[each.kind]}, came {shorten(text)}"
                    ) from None
                errors[each.name] += 1
                values[row] = None
    return pa.array(values, wanted)


def _number(text: str) -> float:
    if "_" in text:
        raise ValueError(text)
    return float(text)


def _time(text: str) -> datetime.datetime:
    time = datetime.datetime.fromisoformat(text.strip())
    return time if time.tzinfo is None else time.astimezone(datetime.UTC).replace(tzinfo=None)
