"""Rows of live traffic, kept to make a profile of them."""

from __future__ import annotations

import warnings
from threading import Lock
from typing import TYPE_CHECKING

from driftline.blocks import copy, size_in_bytes
from driftline.tensors import Tensors

if TYPE_CHECKING:
    from driftline.monitor.reference.profile import Profile

MAX_BYTES = 256 * 2**20
"""Bytes that are kept at most, whatever the rows."""


class Capture:
    """Keeps the next batches that are observed, up to a number of rows."""

    def __init__(self, rows: int) -> None:
        self.rows = 0
        self.full = False
        self._most = rows
        self._bytes = 0
        self._batches: list[tuple[Tensors, int]] = []
        self._lock = Lock()

    def add(self, columns: Tensors, rows: int) -> None:
        """Keep a batch of so many rows: inputs and outputs by name; nothing if there are enough."""
        with self._lock:
            if self.full or not rows:
                return
            kept = min(rows, self._most - self.rows)
            batch = copy({name: array[:kept] for name, array in columns.items()})
            self._bytes += size_in_bytes(batch)
            self._batches.append((batch, kept))
            self.rows += kept
            self.full = self.rows >= self._most or self._bytes >= MAX_BYTES

    def take(self) -> list[tuple[Tensors, int]]:
        """The batches that were kept since the last time, and the rows of each."""
        with self._lock:
            batches, self._batches = self._batches, []
            return batches

    def profile(self) -> Profile:
        """The profile of what was kept; BadRequest if that is nothing."""
        from driftline.monitor.reference.profile import Profile

        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few rows: whoever asked is told how many there are
            return Profile.fit_batches([batch for batch, _ in self._batches])
