"""What a monitor knows at one moment, for another to go on from after a restart."""

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
    """What a monitor knows, right after a look.

    rows         that it has observed
    window_rows  of them, in the current window, which began at `began`
    counted      (words,) int64; see Counter.memory
    detectors    see Detectors.snapshot; empty if there are none
    signals      that are held, and which of their keys were seen in this window
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
    """A monitor of a profile that goes on from a snapshot: what becomes of one that was pickled."""
    monitor = kind(profile, **settings)
    monitor.restore(snapshot)
    return monitor
