"""CSV files: which values are missing, and each column's type, inferred from all of its rows.

Arrow infers types from the first block it reads. A column that is empty there, or of integers, may hold text
or floats further on. So each block of a longer file is examined by itself first, and a column gets the type
that can hold all its blocks; only integers beyond 2^53 among floats are rounded. Like reading, that takes the
memory of a block.
"""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

log = logging.getLogger("driftline.tables")

BLOCK_BYTES = 2**22
"""Bytes that are read at once."""

_HEAD_BYTES = 2**16
"""Bytes in which the first two lines are expected."""

_MISSING = [*pa.csv.ConvertOptions().null_values, "None", "<NA>"]
"""Words for a missing value of any type: those of Arrow, and others that pandas treats as missing."""

_NOT_UTF8 = "expected text in UTF-8, got another encoding"

_TYPE_NAMES = {
    "null": "missing values",
    "int64": "whole numbers",
    "double": "numbers",
    "bool": "booleans",
    "string": "text",
    "date32[day]": "dates",
    "timestamp[s]": "dates with times",
    "timestamp[ns]": "dates with times",
}


def open_file(path: Path, types: Mapping[str, Any] | None = None, columns: Sequence[str] = ()) -> Any:
    """Return a pyarrow reader of a file's batches, to be closed.

    types    of columns; those of others are inferred from the first block
    columns  that are read; all if there are none

    Raises ValueError for a file whose first line is not UTF-8, or whose columns are not separated by commas.
    """
    _check_head(path)
    read_options = pa.csv.ReadOptions(block_size=BLOCK_BYTES)
    return pa.csv.open_csv(path, read_options, convert_options=convert_options(types, columns))


def check_utf8(schema: Any, where: str = "") -> None:
    """Raise ValueError if text in a column is not UTF-8; the message begins with `where`."""
    for field in schema:
        if pa.types.is_binary(field.type):
            raise ValueError(f"{where}column {field.name!r}: {_NOT_UTF8}")


def _check_head(path: Path) -> None:
    """Check the first two lines: Arrow reads other encodings as binary, and a file with other separators as
    one column, or as rows with too many columns if their numbers have decimal commas."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES).removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
    first_line, *more_lines = head.splitlines() or [b""]
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(first_line, final=bool(more_lines))
    except UnicodeDecodeError:
        raise ValueError(_NOT_UTF8) from None
    if "\0" in text:  # UTF-16, as spreadsheets write it
        raise ValueError(_NOT_UTF8)
    lines = [line for line in re.sub(rb'"[^"]*"', b'""', head).splitlines() if line][:2]
    if not lines or b"," in lines[0]:
        return
    if any(all(separator in line for line in lines) for separator in (b";", b"\t", b"|")):
        raise ValueError(f"expected columns separated by commas, got {text[:100]!r}")


def unify_schema(schema: Any, files: Sequence[Path]) -> Any:
    """Return a schema whose types can hold all values of the columns of some files.

    schema  inferred from the first block of the first file; columns that differ from it are logged
    """
    types = {field.name: field.type for field in schema}
    changed: dict[str, str] = {}
    for path in files if len(files) > 1 or files[0].stat().st_size > BLOCK_BYTES else ():
        for first, last, block in _schemas(path):
            file = f"{path.name}, " if len(files) > 1 else ""
            check_utf8(block, f"{file}rows {first:,} to {last:,}: ")
            for field in block:
                common = _common_type(types[field.name], field.type) if field.name in types else None
                if common not in (None, types.get(field.name)):
                    types[field.name] = common
                    changed[field.name] = f"{path}, rows {first:,} to {last:,}"
    for name, where in changed.items():
        log.warning(
            "%s: column %r, which began with %s, holds others here: all of it is read as %s",
            where, name, _describe_type(schema.field(name).type), _describe_type(types[name]),
        )  # fmt: skip
    return pa.schema(list(types.items()))


def _describe_type(kind: Any) -> str:
    return _TYPE_NAMES.get(str(kind), str(kind))


def _schemas(path: Path) -> Iterator[tuple[int, int, Any]]:
    """Yield the first and last row of each block of a file, from 1, and the schema inferred from it alone.

    Stops where the file is malformed: its reader reports why.
    """
    names: list[str] | None = None
    rows = 0
    for block in _blocks(path):
        read_options = pa.csv.ReadOptions(column_names=names, block_size=len(block) + 1)
        try:
            table = pa.csv.read_csv(pa.BufferReader(block), read_options, convert_options=convert_options())
        except pa.ArrowInvalid:
            return
        names = table.schema.names
        yield rows + 1, rows + table.num_rows, table.schema
        rows += table.num_rows


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield a file in parts of whole lines."""
    incomplete = b""
    with path.open("rb") as file:
        while content := file.read(BLOCK_BYTES):
            content = incomplete + content
            stop = max(content.rfind(b"\n"), content.rfind(b"\r")) + 1
            block, incomplete = content[:stop], content[stop:]
            if block.strip():
                yield block
            if len(incomplete) > BLOCK_BYTES:  # a line that is too long for any reader
                return
    if incomplete:
        yield incomplete


def convert_options(types: Mapping[str, Any] | None = None, columns: Sequence[str] = ()) -> Any:
    """Return pyarrow's options by which all CSV is read, of files and of requests; see `open_file`."""
    return pa.csv.ConvertOptions(
        column_types=dict(types or {}),
        include_columns=list(columns),
        null_values=_MISSING,
        strings_can_be_null=True,
    )


def _common_type(first: Any, second: Any) -> Any:
    """Return the type that can hold values of both."""
    for kind, later in ((first, second), (second, first)):
        if pa.types.is_date(kind) and pa.types.is_timestamp(later):
            return later
    schemas = [pa.schema([("", kind)]) for kind in (first, second)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowTypeError:
        return pa.string()
