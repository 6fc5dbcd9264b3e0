"""A monitor's state in a file: after a restart, another continues from it, guarantee included."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from driftline.errors import BadRequest
from driftline.files import replacing
from driftline.monitor import window_file
from driftline.monitor.detection.signals import Signal
from driftline.monitor.monitor import Monitor
from driftline.monitor.snapshot import Snapshot
from driftline.monitor.window_file import WindowFile
from driftline.tensors import Array

FORMAT = 1
"""The version of the format; a checkpoint of another version is refused."""

_ZIP = b"PK\x03\x04"
_NAME_OFFSET = 30
"""The offset of the first member's name in a zip file; a checkpoint is one."""

_FIRST_MEMBERS = b"head.", b"detectors.", b"counted."
"""What that name may begin with."""


def check(path: Path) -> None:
    """Raise BadRequest if a file can't hold checkpoints: it can't be written, or is something else.

    A damaged checkpoint still counts as one, by its first bytes; so does an empty file or one of zeros, which
    a file system may leave after a power failure. Neither may prevent a fresh start.
    """
    if not path.parent.is_dir():
        raise BadRequest(f"checkpoint {path}: expected a file in a folder, {path.parent} is none")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise BadRequest(f"checkpoint {path}: files in {path.parent} can't be written")
    try:
        with path.open("rb") as file:
            beginning = file.read(2**16)
            is_blank = path.is_file() and not any(part.strip(b"\0") for part in chain([beginning], file))
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadRequest(f"checkpoint {path}: {error.strerror}") from error
    if not (is_blank or _is_checkpoint(beginning)):
        raise BadRequest(f"checkpoint {path}: expected a checkpoint or no file, got something else")


def save(path: Path, monitor: Monitor, extra: Mapping[str, Any]) -> None:
    """Write a checkpoint; the file is replaced once all of it is on disk.

    extra  other values to save with it, as JSON types

    Raises BadRequest if it can't be written.
    """
    snapshot = monitor.snapshot()
    fingerprint = monitor.profile.fingerprint
    detectors = dict(snapshot.detectors)
    head = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "rows": snapshot.rows,
        "window_rows": snapshot.window_rows,
        "began": snapshot.began.isoformat(),
        "random": detectors.pop("random", None),
        "signals": [signal.to_dict() for signal in snapshot.signals],
        "seen": sorted(snapshot.seen),
        "more": extra,
    }
    arrays: dict[str, Array] = {"head": _uint8(json.dumps(head).encode()), "counted": snapshot.counted}
    arrays |= {f"detectors.{name}": array for name, array in detectors.items()}
    for index, window in enumerate(snapshot.finished):
        arrays[f"window.{index}"] = _uint8(window_file.encode(WindowFile("", "", fingerprint, window, ())))
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    try:
        with replacing(path) as new, new.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BadRequest(f"checkpoint {path}: {error.strerror}") from error


def load(path: Path, monitor: Monitor) -> dict[str, Any]:
    """Restore a monitor that has observed nothing from a checkpoint; return the other values saved with it.

    Raises BadRequest if it is not a checkpoint, or one of another profile; then the monitor is unchanged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadRequest(f"checkpoint {path}: expected a checkpoint: {error.strerror}") from error
    if not _is_checkpoint(content):
        raise BadRequest(f"checkpoint {path}: expected a checkpoint, got something else")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        head = json.loads(arrays["head"].tobytes())
        if head["format"] != FORMAT:
            raise BadRequest(f"checkpoint {path}: expected format {FORMAT}, got {head['format']}")
        if head["fingerprint"] != monitor.profile.fingerprint:
            raise BadRequest(f"checkpoint {path}: it was counted against another profile")
        extra = dict(head["more"])
        monitor.restore(_snapshot_of(head, arrays, str(path)))
        return extra
    except BadRequest:
        raise
    except Exception as error:  # whatever damaged bytes cause
        raise BadRequest(f"checkpoint {path}: expected a checkpoint, got one that is damaged") from error


def _snapshot_of(head: Mapping[str, Any], arrays: Mapping[str, Array], where: str) -> Snapshot:
    detectors = {
        name.removeprefix("detectors."): array
        for name, array in arrays.items()
        if name.startswith("detectors.")
    }
    window_count = sum(name.startswith("window.") for name in arrays)
    windows = (arrays[f"window.{index}"].tobytes() for index in range(window_count))
    return Snapshot(
        head["rows"],
        head["window_rows"],
        datetime.fromisoformat(head["began"]),
        arrays["counted"],
        {**detectors, "random": head["random"]},
        tuple(Signal.of_dict(fields) for fields in head["signals"]),
        frozenset((kind, column) for kind, column in head["seen"]),
        tuple(window_file.decode(content, where).window for content in windows),
    )


def _is_checkpoint(content: bytes) -> bool:
    """Return whether the content was written as a checkpoint, even if it has been damaged since."""
    member = content[_NAME_OFFSET:]
    return content.startswith(_ZIP) and (not member or member.startswith(_FIRST_MEMBERS))


def _uint8(content: bytes) -> Array:
    return np.frombuffer(content, np.uint8)
