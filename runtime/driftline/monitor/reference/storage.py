"""A profile as an Arrow IPC file: one row for each column, and the whole-row reference in the metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from driftline.errors import BadRequest
from driftline.files import replacing
from driftline.monitor.reference.column import Categorical, Numeric, Reference
from driftline.monitor.reference.ranks import CUTS
from driftline.monitor.reference.whole import Whole
from driftline.tensors import Array

FORMAT = 2
"""The version of the format; files of newer versions are rejected."""

_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("source", pa.string()),
        ("kind", pa.string()),
        ("temporal", pa.string()),
        ("edges", pa.list_(pa.float32())),
        ("categories", pa.list_(pa.string())),
        ("counts", pa.list_(pa.int64())),
        ("split", pa.list_(pa.float64())),
        ("gaps", pa.list_(pa.float64())),
        ("moments", pa.list_(pa.float64())),
    ]
)
_HEAD = b"driftline.profile"
_WHOLE = b"driftline.whole."
_ARRAYS = ("scaling", "features", "comoments")


def write(path: Path, references: tuple[Reference, ...], whole: Whole) -> None:
    """Write a profile; the file is replaced only when complete. BadRequest if it can't be written."""
    try:
        with replacing(path) as new:
            new.write_bytes(encode(references, whole))
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror}") from error


def read(path: Path) -> tuple[tuple[Reference, ...], Whole]:
    """Read a profile; BadRequest if the file isn't one, or has a newer format."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadRequest(f"{path}: expected a profile: {error.strerror}") from error
    return decode(content, str(path))


def encode(references: tuple[Reference, ...], whole: Whole) -> bytes:
    """Return the content of a profile's file."""
    head = {"format": FORMAT, "names": whole.names, "rows": whole.rows, "seed": whole.seed}
    metadata = {_HEAD: json.dumps(head).encode()}
    for name in _ARRAYS:
        metadata[_WHOLE + name.encode()] = getattr(whole, name).astype(np.float64).tobytes()
    table = pa.Table.from_pylist(
        [_row(reference) for reference in references], _SCHEMA.with_metadata(metadata)
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def decode(content: bytes, where: str) -> tuple[tuple[Reference, ...], Whole]:
    """Read what `encode` wrote; BadRequest, beginning with `where`, for anything else or a newer format."""
    try:
        table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
        metadata = table.schema.metadata or {}
        head = json.loads(metadata[_HEAD])
        if head["format"] > FORMAT:
            raise BadRequest(
                f"{where}: a profile of format {head['format']}; this driftline reads up to format {FORMAT}"
            )
        references = tuple(_reference(row) for row in table.to_pylist())
        arrays: dict[str, Array] = {
            name: np.frombuffer(metadata[_WHOLE + name.encode()], np.float64) for name in _ARRAYS
        }
        side = len(head["names"]) + 1 if len(arrays["comoments"]) else 0
        arrays["comoments"] = arrays["comoments"].reshape(side, side)
        arrays["scaling"] = arrays["scaling"].reshape(-1, 2)
        return references, Whole(tuple(head["names"]), **arrays, rows=head["rows"], seed=head["seed"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise BadRequest(f"{where}: expected a profile: {' '.join(str(error).split())}") from error


def _row(reference: Reference) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": reference.name,
        "source": reference.source,
        "counts": reference.counts,
        "split": reference.split.ravel(),
        "gaps": reference.gaps,
    }
    if isinstance(reference, Categorical):
        return {**row, "kind": reference.kind, "categories": reference.categories}
    return {
        **row,
        "kind": "numeric",
        "temporal": reference.temporal,
        "edges": reference.edges,
        "moments": reference.moments,
    }


def _reference(row: dict[str, Any]) -> Reference:
    shared = {
        "name": row["name"],
        "source": row.get("source", ""),  # missing in format 1
        "counts": np.array(row["counts"], np.int64),
        "split": np.array(row["split"], np.float64).reshape(-1, CUTS + 1),
        "gaps": np.array(row["gaps"], np.float64),
    }
    if row["kind"] != "numeric":
        return Categorical(**shared, kind=row["kind"], categories=tuple(row["categories"]))
    edges, moments = np.array(row["edges"], np.float32), np.array(row["moments"], np.float64)
    # Older files lack it; older versions, which read dates as numbers, can still read newer files.
    return Numeric(**shared, edges=edges, moments=moments, temporal=row.get("temporal") or "")
