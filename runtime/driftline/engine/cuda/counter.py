"""Count the rows of batches for a monitor, on the device that holds them, after each batch's outputs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Condition, Lock, RLock
from typing import Any, Self

import numpy as np

from driftline.engine.cuda.device import Device
from driftline.engine.cuda.session import DeviceBuffers, DeviceSession
from driftline.engine.cuda.staging import Source
from driftline.monitor.counting import Counter
from driftline.monitor.monitor import Monitor
from driftline.monitor.reading import Reader
from driftline.monitor.reference.profile import Profile
from driftline.monitor.slab import Share
from driftline.tensors import Array, Tensors
from driftline_kernels import moving, rows

log = logging.getLogger("driftline.device")

SETTLE_SECONDS = 10.0
"""How long `CategoryCounts.move` waits for the outputs of batches whose numbers were counted."""


@dataclass(frozen=True, slots=True)
class GatherPlan:
    """How the numeric columns of a profile become one matrix, for batches of one shape.

    matrix  (rows, columns) float32 on the device, which is counted
    blocks  of device memory, from which columns are moved
    moves   (columns, 5) int64, see moving.BLOCK; None if the matrix is the model's input itself
    """

    matrix: Any
    blocks: tuple[Any, Any]
    moves: Any = None


class CategoryCounts:
    """Counts the categories of the batches between two drains; on the CPU, since strings are there."""

    def __init__(self, profile: Profile, reader: Reader) -> None:
        self._counter = Counter(profile)
        self._reader = reader
        self._pending = 0
        self._changed = Condition()

    def open(self) -> Self:
        """Announce a batch whose numbers are counted; `settle` must follow, even if the batch fails."""
        with self._changed:
            self._pending += 1
        return self

    def settle(self, columns: Tensors) -> None:
        """Count the categories of an announced batch; without columns, only end the wait for it.

        Raises BadRequest, and counts nothing of it, if a column can't be read.
        """
        try:
            if columns and self._counter.categorical:
                codes = [codes for _, codes in self._reader.blocks(columns)]
                with self._changed:
                    for block in codes:
                        self._counter.add_codes(block)
        finally:
            with self._changed:
                self._pending -= 1
                self._changed.notify_all()

    def move(self, counter: Counter) -> None:
        """Wait until all announced batches are settled, then move the counts to another counter.

        Batches that are not settled within SETTLE_SECONDS are counted with the next move.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._pending, SETTLE_SECONDS):
                log.warning(
                    "%d batches on a GPU were not computed within %g s: their categories are counted later",
                    self._pending, SETTLE_SECONDS,
                )  # fmt: skip
            counter.merge(self._counter)
            self._counter.reset()


class DeviceCounters:
    """The counters of all devices of a model, for one monitor."""

    def __init__(self, counters: Mapping[Device, DeviceCounter], monitor: Monitor | Share) -> None:
        self._counters = counters
        self._monitor = monitor

    @classmethod
    def of(cls, sessions: Sequence[DeviceSession], monitor: Monitor | Share) -> Self | None:
        """Return a counter for each session, kernels loaded; None for a profile without numeric columns."""
        if not Counter(monitor.profile).numeric:
            return None
        counters = {session.device: DeviceCounter.of(session, monitor) for session in sessions}
        return cls(counters, monitor)

    @property
    def rows(self) -> int:
        """Rows whose numbers were counted since the last drain."""
        return sum(counter.rows for counter in self._counters.values())

    @property
    def due(self) -> bool:
        """Whether the monitor must take the counts, for a look or the end of a window."""
        return self._monitor.due(self.rows)

    def count(self, buffers: DeviceBuffers, rows: int) -> CategoryCounts | None:
        """See DeviceCounter.count."""
        return self._counters[buffers.device].count(buffers, rows)

    def drain(self) -> None:
        """See DeviceCounter.drain."""
        for counter in self._counters.values():
            counter.drain()


class DeviceCounter:
    """Counts rows on one device until its monitor takes the counts.

    device   whose stream the kernels run on
    monitor  that takes the counts, or a worker's share of one
    rows     whose numbers were counted since the last drain
    """

    def __init__(self, device: Device, monitor: Monitor | Share) -> None:
        self.rows = 0
        self._device = device
        self._monitor = monitor
        # By the id of buffers, which live as long as their session.
        self._plans: dict[int, GatherPlan | None] = {}
        self._lock = Lock()
        self._drain_lock = RLock()
        self._mark: Any = None
        initial = Counter(monitor.profile).memory
        with device.active():
            self._initial, self._pinned = (device.pinned(initial.nbytes).view(np.int64) for _ in range(2))
            self._initial[:] = self._pinned[:] = initial
            self._counter = Counter(monitor.profile, self._pinned)
            self._counts = self._send(initial)
            state = rows.to_device(self._counter.state, self._send)
            size = state.counts.size
            device_state = state._replace(
                counts=self._counts[:size].reshape(state.counts.shape),
                sums=self._counts[size : size + state.sums.size].view(np.float64),
            )
            self._parts = rows.Parts.of(device_state)
        reader = Reader((), self._counter.categorical)
        self._categories, self._next_categories = (CategoryCounts(monitor.profile, reader) for _ in range(2))

    @classmethod
    def of(cls, session: DeviceSession, monitor: Monitor | Share) -> Self:
        """Return the counter of a session, with kernels loaded for all shapes that it has so far."""
        allocated = session.buffers
        with session.device.loading():
            counter = cls(session.device, monitor)
            for buffers in allocated:
                counter._count(buffers, 0)  # no rows: the memory holds arbitrary values
            counter._restart()
        session.on_close(counter.close)
        return counter

    def close(self) -> None:
        """Free device memory; called while the device is active."""
        with self._lock:
            self._plans.clear()
            del self._counts, self._parts, self._initial

    def count(self, buffers: DeviceBuffers, row_count: int) -> CategoryCounts | None:
        """Count the numbers of the first `row_count` rows of a batch in device memory.

        The result must be settled with the batch's columns. None, and nothing is counted, if the device does
        not have all columns of the profile. Called as OnComputed.
        """
        with self._lock:
            if not self._count(buffers, row_count):
                return None
            self.rows += row_count
            return self._categories.open()

    def drain(self) -> None:
        """Pass all counts to the monitor; waits for the outputs of batches in flight."""
        with self._drain_lock:
            if not self.rows:
                return
            categories, row_count = self._categories, self._restart()
            if row_count:
                categories.move(self._counter)
                self._monitor.merge(self._counter, row_count)

    def _restart(self) -> int:
        """Copy the counts to pinned memory and zero them on the device; return their number of rows."""
        device = self._device
        with device.active():
            with self._lock:
                rows.settle(self._parts)
                device.copy_out(self._counts, self._pinned)
                device.copy_in(self._initial, self._counts)
                row_count, self.rows = self.rows, 0
                self._categories, self._next_categories = self._next_categories, self._categories
                mark = self._mark = device.mark(self._mark)
            device.wait(mark)
        return row_count

    def _count(self, buffers: DeviceBuffers, row_count: int) -> bool:
        """Queue the kernels that count; return False if columns are not on the device, or memory is short."""
        key = id(buffers)
        if key not in self._plans:
            try:
                self._plans[key] = self._plan(buffers)
            except Exception as error:  # no memory on the device, say
                log.warning("batches of %d rows are counted on the CPU: %s", buffers.rows, error)
                self._plans[key] = None
        plan = self._plans[key]
        if plan is None:
            return False
        if plan.moves is not None:
            moving.move(plan.blocks, row_count, plan.moves, plan.matrix)
        rows.observe_on_device(plan.matrix, row_count, self._parts)
        return True

    def _plan(self, buffers: DeviceBuffers) -> GatherPlan | None:
        """Return the plan for one shape of batches; None if a column of the profile is not on the device."""
        wanted = [reference.source for reference in self._counter.numeric]
        blocks = (buffers.inputs.block, buffers.output_block)
        positions = {
            name: (source, index)
            for source in buffers.sources
            if source.array.dtype in moving.KINDS
            for index, name in enumerate(source.names)
        }
        if not all(name in positions for name in wanted):
            return None
        located = [positions[name] for name in wanted]
        source = located[0][0]
        is_float32 = source.array.dtype == np.float32 and not source.transposed
        if is_float32 and source.array.shape[1] == len(wanted):
            if located == [(source, index) for index in range(len(wanted))]:
                return GatherPlan(source.array, blocks)
        moves = [
            self._move_of(source, index, blocks, target) for target, (source, index) in enumerate(located)
        ]
        matrix = self._device.empty((buffers.rows, len(wanted)), np.float32)
        return GatherPlan(matrix, blocks, self._send(np.array(moves, np.int64)))

    def _move_of(self, source: Source, index: int, blocks: tuple[Any, Any], target: int) -> tuple[int, ...]:
        """Return the move of a column to a column of the matrix; see moving.BLOCK."""
        array = source.array
        starts = [self._device.address(array) - self._device.address(block) for block in blocks]
        (block,) = (number for number, start in enumerate(starts) if 0 <= start < blocks[number].size)
        first, length = starts[block] // array.dtype.itemsize, array.shape[1]
        column, step = (index * length, 1) if source.transposed else (index, length)
        return block, moving.KINDS[array.dtype], first + column, step, target

    def _send(self, array: Array) -> Any:
        """Return a copy of an array on the device."""
        copy = self._device.empty(array.shape, array.dtype)
        self._device.copy_in(array, copy)
        self._device.wait(self._device.mark())  # the caller may free the array next
        return copy
