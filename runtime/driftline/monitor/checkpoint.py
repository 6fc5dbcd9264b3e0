"""What a monitor knows, in a file: after a restart another goes on from there, its guarantee included."""

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
"""The version of the format; a checkpoint of another one is refused."""

_ZIP = b"PK\x03\x04"
_NAME = 30
"""Where the name of its first member is in a zip file, which is what a checkpoint is."""

_FIRST = b"head.", b"detectors.", b"counted."
"""What that begins with."""


def check(path: Path) -> None:
    """Whether checkpoints can be kept in a file; BadRequest if it can't be written, or is something else.

    One that is damaged is a checkpoint still, by its first bytes; so is a file of nothing or of zeros, which
    a file system may make of one when the power fails. Neither is to keep anybody from beginning anew.
    """
    if not path.parent.is_dir():
        raise BadRequest(f"checkpoint {path}: expected a file in a folder, {path.parent} is none")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise BadRequest(f"checkpoint {path}: files in {path.parent} can't be written")
    try:
        with path.open("rb") as file:
            first = file.read(2**16)
            lost = path.is_file() and not any(part.strip(b"\0") for part in chain([first], file))
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadRequest(f"checkpoint {path}: {error.strerror}") from error
    if not (lost or _is_checkpoint(first)):
        raise BadRequest(f"checkpoint {path}: expected a checkpoint or no file, got something else")


def save(path: Path, monitor: Monitor, more: Mapping[str, Any]) -> None:
    """Write a checkpoint; the file is replaced when all of it is on the disk.

    more  what else is to be remembered with it, as what JSON knows

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
        "more": more,
    }
    arrays: dict[str, Array] = {"head": _bytes(json.dumps(head).encode()), "counted": snapshot.counted}
    arrays |= {f"detectors.{name}": array for name, array in detectors.items()}
    for index, window in enumerate(snapshot.finished):
        arrays[f"window.{index}"] = _bytes(window_file.encode(WindowFile("", "", fingerprint, window, ())))
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
    """Let a monitor that has observed nothing go on from a checkpoint; what else was remembered with it.

    Raises BadRequest if it is none, or that of another profile; then the monitor is as it was.
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
        monitor.restore(_snapshot_of(head, arrays, str(path)))
        return dict(head["more"])
    except BadRequest:
        raise
    except Exception as error:  # whatever is made of damaged bytes
        raise BadRequest(f"checkpoint {path}: expected a checkpoint, got one that is damaged") from error


def _snapshot_of(head: Mapping[str, Any], arrays: Mapping[str, Array], where: str) -> Snapshot:
    detectors = {
        name.removeprefix("detectors."): one for name, one in arrays.items() if name.startswith("detectors.")
    }
    kept = sum(name.startswith("window.") for name in arrays)
    windows = (arrays[f"window.{index}"].tobytes() for index in range(kept))
    return Snapshot(
        head["rows"],
        head["window_rows"],
        datetime.fromisoformat(head["began"]),
        arrays["counted"],
        {**detectors, "random": head["random"]},
        tuple(Signal.of_dict(one) for one in head["signals"]),
        frozenset((kind, column) for kind, column in head["seen"]),
        tuple(window_file.decode(one, where).window for one in windows),
    )


def _is_checkpoint(content: bytes) -> bool:
    """Whether it was one when it was written, whatever became of it since."""
    name = content[_NAME:]
    return content.startswith(_ZIP) and (not name or name.startswith(_FIRST))


def _bytes(content: bytes) -> Array:
    return np.frombuffer(content, np.uint8)
