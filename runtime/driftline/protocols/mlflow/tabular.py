"""Tables in CSV and Parquet as requests of MLflow's scoring protocol."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from driftline import csv_files
from driftline.columns import decode_dictionary
from driftline.config import Batching
from driftline.errors import BadRequest
from driftline.mlmodel import Column
from driftline.protocols import sizes
from driftline.protocols.codec import InferRequest, check_limit
from driftline.protocols.mlflow.frames import Frame
from driftline.protocols.mlflow.scoring import MlflowCodec
from driftline.tensors import Array, Signature


class CsvCodec(MlflowCodec):
    """Reads tables in CSV, with the columns' names in the first line; answers as MlflowCodec does.

    A column has its declared type, or text if the model takes text, or else the type that its values look
    like. A date is text.
    """

    def __init__(self, signature: Signature, *arguments: Any) -> None:
        super().__init__(signature, *arguments)
        schema = self._declared.inputs
        declared = {
            column.name: column.type.name for column in schema if isinstance(column, Column) and column.name
        }
        texts = [
            name
            for spec in signature.inputs
            if spec.datatype.name == "BYTES"
            for name in (*spec.column_names, *spec.columns)
        ]
        self._types = dict.fromkeys(texts, pa.string()) | {
            name: _TYPES[kind] for name, kind in declared.items() if kind in _TYPES
        }

    def decode(self, body: bytes, json_length: int | None = None) -> InferRequest:
        """Read a request's body; BadRequest if it is no table or does not fit the signature."""
        try:
            table = read_csv(body, self._types)
        except (pa.ArrowException, ValueError) as error:
            raise BadRequest(f"the request is not valid CSV: {_one_line(error)}") from error
        inputs, by_row = self._intake.table(_to_frame(table))
        return InferRequest(inputs, self._outputs, by_row=by_row)


class ParquetCodec(MlflowCodec):
    """Reads tables in Parquet, whose columns have types; answers as MlflowCodec does.

    Columns that the model does not take are not read.

    max_rows   a table with more is refused before it is read: a million equal rows are a few bytes in a file
    max_bytes  so is one with more bytes in the columns that are read, by the file's footer; and before it is
               decoded, one with more bytes of values
    """

    def __init__(
        self,
        *arguments: Any,
        max_rows: int = Batching().max_queue_rows,
        max_bytes: int = Batching().max_queue_bytes,
    ) -> None:
        super().__init__(*arguments)
        self._max_rows = max_rows
        self._max_bytes = max_bytes

    def decode(self, body: bytes, json_length: int | None = None) -> InferRequest:
        """Read a request's body.

        Raises BadRequest if it is no table or does not fit the signature, TooLarge if it has too many rows or
        bytes.
        """
        try:
            frame = self._read_frame(pa.BufferReader(body))
        except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
            raise BadRequest(f"the request is not a valid Parquet file: {_one_line(error)}") from error
        inputs, by_row = self._intake.table(frame, typed=True)
        return InferRequest(inputs, self._outputs, by_row=by_row)

    def _read_frame(self, body: Any) -> Frame:
        """Return all columns by name; those that are not taken have no values."""
        metadata = pa.parquet.read_metadata(body)
        rows = metadata.num_rows
        check_limit(rows, self._max_rows, "rows")
        names = _column_names(metadata)
        wanted = self._intake.wanted(names)
        names_read = [name for name in names if name in wanted]
        leaves = [
            index
            for index in range(metadata.num_columns)
            if _is_within(metadata.schema.column(index).path, names_read)
        ]
        check_limit(_bytes_of(metadata, leaves), self._max_bytes, "bytes when decompressed")
        # A text that many rows share stays one text until it is known how many those are.
        texts = [column.path for column in map(metadata.schema.column, leaves) if _is_text(column)]
        with pa.parquet.ParquetFile(body, metadata=metadata, read_dictionary=texts) as file:
            table = file.read(names_read)
        table = table.select([index for index, name in enumerate(table.column_names) if name in names_read])
        chunks = (chunk for column in table.columns for chunk in column.chunks)
        check_limit(sum(map(sizes.decoded_bytes, chunks)), self._max_bytes, "bytes of values")
        frame = _to_frame(table)
        if frame.names == tuple(names):
            return frame
        columns, absent = frame.by_name(), [None] * rows
        return Frame(tuple(names), [columns.get(name, absent) for name in names])


_TYPES = {
    "boolean": pa.bool_(),
    "integer": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "datetime": pa.string(),
    "binary": pa.string(),
}


_NUMBERS = {pa.int32(), pa.int64(), pa.float32(), pa.float64()}
_BOOLEANS = pa.array(["true", "false"])


def read_csv(body: bytes, types: Mapping[str, Any]) -> Any:
    """Read a table in CSV with pyarrow: with these types, or else inferred ones; a date is text."""
    try:
        table = _read(body, types)
    except pa.ArrowInvalid:
        table = _read_loosely(body, types)
    dates = {field.name: pa.string() for field in table.schema if pa.types.is_temporal(field.type)}
    return read_csv(body, {**types, **dates}) if dates else table


def _read(body: bytes, types: Mapping[str, Any]) -> Any:
    return pa.csv.read_csv(pa.BufferReader(body), convert_options=csv_files.convert_options(types))


def _read_loosely(body: bytes, types: Mapping[str, Any]) -> Any:
    """Do the same, with numbers in every form that pandas recognises."""
    texts = {name: pa.string() for name, kind in types.items() if kind in _NUMBERS}
    table = _read(body, {**types, **texts})
    columns = [
        _to_numbers(name, column, types[name]) if name in texts else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return pa.table(columns, table.column_names)


def _to_numbers(name: str, column: Any, kind: Any) -> Any:
    """Convert texts to numbers: integers may be written as floats, as by pandas beside gaps, or be booleans.

    Raises ArrowInvalid with the first that is not a number.
    """
    from pyarrow import compute  # takes 50 ms, and most requests don't need it

    column = compute.utf8_trim_whitespace(column)
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        words = compute.utf8_lower(column)
    if compute.all(compute.is_in(words.drop_null(), _BOOLEANS)).as_py():
        return compute.equal(words, "true").cast(kind)
    try:
        return column.cast(pa.float64()).cast(kind)
    except pa.ArrowInvalid as error:
        raise pa.ArrowInvalid(f"column {name!r}: {error}") from None


def _column_names(metadata: Any) -> list[str]:
    """Return the names of a file's columns, without those that were the index of a DataFrame."""
    pandas = json.loads((metadata.metadata or {}).get(b"pandas", b"{}"))
    index_columns = pandas.get("index_columns") if isinstance(pandas, dict) else None
    index_names = (
        {name for name in index_columns if isinstance(name, str)}
        if isinstance(index_columns, list)
        else set()
    )
    return [name for name in metadata.schema.to_arrow_schema().names if name not in index_names]


def _is_within(path: str, names: Container[str]) -> bool:
    """Return whether a column of a file, NAME or NAME.PART.PART, is read with the columns of these names."""
    parts = path.split(".")
    return any(".".join(parts[:count]) in names for count in range(1, len(parts) + 1))


def _bytes_of(metadata: Any, leaves: Sequence[int]) -> int:
    """Return the bytes of columns by a file's footer; each text in a dictionary counts once."""
    size = 0
    for index in leaves:
        column = metadata.schema.column(index)
        width = (
            column.length if column.physical_type == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS[column.physical_type]
        )
        for row_group in map(metadata.row_group, range(metadata.num_row_groups)):
            chunk = row_group.column(index)
            if "DELTA_BYTE_ARRAY" in chunk.encodings:
                raise BadRequest(
                    f"column {column.path!r}: expected encodings whose size is known, got DELTA_BYTE_ARRAY"
                )
            size += max(chunk.total_uncompressed_size, chunk.num_values * width)
    return size


def _is_text(column: Any) -> bool:
    return bool(column.physical_type == "BYTE_ARRAY")


_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}
"""Bytes in memory of a value of each of Parquet's types; of a text, of its place in a dictionary."""


def _to_frame(table: Any) -> Frame:
    """Return a table as a Frame; BadRequest for names that are not UTF-8, and for impossible values."""
    try:
        return Frame(
            tuple(table.column_names), [_to_values(column.combine_chunks()) for column in table.columns]
        )
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise BadRequest(f"the table: {_one_line(error)}") from error


def _to_values(column: Any) -> Array | list[Any]:
    """Return values as in pandas: numbers as an array, with NaN for nulls, dates and times as text."""
    if pa.types.is_dictionary(column.type):
        column = decode_dictionary(column)
    if pa.types.is_boolean(column.type) and not column.null_count:
        return np.array(column.to_pylist(), np.bool_)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        column = column.cast(pa.float64(), safe=False).fill_null(math.nan) if column.null_count else column
        return np.from_dlpack(column)  # pyarrow's own way would import pandas, for a second
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.string())
    values: list[Any] = column.to_pylist()
    return values


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
