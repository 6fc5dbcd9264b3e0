"""What a monitor counts of batches on a card, counted there: some launches behind each batch's answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Condition, Lock, RLock
from typing import Any, Self

import numpy as np

from driftline.engine.device import Device
from driftline.engine.lane import Form, Lane
from driftline.engine.stage import Source
from driftline.monitor.counting import Counter
from driftline.monitor.monitor import Monitor
from driftline.monitor.profile import Profile
from driftline.monitor.reading import Reader
from driftline.monitor.slab import Share
from driftline.tensors import Array, Tensors
from driftline_kernels import moving, rows

log = logging.getLogger("driftline.device")

SETTLE_SECONDS = 10.0
"""So long may the answer of a batch take whose numbers were counted."""


@dataclass(frozen=True, slots=True)
class Way:
    """How the columns of a profile are got from batches of one form.

    matrix  (rows, columns) float32 on the device
    blocks  from which columns are moved into it, and
    moves   which; None if it is the model's input as it came
    """

    matrix: Any
    blocks: tuple[Any, Any]
    moves: Any = None


class Page:
    """What is counted here, of the batches between two drains: their categories, which are looked up where
    strings are.
    """

    def __init__(self, profile: Profile, reader: Reader) -> None:
        self._counter = Counter(profile)
        self._reader = reader
        self._open = 0
        self._changed = Condition()

    def open(self) -> Self:
        """For a batch whose numbers are counted; it is to be settled, whatever becomes of the batch."""
        with self._changed:
            self._open += 1
        return self

    def settle(self, columns: Tensors) -> None:
        """Count a batch's categories, if there are columns; BadRequest, and none is, if one can't be read."""
        try:
            if columns and self._counter.categorical:
                codes = [codes for _, codes in self._reader.blocks(columns)]
                with self._changed:
                    for some in codes:
                        self._counter.add_codes(some)
        finally:
            with self._changed:
                self._open -= 1
                self._changed.notify_all()

    def move(self, counter: Counter) -> None:
        """Move to a counter of numbers what was counted here, when all batches are settled.

        What of them is not within SETTLE_SECONDS stays, for the next time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._open, SETTLE_SECONDS):
                log.warning(
                    "%d batches on a card were not answered in %g s: their categories are counted later",
                    self._open, SETTLE_SECONDS,
                )  # fmt: skip
            counter.merge(self._counter)
            self._counter.reset()


class Tallies:
    """Those of all lanes of a model, for one monitor.

    tallies  by device
    """

    def __init__(self, tallies: Mapping[Device, Tally], monitor: Monitor | Share) -> None:
        self._tallies = tallies
        self._monitor = monitor

    @classmethod
    def of(cls, lanes: Sequence[Lane], monitor: Monitor | Share) -> Self | None:
        """Their kernels loaded for all forms so far; None for a profile that has no numbers."""
        if not Counter(monitor.profile).numeric:
            return None
        return cls({lane.device: Tally.of(lane, monitor) for lane in lanes}, monitor)

    @property
    def rows(self) -> int:
        """Whose numbers were counted since the last drain."""
        return sum(tally.rows for tally in self._tallies.values())

    @property
    def due(self) -> bool:
        """Whether the monitor has to take what was counted, to look or to end a window."""
        return self._monitor.due(self.rows)

    def count(self, form: Form, number: int) -> Page | None:
        """See Tally.count."""
        return self._tallies[form.device].count(form, number)

    def drain(self) -> None:
        """Let the monitor take all that was counted; of batches under way, when they are answered."""
        for tally in self._tallies.values():
            tally.drain()


class Tally:
    """Counts rows where a lane has them, until its monitor takes what was counted.

    device   where; its kernels have a stream, on which this comes in turn
    monitor  that takes it, or a worker's share of one
    rows     whose numbers were counted since the last drain
    """

    def __init__(self, device: Device, monitor: Monitor | Share) -> None:
        self.rows = 0
        self._device = device
        self._monitor = monitor
        self._ways: dict[int, Way | None] = {}  # by the id of a form, which lives as long as its lane
        self._stream = Lock()
        self._draining = RLock()
        self._mark: Any = None
        blank = Counter(monitor.profile).memory
        with device.active():
            self._blank, self._here = (device.pinned(blank.nbytes).view(np.int64) for _ in range(2))
            self._blank[:] = self._here[:] = blank
            self._counter = Counter(monitor.profile, self._here)
            self._there = self._send(blank)
            state = rows.sent(self._counter.state, self._send)
            counts = state.counts.size
            own = state._replace(
                counts=self._there[:counts].reshape(state.counts.shape),
                sums=self._there[counts : counts + state.sums.size].view(np.float64),
            )
            self._parts = rows.Parts.of(own)
        reader = Reader((), self._counter.categorical)
        self._page, self._next = (Page(monitor.profile, reader) for _ in range(2))

    @classmethod
    def of(cls, lane: Lane, monitor: Monitor | Share) -> Self:
        """That of a lane, its kernels loaded for all forms so far."""
        forms = lane.forms
        with lane.device.loading():
            tally = cls(lane.device, monitor)
            for form in forms:
                tally._count(form, 1)
            tally._restart()
        lane.keep(tally.close)
        return tally

    def close(self) -> None:
        """Let go of what lies on the device; called while it is active."""
        with self._stream:
            self._ways.clear()
            del self._there, self._parts, self._blank

    def count(self, form: Form, number: int) -> Page | None:
        """Count the numbers of the first rows of a batch that lies there; None if it has not all columns.

        Called while the device is active, before the stream has another batch; see lane.Behind.
        """
        with self._stream:
            if not self._count(form, number):
                return None
            self.rows += number
            return self._page.open()

    def drain(self) -> None:
        """Let the monitor take all that was counted; of batches under way, when they are answered."""
        with self._draining:
            if not self.rows:
                return
            page, number = self._page, self._restart()
            if number:
                page.move(self._counter)
                self._monitor.merge(self._counter, number)

    def _restart(self) -> int:
        """Copy what was counted to here, and begin anew there, on another page; how many rows it is of."""
        device = self._device
        with device.active():
            with self._stream:
                rows.settle(self._parts)
                device.copy_out(self._there, self._here)
                device.copy_in(self._blank, self._there)
                number, self.rows = self.rows, 0
                self._page, self._next = self._next, self._page
                mark = self._mark = device.mark(self._mark)
            device.wait(mark)
        return number

    def _count(self, form: Form, number: int) -> bool:
        key = id(form)
        if key not in self._ways:
            try:
                self._ways[key] = self._way(form)
            except Exception as error:  # no room there, say
                log.warning("batches of %d rows are counted on the CPU: %s", form.rows, error)
                self._ways[key] = None
        way = self._ways[key]
        if way is None:
            return False
        if way.moves is not None:
            moving.move(way.blocks, number, way.moves, way.matrix)
        rows.observe_there(way.matrix, number, self._parts)
        return True

    def _way(self, form: Form) -> Way | None:
        wanted = [reference.source for reference in self._counter.numeric]
        blocks = (form.staged.came, form.goes)
        where = {
            name: (source, place)
            for source in form.sources
            if source.array.dtype in moving.KINDS
            for place, name in enumerate(source.names)
        }
        if not all(name in where for name in wanted):
            return None
        found = [where[name] for name in wanted]
        source = found[0][0]
        if source.array.dtype == np.float32 and not source.across and source.array.shape[1] == len(wanted):
            if found == [(source, place) for place in range(len(wanted))]:
                return Way(source.array, blocks)
        moves = [self._move(source, place, blocks, into) for into, (source, place) in enumerate(found)]
        matrix = self._device.empty((form.rows, len(wanted)), np.float32)
        return Way(matrix, blocks, self._send(np.array(moves, np.int64)))

    def _move(self, source: Source, place: int, blocks: tuple[Any, Any], into: int) -> tuple[int, ...]:
        """Where a column lies, and where it goes; see moving.BLOCK."""
        array = source.array
        starts = [self._device.address(array) - self._device.address(block) for block in blocks]
        (block,) = (which for which, start in enumerate(starts) if 0 <= start < blocks[which].size)
        first, length = starts[block] // array.dtype.itemsize, array.shape[1]
        column, step = (place * length, 1) if source.across else (place, length)
        return block, moving.KINDS[array.dtype], first + column, step, into

    def _send(self, array: Array) -> Any:
        there = self._device.empty(array.shape, array.dtype)
        self._device.copy_in(array, there)
        return there
