"""A monitor's state at one moment, from which another continues after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from driftline.monitor.detection.signals import Signal
from driftline.monitor.window import Window
from driftline.tensors import Array


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A monitor's state right after a look.

    rows         observed so far
    window_rows  of these, in the current window, which began at `began`
    counted      (words,) int64; see Counter.memory
    detectors    see Detectors.snapshot; empty if there are none
    signals      that are held
    seen         kinds and columns of findings in the current window
    finished     windows that are kept
    """

    rows: int
    window_rows: int
    began: datetime
    counted: Array
    detectors: Mapping[str, Any]
    signals: tuple[Signal, ...]
    seen: frozenset[tuple[str, str]]
    finished: tuple[Window, ...]


def restored(kind: Any, profile: Any, settings: Mapping[str, Any], snapshot: Snapshot) -> Any:
    """Return a monitor of a profile that continues from a snapshot; pickled monitors are loaded by this."""
    monitor = kind(profile, **settings)
    monitor.restore(snapshot)
    return monitor
