"""Data of any form as named columns."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from driftline.arrays import as_array, is_foreign
from driftline.errors import BadRequest, listed
from driftline.tensors import Array, shorten

Column = Any
"""A one-dimensional numpy array of numbers or booleans, or a pyarrow array of strings."""

Columns = dict[str, Column]
"""Columns of one length, by name."""

BLOCK_ROWS = 1_024
"""Rows of a block: columns become rows in blocks that stay in the cache from column to column."""


def as_table(data: Any) -> Any:
    """Convert data that exports Arrow, such as Polars' frames and DuckDB's relations, to a pyarrow Table.

    Anything else is returned unchanged, and checked later. Raises BadRequest if the export is not a table.
    """
    if type(data) is dict or hasattr(data, "num_rows") or hasattr(data, "iloc"):
        return data
    if not hasattr(data, "__arrow_c_stream__"):
        return data
    import pyarrow as pa

    try:
        return pa.table(data)
    except (pa.ArrowException, TypeError) as error:
        raise BadRequest(
            f"expected a table that Arrow can represent, got a {type(data).__name__}: {error}"
        ) from error


def batch_of(data: Any) -> Any:
    """Return a table or DataFrame as one Arrow record batch; None for anything else.

    Raises BadRequest for a DataFrame with a column that Arrow can't represent.
    """
    data = as_table(data)
    import pyarrow as pa

    if hasattr(data, "to_batches"):  # pyarrow's Table
        columns = [column.combine_chunks() for column in data.columns]
        return pa.RecordBatch.from_arrays(columns, schema=data.schema)
    if hasattr(data, "iloc") and hasattr(data, "columns"):  # pandas' DataFrame
        try:
            return pa.RecordBatch.from_pandas(data, preserve_index=False)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise BadRequest(f"the DataFrame: {error}") from error
    return data if hasattr(data, "num_rows") else None


def columns_of(data: Any, wanted: Collection[str] | None = None) -> Columns:
    """Return the columns of a pyarrow Table or RecordBatch, a DataFrame of pandas or Polars, anything else
    that exports Arrow (`__arrow_c_stream__`), or a mapping of names to arrays.

    A two-dimensional array under one name becomes its columns: {"input": (rows, 30)} is input_0 ... input_29;
    one column keeps the name. Lists, Arrow's or a DataFrame's, and the fields of a structured array become
    columns, too. Nulls among numbers become NaN, dates and times microseconds; text, pandas' categories and
    objects that are text, and booleans with nulls ('True' and 'False') become strings. Masked values of an
    array are null.

    wanted  the names of the columns and arrays to read; all if None

    Raises BadRequest, with the column's name, for a column of neither numbers nor strings, and for columns
    that differ in length.
    """
    columns: Columns = {}
    for name, values in _named_values(data):
        if wanted is not None and str(name) not in wanted:
            continue
        for column_name, column in _columns(str(name), values).items():
            if column_name in columns:
                raise BadRequest(f"column {column_name!r}: expected it once, got twice")
            columns[column_name] = column
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        actual = listed(f"{name}: {len(column)}" for name, column in columns.items())
        raise BadRequest(f"expected columns of one length, got {actual}")
    return columns


def temporal_of(data: Any) -> dict[str, str]:
    """Return which columns hold a 'date', 'timestamp', 'time' of day or 'duration': those whose values
    `columns_of` converts to microseconds."""
    kinds = {str(name): _temporal(str(name), values) for name, values in _named_values(data)}
    return {name: kind for name, kind in kinds.items() if kind}


def declared_of(data: Any) -> set[str]:
    """Return which columns of integers a DataFrame or table declares to be categories: pandas' categories,
    and Arrow's dictionaries."""
    return {str(name) for name, values in _named_values(data) if _is_declared_category(values)}


def _is_declared_category(values: Any) -> bool:
    if type(values).__module__.startswith("pyarrow"):
        import pyarrow as pa

        return bool(pa.types.is_dictionary(values.type) and pa.types.is_integer(values.type.value_type))
    categories = getattr(getattr(values, "dtype", None), "categories", None)
    kind = getattr(getattr(categories, "dtype", None), "kind", "O")
    return kind in ("i", "u")


def names_in(data: Any) -> list[str]:
    """Return the names of the columns, whatever they hold; for a two-dimensional array, of its columns."""
    widths = {str(name): _width(values) for name, values in _named_values(data)}
    return [column_name for name, width in widths.items() for column_name in names_of(name, width)]


def _width(values: Any) -> int:
    shape: tuple[int, ...] = getattr(values, "shape", ())
    return shape[1] if len(shape) == 2 else 1


def names_of(name: str, width: int) -> tuple[str, ...]:
    """Return the names of an array's columns: its own name if there is one, else NAME_0, NAME_1, ..."""
    return (name,) if width == 1 else tuple(f"{name}_{index}" for index in range(width))


def kind_of(column: Column) -> str:
    """Return 'float', 'integer', 'boolean' or 'string'."""
    if not isinstance(column, np.ndarray):
        return "string"
    return {"f": "float", "b": "boolean"}.get(column.dtype.kind, "integer")


def array_of(name: str, values: Any) -> Any:
    """Convert another library's array, such as a PyTorch tensor, to numpy's; return anything else unchanged.

    Raises BadRequest, with the column's name, for one that numpy can't represent.
    """
    try:
        return as_array(values)
    except TypeError as error:
        raise BadRequest(f"column {name!r}: {error}") from None


def float32(column: Column) -> Array:
    """Convert a column of numbers to float32, in which all are observed; larger values become infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(column, np.float32)


def matrices(columns: Columns, names: Sequence[str]) -> Iterator[Array]:
    """Yield columns of numbers as float32 matrices (at most BLOCK_ROWS, names), valid until the next one."""
    rows = len(columns[names[0]]) if names else 0
    numbers = [float32(columns[name]) for name in names]
    matrix = np.empty((min(rows, BLOCK_ROWS), len(names)), np.float32)
    for start in range(0, rows, BLOCK_ROWS):
        block = matrix[: rows - start]
        for index, column in enumerate(numbers):
            block[:, index] = column[start : start + BLOCK_ROWS]
        yield block


def text_of(column: Column) -> tuple[Array, Array]:
    """Return Arrow's offsets of the rows of a string column, and the UTF-8 bytes that they point into."""
    import pyarrow as pa

    _, offsets, data = column.buffers()
    offset_type = np.int64 if pa.types.is_large_string(column.type) else np.int32
    all_offsets = np.frombuffer(offsets, offset_type) if offsets else np.zeros(1, offset_type)
    text = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)
    return all_offsets[column.offset : column.offset + len(column) + 1], text


def is_lists(kind: Any) -> bool:
    """Return whether an Arrow type is any type of list."""
    import pyarrow as pa

    lists = (pa.lib.Type_LIST, pa.lib.Type_FIXED_SIZE_LIST, pa.lib.Type_LARGE_LIST)
    return kind.id in (*lists, pa.lib.Type_LIST_VIEW, pa.lib.Type_LARGE_LIST_VIEW)


def items_of(
    lists: Any, what: str, width: int = -1, first_row: int = 0, lists_per_row: int = 1
) -> tuple[Any, int]:
    """Return the concatenated items of an Arrow column of lists, and the number of items of each list.

    Arrow itself skips null lists, and guarantees one length only for its fixed-size lists.

    what           the beginning of the message
    width          how many items a list must have; as many as the first if it is -1
    first_row      the number of the first row
    lists_per_row  how many lists belong to a row

    Raises BadRequest, with the row, for a list that is null or of another length.
    """
    import pyarrow.compute as pc

    list_lengths = pc.list_value_length(lists)
    lengths = np.from_dlpack(list_lengths.fill_null(-1) if list_lengths.null_count else list_lengths)
    reference = ""
    if width == -1 and len(lengths) and lengths[0] >= 0:
        width, reference = int(lengths[0]), f" as in row {first_row}"
    if (mismatched := (lengths != width) | (lengths < 0)).any():
        index = int(mismatched.argmax())
        expected = "a list" if width == -1 else f"{width} values{reference}"
        actual = "null" if lengths[index] < 0 else lengths[index]
        raise BadRequest(
            f"{what}, row {first_row + index // lists_per_row}: expected {expected}, got {actual}"
        )
    return lists.flatten(), max(width, 0)


def decode_dictionary(column: Any) -> Any:
    """Return the values of an Arrow dictionary array, row by row."""
    import pyarrow as pa

    values = column.dictionary
    if pa.types.is_string_view(values.type):
        values = values.cast(pa.string())  # Arrow can't take from views
    return values.take(column.indices)


def validity_of(column: Column) -> tuple[Array, int]:
    """Return Arrow's bitmap of the rows that aren't null, empty if none is, and the bit of the first row."""
    bitmap = column.buffers()[0]
    return np.frombuffer(bitmap, np.uint8) if bitmap else np.empty(0, np.uint8), column.offset


def _named_values(data: Any) -> list[tuple[Any, Any]]:
    data = as_table(data)
    if isinstance(data, Mapping):
        return list(data.items())
    if hasattr(data, "column_names"):  # pyarrow's Table or RecordBatch
        return list(zip(data.column_names, data.columns, strict=True))
    if hasattr(data, "items") and hasattr(data, "columns"):  # pandas' DataFrame
        return list(data.items())
    if isinstance(data, np.ndarray) and data.dtype.names:
        return [(name, data[name]) for name in data.dtype.names]
    if isinstance(data, np.ndarray) or is_foreign(data):
        raise BadRequest('expected arrays by name, such as {"input": array}, got an array alone')
    kind = type(data).__name__
    actual = f"a {kind}: {_FRAMES[kind]} makes a frame of it" if kind in _FRAMES else shorten(data)
    raise BadRequest(f"expected a table, a DataFrame or arrays by name, got {actual}")


_FRAMES = {"Series": "to_frame()", "LazyFrame": "collect()"}
"""Types of pandas and Polars that are no DataFrames, and how to convert them."""


def _temporal(name: str, values: Any) -> str:
    if type(values).__module__.startswith("polars"):
        values = values.to_arrow()
    if type(values).__module__.startswith("pyarrow"):
        import pyarrow as pa

        tests = {"is_date": "date", "is_timestamp": "timestamp", "is_time": "time", "is_duration": "duration"}
        return next((kind for test, kind in tests.items() if getattr(pa.types, test)(values.type)), "")
    if is_foreign(values):
        dtype = getattr(values, "dtype", None)
        if dtype is not None and not isinstance(dtype, np.dtype):
            return ""  # only numpy's dtypes can be times, and copying a tensor from a GPU is slow
        values = values if dtype is not None and dtype.kind != "O" else array_of(name, values)
    kind = getattr(getattr(values, "dtype", None), "kind", "O")
    if kind != "O" or getattr(values, "ndim", 1) != 1:
        return {"M": "timestamp", "m": "duration"}.get(kind, "")
    # A datetime is a date, too.
    types = {dt.datetime: "timestamp", dt.date: "date", dt.time: "time", dt.timedelta: "duration"}
    value = next((item for item in values if not _is_missing(item)), None)
    return next((kind for type_, kind in types.items() if isinstance(value, type_)), "")


def _is_missing(value: Any) -> bool:
    """Return whether it is None, NaN, or pandas' NaT or NA, which can't be compared."""
    if isinstance(value, float):
        return value != value
    return value is None or type(value).__name__ in ("NaTType", "NAType")


def _columns(name: str, values: Any) -> Columns:
    if type(values) is np.ndarray and values.ndim == 1 and values.dtype.kind in "fiub":
        return {name: values}
    if type(values).__module__.startswith("pyarrow"):
        return _arrow_columns(name, values)
    if type(values).__module__.startswith("polars"):
        return _arrow_columns(name, values.to_arrow())
    values = array_of(name, values)
    if getattr(getattr(values, "dtype", None), "categories", None) is not None:
        return _arrow_columns(name, _categories_to_arrow(name, values))
    try:
        array: Array = values if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    except ValueError:
        raise BadRequest(f"column {name!r}: expected a regular array, got lists that differ") from None
    if array.dtype.kind in "US" and not isinstance(values, np.ndarray):
        array = np.asarray(values, object)  # numpy would convert numbers among it to text
    if array.ndim == 2:
        return {
            column_name: _matrix_column(column_name, vector)
            for column_name, vector in zip(names_of(name, array.shape[1]), array.T, strict=True)
        }
    if array.ndim != 1:
        raise BadRequest(f"column {name!r}: expected one or two dimensions, got shape {list(array.shape)}")
    return {name: array} if _is_plain(array) else _arrow_columns(name, _to_arrow(name, array))


def _arrow_columns(name: str, values: Any) -> Columns:
    """Return an Arrow column, or, if it has lists of one length, the columns of those."""
    import pyarrow as pa

    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if not is_lists(values.type):
        return {name: _from_arrow(name, values)}
    list_size = values.type.list_size if pa.types.is_fixed_size_list(values.type) else -1
    lists, width = items_of(values, f"column {name!r}", list_size)
    items = _from_arrow(name, lists)
    return {column_name: items[index::width] for index, column_name in enumerate(names_of(name, width))}


def _categories_to_arrow(name: str, values: Any) -> Any:
    """Convert pandas' categories to an Arrow dictionary; intervals, as from pandas' cut, become text."""
    import pyarrow as pa

    codes, categories = np.asarray(getattr(values, "cat", values).codes), values.dtype.categories
    if categories.dtype.kind == "O" and categories.dtype != object:
        categories = categories.astype(str)
    dictionary = _to_arrow(name, np.asarray(categories))
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), dictionary)


def _matrix_column(name: str, array: Array) -> Column:
    return array if _is_plain(array) else _from_arrow(name, _to_arrow(name, array))


def _is_plain(array: Array) -> bool:
    return array.dtype.kind in "fiub" and not isinstance(array, np.ma.MaskedArray)


def _to_arrow(name: str, array: Array) -> Any:
    import pyarrow as pa

    try:
        # Arrow does not support numpy's StringDType.
        return pa.array(array.astype(object) if array.dtype.kind == "T" else array, from_pandas=True)
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise BadRequest(f"column {name!r}: expected numbers or strings: {error}") from error


def _from_arrow(name: str, values: Any) -> Column:
    import pyarrow as pa

    try:
        return _plain_column(name, values)
    except pa.ArrowException as error:
        raise BadRequest(f"column {name!r}: expected numbers or strings, got {values.type}") from error


def _plain_column(name: str, values: Any) -> Column:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_dictionary(kind):
        return _plain_column(name, decode_dictionary(values))
    if pa.types.is_null(kind):
        return np.full(len(values), np.nan)
    if pa.types.is_large_string(kind) or pa.types.is_string(kind):
        return values
    if pa.types.is_string_view(kind):
        return values.cast(pa.string())
    if pa.types.is_boolean(kind) and values.null_count:
        return pc.if_else(values, "True", "False")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        if values.null_count or pa.types.is_boolean(kind):
            return values.to_numpy(zero_copy_only=False)
        return np.from_dlpack(values)  # pyarrow's own conversion would import pandas, for a second
    if pa.types.is_decimal(kind):
        return values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    if pa.types.is_temporal(kind):
        return _plain_column(name, _microseconds(values))
    raise BadRequest(f"column {name!r}: expected numbers or strings, got {kind}")


def _microseconds(values: Any) -> Any:
    """Convert dates and times (since 1970), times of day (since midnight) and durations to int64."""
    import pyarrow as pa

    if pa.types.is_time(values.type):
        unit = pa.time64("us")
    elif pa.types.is_duration(values.type):
        unit = pa.duration("us")
    else:
        unit = pa.timestamp("us")
    return values.cast(unit, safe=False).cast(pa.int64())
