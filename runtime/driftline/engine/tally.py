"""What a monitor counts of batches on a card, counted there: some launches behind each batch's answer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from threading import Lock, RLock
from typing import Any, Self

import numpy as np

from driftline.engine.device import Device
from driftline.engine.lane import Form, Lane
from driftline.monitor.counting import Counter
from driftline.monitor.monitor import Monitor
from driftline.monitor.reading import Plan, Reader
from driftline.tensors import Array
from driftline_kernels import moving, rows

_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, slots=True)
class Way:
    """How the columns of a profile are got from batches of one form.

    matrix  (rows, columns) float32 on the device
    moves   arrays there of which columns are to be moved into it, and which; none if it is one of them
    """

    matrix: Any
    moves: tuple[tuple[Any, Any], ...]


class Tally:
    """Counts rows of numbers where a lane has them, until its monitor takes what was counted.

    device   where; its kernels have a stream, on which this comes in turn
    monitor  that takes it, of numeric columns only: see `of`
    names    of the tensors that have them
    """

    def __init__(self, device: Device, monitor: Monitor, names: Collection[str]) -> None:
        self.rows = 0
        self._device = device
        self._monitor = monitor
        self._names = names
        self._ways: dict[int, Way | None] = {}  # by the id of a form, which lives as long as its lane
        self._stream = Lock()
        self._draining = RLock()
        blank = Counter(monitor.profile).memory
        with device.active():
            self._blank, self._here = (device.pinned(blank.nbytes).view(np.int64) for _ in range(2))
            self._blank[:] = self._here[:] = blank
            self._counter = Counter(monitor.profile, self._here)
            self._reader = Reader(self._counter.numeric, ())
            self._there = self._send(blank)
            state = rows.sent(self._counter.state, self._send)
            counts = state.counts.size
            self._state = state._replace(
                counts=self._there[:counts].reshape(state.counts.shape),
                sums=self._there[counts:].view(np.float64),
            )

    @classmethod
    def of(cls, lane: Lane, monitor: Monitor, names: Collection[str]) -> Self | None:
        """That of a lane, its kernels loaded for all forms so far; None if the monitor's profile has other
        columns than numeric ones, which are counted on the CPU."""
        counter = Counter(monitor.profile)
        if counter.categorical or not counter.numeric:
            return None
        tally = cls(lane.device, monitor, names)
        forms = lane.forms
        with lane.device.active():
            for form in forms:
                tally.count(form, 1)
        tally._restart()
        return tally

    def count(self, form: Form, number: int) -> bool:
        """Count the first rows of a batch that lies there; False if its tensors have not all columns.

        Called while the device is active, before the stream has another batch; see Lane.run.
        """
        key = id(form)
        if key not in self._ways:
            self._ways[key] = self._way(form)
        way = self._ways[key]
        if way is None:
            return False
        with self._stream:
            for source, moves in way.moves:
                moving.move(source, number, moves, way.matrix)
            rows.observe_there(way.matrix, number, self._state)
            self.rows += number
        return True

    @property
    def due(self) -> bool:
        """Whether the monitor has to take what was counted, to look or to end a window."""
        return self._monitor.due(self.rows)

    def drain(self) -> None:
        """Let the monitor take all that was counted."""
        with self._draining:
            number = self._restart()
            if number:
                self._monitor.merge(self._counter, number)

    def _restart(self) -> int:
        """Copy what was counted to here, and begin anew there; how many rows it is of."""
        device = self._device
        with device.active():
            with self._stream:
                device.copy_out(self._there, self._here)
                device.copy_in(self._blank, self._there)
                number, self.rows = self.rows, 0
                mark = device.mark()
            device.wait(mark)
        return number

    def _way(self, form: Form) -> Way | None:
        arrays = {**form.inputs.views(form.came), **form.outputs.views(form.goes)}
        arrays = {name: array for name, array in arrays.items() if name in self._names}
        # Half precision is for the CPU to widen: Numba has little of it.
        if any(array.dtype == np.float16 for array in arrays.values()):
            return None
        plan = self._reader.plan(
            {name: np.empty((0, *one.shape[1:]), one.dtype) for name, one in arrays.items()}
        )
        if plan is None:
            return None
        width = len(self._counter.numeric)
        if as_it_is(plan, width):
            return Way(arrays[plan.parts[0].name], ())
        matrix = self._device.empty((form.rows, width), np.float32)
        moves = tuple(
            (arrays[part.name].reshape(form.rows, -1), self._send(places_of(part.moves)))
            for part in plan.parts
            if part.moves
        )
        return Way(matrix, moves)

    def _send(self, array: Array) -> Any:
        there = self._device.empty(array.shape, array.dtype)
        self._device.copy_in(array, there)
        return there


def as_it_is(plan: Plan, width: int) -> bool:
    """Whether the one array of a plan is the matrix of the profile's columns."""
    part = plan.parts[0]
    whole = slice(0, width)
    return (
        len(plan.parts) == 1
        and part.dtype == _FLOAT32
        and part.shape == (width,)
        and part.moves == [(whole, whole)]
    )


def places_of(moves: list[tuple[slice, slice]]) -> Array:
    """(n, 2) int64: a column, and the column of the matrix that it becomes."""
    pairs = [
        (column, into)
        for columns, target in moves
        for column, into in zip(
            range(columns.start, columns.stop), range(target.start, target.stop), strict=True
        )
    ]
    return np.array(pairs, np.int64)
