"""CSV files: what is missing, and which type a column has, told from all of its rows.

Arrow tells types from the first block it reads. A column that is empty there, or whole, may hold text or
fractions further on. So each block of a longer file is looked at for itself first, and a column gets the type
that holds what all blocks hold, but for whole numbers beyond 2^53 among fractions, which are rounded. Like
reading, that takes the memory of a block.
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
"""What is read at once."""

_HEAD_BYTES = 2**16
"""Where the first two lines are looked for."""

_MISSING = [*pa.csv.ConvertOptions().null_values, "None", "<NA>"]
"""Words for a missing value, of whatever type: those of Arrow, and what pandas takes for one beside them."""

_NO_UTF8 = "expected text in UTF-8, came another encoding"

_WORDS = {
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
    """A pyarrow reader of a file's batches, to be closed.

    types    of columns; those of others are told from the first block
    columns  that are read; all if there are none

    Raises ValueError for a file whose first line is no UTF-8, or whose columns are apart by anything but
    commas.
    """
    _check_head(path)
    reading = pa.csv.ReadOptions(block_size=BLOCK_BYTES)
    return pa.csv.open_csv(path, reading, convert_options=_converting(types, columns))


def check(schema: Any, where: str = "") -> None:
    """Raise ValueError if text in a column is no UTF-8; `where` is in front of the message."""
    for field in schema:
        if pa.types.is_binary(field.type):
            raise ValueError(f"{where}column {field.name!r}: {_NO_UTF8}")


def _check_head(path: Path) -> None:
    """Look at the first two lines: Arrow takes other encodings for odd bytes, and other marks between columns
    for one column, whose rows have too many if their numbers have decimal commas."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES).removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
    first, *more = head.splitlines() or [b""]
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(first, final=bool(more))
    except UnicodeDecodeError:
        raise ValueError(_NO_UTF8) from None
    if "\0" in text:  # UTF-16, as spreadsheets write it
        raise ValueError(_NO_UTF8)
    lines = [line for line in re.sub(rb'"[^"]*"', b'""', head).splitlines() if line][:2]
    if not lines or b"," in lines[0]:
        return
    if any(all(mark in line for line in lines) for mark in (b";", b"\t", b"|")):
        raise ValueError(f"expected columns apart by commas, came {text[:100]!r}")


def settle(schema: Any, files: Sequence[Path]) -> Any:
    """A schema whose types hold all that the columns of some files hold.

    schema  told from the first block of the first file; how the columns differ from it is logged
    """
    types = {field.name: field.type for field in schema}
    changed: dict[str, str] = {}
    for path in files if len(files) > 1 or files[0].stat().st_size > BLOCK_BYTES else ():
        for first, last, block in _schemas(path):
            file = f"{path.name}, " if len(files) > 1 else ""
            check(block, f"{file}rows {first:,} to {last:,}: ")
            for field in block:
                both = _both(types[field.name], field.type) if field.name in types else None
                if both not in (None, types.get(field.name)):
                    types[field.name] = both
                    changed[field.name] = f"{path}, rows {first:,} to {last:,}"
    for name, where in changed.items():
        log.warning(
            "%s: column %r, which began with %s, holds others here: all of it is read as %s",
            where, name, _word(schema.field(name).type), _word(types[name]),
        )  # fmt: skip
    return pa.schema(list(types.items()))


def _word(kind: Any) -> str:
    return _WORDS.get(str(kind), str(kind))


def _schemas(path: Path) -> Iterator[tuple[int, int, Any]]:
    """The first and the last row of each block of a file, from 1, and what it would be taken for by itself.

    Up to where the file breaks: its reader says why.
    """
    names: list[str] | None = None
    rows = 0
    for block in _blocks(path):
        reading = pa.csv.ReadOptions(column_names=names, block_size=len(block) + 1)
        try:
            table = pa.csv.read_csv(pa.BufferReader(block), reading, convert_options=_converting())
        except pa.ArrowInvalid:
            return
        names = table.schema.names
        yield rows + 1, rows + table.num_rows, table.schema
        rows += table.num_rows


def _blocks(path: Path) -> Iterator[bytes]:
    """A file in parts that end with a line."""
    rest = b""
    with path.open("rb") as file:
        while content := file.read(BLOCK_BYTES):
            content = rest + content
            stop = max(content.rfind(b"\n"), content.rfind(b"\r")) + 1
            block, rest = content[:stop], content[stop:]
            if block.strip():
                yield block
            if len(rest) > BLOCK_BYTES:  # a line that no reader takes
                return
    if rest:
        yield rest


def _converting(types: Mapping[str, Any] | None = None, columns: Sequence[str] = ()) -> Any:
    return pa.csv.ConvertOptions(
        column_types=dict(types or {}),
        include_columns=list(columns),
        null_values=_MISSING,
        strings_can_be_null=True,
    )


def _both(one: Any, other: Any) -> Any:
    """The type of what holds values of both."""
    for kind, later in ((one, other), (other, one)):
        if pa.types.is_date(kind) and pa.types.is_timestamp(later):
            return later
    schemas = [pa.schema([("", kind)]) for kind in (one, other)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowTypeError:
        return pa.string()
