"""Rows counted in one process for the monitor in another, through memory that both map.

Every worker has its own slab, so that it counts without coordination. A slab has two buffers: while the
worker counts into one, the monitor takes the counts from the other.

    wanted   the buffer that the monitor wants the worker to count into; only the monitor writes it
    used     the buffer that the worker counts into; only the worker writes it, between two blocks of rows

The monitor requests a switch of buffers by changing `wanted`; the worker follows when it can. Once `used`
equals `wanted`, the worker leaves the other buffer alone: the monitor adds its counts to its own, clears it,
and may request the next switch. So no row is counted twice or left out, and neither side waits. The counts of
a worker that was killed stay, and its monitor takes them from both buffers.
"""

from __future__ import annotations

from threading import Lock

import numpy as np

from driftline.monitor.counting import Counter
from driftline.monitor.monitor import Monitor
from driftline.monitor.reading import Codes, Reader
from driftline.monitor.reference.profile import Profile
from driftline.tensors import Array

_HEAD = 8
"""Words before the buffers: `wanted`, `used`, the rows of each buffer; padded to a cache line."""
_WANTED, _USED, _ROWS = 0, 1, 2


def slab_bytes(words: int) -> int:
    """Return the size of a slab whose counters have so many words."""
    return 8 * (_HEAD + 2 * words)


class Slab:
    """The shared memory, as both sides see it.

    profile  whose bins are counted
    memory   (n,) int64, of `slab_bytes` bytes; all zeros before a monitor takes it
    """

    def __init__(self, profile: Profile, memory: Array) -> None:
        self._head, *buffers = np.split(memory, [_HEAD, (_HEAD + len(memory)) // 2])
        self.counters = [Counter(profile, buffer) for buffer in buffers]

    @property
    def wanted(self) -> int:
        """The buffer that the monitor wants the worker to count into."""
        return int(self._head[_WANTED])

    @wanted.setter
    def wanted(self, buffer: int) -> None:
        self._head[_WANTED] = buffer

    @property
    def used(self) -> int:
        """The buffer that the worker counts into."""
        return int(self._head[_USED])

    @used.setter
    def used(self, buffer: int) -> None:
        self._head[_USED] = buffer

    @property
    def rows(self) -> Array:
        """(2,) int64, a view: how many rows are in each buffer."""
        return self._head[_ROWS : _ROWS + 2]


class Share:
    """A worker's substitute for a monitor: it only counts rows into a slab; thread safe.

    profile  whose bins are counted
    memory   of the slab
    """

    def __init__(self, profile: Profile, memory: Array) -> None:
        self.profile = profile
        self._slab = Slab(profile, memory)
        counter = self._slab.counters[0]
        self._reader = Reader(counter.numeric, counter.categorical)
        self._lock = Lock()

    def warm_up(self) -> None:
        """Load all compiled code, so that no batch waits for it."""
        self._count(*self._reader.empty_block())

    def observe(self, columns: object) -> None:
        """Count rows; see Monitor.observe."""
        matrix = self._reader.as_matrix(columns)
        if matrix is not None:
            self._count(matrix, ())
            return
        for block in self._reader.blocks(columns):
            self._count(*block)

    def merge(self, counter: Counter, rows: int) -> None:
        """Add so many rows that another counter of this profile has counted."""
        with self._lock:
            buffer = self._slab.used
            self._slab.counters[buffer].merge(counter)
            self._slab.rows[buffer] += rows

    def due(self, rows: int) -> bool:
        """Return False: counts are merged before `follow` is called."""
        return False

    def keep_time(self) -> None:
        """Do nothing: the monitor keeps the time."""

    def finish(self) -> None:
        """Do nothing: the monitor takes the last look."""

    def follow(self) -> None:
        """Count into the buffer that the monitor wants from now on; call this regularly."""
        # The lock also makes other cores see the counts before they see `used`.
        with self._lock:
            self._slab.used = self._slab.wanted

    def _count(self, matrix: Array, codes: Codes) -> None:
        with self._lock:
            buffer = self._slab.used
            counter = self._slab.counters[buffer]
            counter.add(matrix, codes)
            counter.settle()
            self._slab.rows[buffer] += len(matrix)


class Collector:
    """The monitor's side of a slab: takes the counts of its worker.

    monitor  that gets them
    memory   of the slab, new: it is initialized here
    """

    def __init__(self, monitor: Monitor, memory: Array) -> None:
        self._monitor = monitor
        self._slab = Slab(monitor.profile, memory)
        for counter in self._slab.counters:
            counter.reset()

    def collect(self) -> None:
        """Take the other buffer's counts, if the worker has followed."""
        if self._slab.used == self._slab.wanted:
            self._take(1 - self._slab.used)

    def ask(self) -> None:
        """Request the latest counts; they can be collected once the worker has followed."""
        if self._slab.used == self._slab.wanted and not self._slab.rows[1 - self._slab.used]:
            self._slab.wanted = 1 - self._slab.used

    @property
    def has_unrequested_rows(self) -> bool:
        """Whether there are rows that were not requested."""
        return bool(self._slab.rows[self._slab.used])

    def take_all(self) -> None:
        """Take everything, since the worker is gone, and clear both buffers for the next worker.

        Of a block that the worker had not finished, some counts may be included, but not its rows.
        """
        for buffer, counter in enumerate(self._slab.counters):
            self._take(buffer)
            counter.reset()
        self._slab.wanted = self._slab.used

    def _take(self, buffer: int) -> None:
        rows, counter = self._slab.rows, self._slab.counters[buffer]
        if rows[buffer]:
            try:
                self._monitor.merge(counter, int(rows[buffer]))
            finally:  # once merged, they are not to be merged again, even if a callback raises
                counter.reset()
                rows[buffer] = 0
