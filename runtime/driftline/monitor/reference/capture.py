"""Rows of live traffic, kept to fit a profile to them."""

from __future__ import annotations

import warnings
from threading import Lock
from typing import TYPE_CHECKING

from driftline.blocks import copy, size_in_bytes
from driftline.tensors import Tensors

if TYPE_CHECKING:
    from driftline.monitor.reference.profile import Profile

MAX_BYTES = 256 * 2**20
"""Maximum bytes kept, however many rows they are."""


class Capture:
    """Keeps the next batches that are observed, up to a number of rows."""

    def __init__(self, rows: int) -> None:
        self.rows = 0
        self.full = False
        self._max_rows = rows
        self._bytes = 0
        self._batches: list[tuple[Tensors, int]] = []
        self._lock = Lock()

    def add(self, columns: Tensors, rows: int) -> None:
        """Keep a batch of `rows` rows, inputs and outputs by name; ignore it if there are enough."""
        with self._lock:
            if self.full or not rows:
                return
            kept = min(rows, self._max_rows - self.rows)
            batch = copy({name: array[:kept] for name, array in columns.items()})
            self._bytes += size_in_bytes(batch)
            self._batches.append((batch, kept))
            self.rows += kept
            self.full = self.rows >= self._max_rows or self._bytes >= MAX_BYTES

    def take(self) -> list[tuple[Tensors, int]]:
        """Return the batches kept since the last call, and the rows of each."""
        with self._lock:
            batches, self._batches = self._batches, []
            return batches

    def profile(self) -> Profile:
        """Return a profile of the rows kept; BadRequest if there are none."""
        from driftline.monitor.reference.profile import Profile

        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about few rows: the caller learns how many there are
            return Profile.fit_batches([batch for batch, _ in self._batches])
