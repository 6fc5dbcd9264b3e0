"""A window as an Arrow file, which agents and servers export, so that the windows of several can be merged.

There is a row for each column: its name, counts and moments. Sums over whole rows, and facts about the
window, are in the metadata.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from driftline.errors import BadRequest
from driftline.monitor.detection.signals import Signal
from driftline.monitor.window import Window
from driftline.tensors import Array

if TYPE_CHECKING:
    from driftline.monitor.monitor import Monitor

FORMAT = 1
"""The version of the format; a window of a newer one is refused."""

_SCHEMA = pa.schema(
    [("name", pa.string()), ("counts", pa.list_(pa.int64())), ("moments", pa.list_(pa.float64()))]
)
_HEAD = b"driftline.window"
_WHOLE = b"driftline.whole."


@dataclass(frozen=True, slots=True, eq=False)
class WindowFile:
    """A window, and where it comes from.

    model, version  that was watched
    fingerprint     of the profile in whose bins it was counted
    signals         that are held
    """

    model: str
    version: str
    fingerprint: str
    window: Window
    signals: tuple[Signal, ...]


def current(monitor: Monitor, model: str, version: str) -> bytes:
    """Return a monitor's current window and held signals, encoded."""
    window, signals = monitor.current()
    return encode(WindowFile(model, version, monitor.profile.fingerprint, window, signals))


def encode(file: WindowFile) -> bytes:
    """Return a window file as bytes."""
    window = file.window
    head = {
        "format": FORMAT,
        "model": file.model,
        "version": file.version,
        "fingerprint": file.fingerprint,
        "began": window.began.isoformat(),
        "ended": window.ended.isoformat(),
        "rows": window.rows,
        "signals": [signal.to_dict() for signal in file.signals],
    }
    metadata = {
        _HEAD: json.dumps(head).encode(),
        _WHOLE + b"features": window.features.tobytes(),
        _WHOLE + b"comoments": window.comoments.tobytes(),
    }
    rows = [
        {"name": name, "counts": counts, "moments": window.moments.get(name)}
        for name, counts in window.counts.items()
    ]
    table = pa.Table.from_pylist(rows, _SCHEMA.with_metadata(metadata))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def decode(content: bytes, where: str) -> WindowFile:
    """Return what `encode` was given; raise BadRequest, beginning with `where`, for other bytes."""
    try:
        table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
        metadata = table.schema.metadata or {}
        head: dict[str, Any] = json.loads(metadata[_HEAD])
        if head["format"] > FORMAT:
            raise BadRequest(f"{where}: a window of format {head['format']}; this driftline reads {FORMAT}")
        rows: list[dict[str, Any]] = table.to_pylist()
        window = Window(
            datetime.fromisoformat(head["began"]),
            datetime.fromisoformat(head["ended"]),
            head["rows"],
            {row["name"]: np.array(row["counts"], np.int64) for row in rows},
            {row["name"]: np.array(row["moments"]) for row in rows if row["moments"] is not None},
            np.frombuffer(metadata[_WHOLE + b"features"], np.float64),
            _square(np.frombuffer(metadata[_WHOLE + b"comoments"], np.float64)),
        )
        signals = tuple(Signal.of_dict(fields) for fields in head["signals"])
        return WindowFile(head["model"], head["version"], head["fingerprint"], window, signals)
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise BadRequest(f"{where}: expected a window: {' '.join(str(error).split())}") from error


def _square(values: Array) -> Array:
    side = round(len(values) ** 0.5)
    return values.reshape(side, side)
