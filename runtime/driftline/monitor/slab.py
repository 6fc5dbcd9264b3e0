"""Rows counted in one process for the monitor of another, through memory that both map.

Every worker has a slab of its own, so that it counts without asking anybody. A slab has two buffers: while
the worker counts into one, the monitor takes what is in the other.

    wanted   the buffer that the monitor wants to be counted in; only the monitor writes it
    used     the buffer that is counted in; only the worker writes it, between two blocks of rows

The monitor asks for the other buffer by changing `wanted`; the worker follows when it finds the time. When
`used` is what is wanted, nobody touches the other buffer: the monitor adds it to what it has, begins it anew,
and may ask again. So no row is counted twice or left out, and nobody waits. What a worker that was killed has
counted stays, and its monitor takes it from both buffers.
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
"""Words before the buffers: wanted, used, rows of the first buffer, of the second; up to a cache line."""
_WANTED, _USED, _ROWS = 0, 1, 2


def slab_bytes(words: int) -> int:
    """The size of a slab whose counters have so many words."""
    return 8 * (_HEAD + 2 * words)


class Slab:
    """Shared memory as it is seen from both sides.

    profile  that is counted by
    memory   (n,) int64, 8 n as `slab_bytes` says; of zeros before a monitor takes it
    """

    def __init__(self, profile: Profile, memory: Array) -> None:
        self._head, *buffers = np.split(memory, [_HEAD, (_HEAD + len(memory)) // 2])
        self.counters = [Counter(profile, buffer) for buffer in buffers]

    @property
    def wanted(self) -> int:
        """The buffer that the monitor wants to be counted in."""
        return int(self._head[_WANTED])

    @wanted.setter
    def wanted(self, buffer: int) -> None:
        self._head[_WANTED] = buffer

    @property
    def used(self) -> int:
        """The buffer that is counted in."""
        return int(self._head[_USED])

    @used.setter
    def used(self, buffer: int) -> None:
        self._head[_USED] = buffer

    @property
    def rows(self) -> Array:
        """(2,) int64, a view: how many rows are in each buffer."""
        return self._head[_ROWS : _ROWS + 2]


class Share:
    """What a worker has in place of a monitor: it counts rows into a slab, and that is all; thread safe.

    profile  that is counted by
    memory   of the slab
    """

    def __init__(self, profile: Profile, memory: Array) -> None:
        self.profile = profile
        self._slab = Slab(profile, memory)
        counter = self._slab.counters[0]
        self._reader = Reader(counter.numeric, counter.categorical)
        self._lock = Lock()

    def warm_up(self) -> None:
        """Load all that is compiled, so that no batch waits for it."""
        self._count(*self._reader.nothing())

    def observe(self, columns: object) -> None:
        """Count rows; see Monitor.observe."""
        matrix = self._reader.as_it_is(columns)
        if matrix is not None:
            self._count(matrix, ())
            return
        for block in self._reader.blocks(columns):
            self._count(*block)

    def merge(self, counter: Counter, rows: int) -> None:
        """Add so many rows that another counter has counted by this profile."""
        with self._lock:
            buffer = self._slab.used
            self._slab.counters[buffer].merge(counter)
            self._slab.rows[buffer] += rows

    def due(self, rows: int) -> bool:
        """Never: who follows merges first."""
        return False

    def keep_time(self) -> None:
        """Nothing: the monitor has the clock."""

    def finish(self) -> None:
        """Nothing: the monitor has the last word."""

    def follow(self) -> None:
        """Count in the buffer that the monitor wants from here on; to be called now and then."""
        # The lock also is what makes other cores see the counts before they see the word.
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
    """The monitor's side of a slab: takes what its worker has counted.

    monitor  that gets it
    memory   of the slab, new: it is begun here
    """

    def __init__(self, monitor: Monitor, memory: Array) -> None:
        self._monitor = monitor
        self._slab = Slab(monitor.profile, memory)
        for counter in self._slab.counters:
            counter.reset()

    def collect(self) -> None:
        """Take what is there to be taken."""
        if self._slab.used == self._slab.wanted:
            self._take(1 - self._slab.used)

    def ask(self) -> None:
        """Want what has come since; it can be collected when the worker has followed."""
        if self._slab.used == self._slab.wanted and not self._slab.rows[1 - self._slab.used]:
            self._slab.wanted = 1 - self._slab.used

    @property
    def waits(self) -> bool:
        """Whether rows have come that were not asked for."""
        return bool(self._slab.rows[self._slab.used])

    def take_all(self) -> None:
        """Take everything, since the worker has gone; what it had counted of a last block without its rows
        goes with that. The next worker counts on here."""
        for buffer, counter in enumerate(self._slab.counters):
            self._take(buffer)
            counter.reset()
        self._slab.wanted = self._slab.used

    def _take(self, buffer: int) -> None:
        rows, counter = self._slab.rows, self._slab.counters[buffer]
        if rows[buffer]:
            self._monitor.merge(counter, int(rows[buffer]))
            counter.reset()
            rows[buffer] = 0
