"""Observes batches after their responses are sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from driftline.blocks import Blocks, allocate, arrays_of, forget, put, slice_rows
from driftline.tensors import Tensors

log = logging.getLogger("driftline.monitor")

TARGET_ROWS = 512
"""Rows to observe at once, or a few more. Between two observations the monitor drops out of the processor's
caches, so fewer rows would cost more each; more rows would make requests wait."""

MAX_VALUES = 2**18
"""Approximate limit of the values in the rows that are observed at once."""

MAX_WAIT_SECONDS = 0.05
"""Most seconds that the first of these rows waits."""

Batch = tuple[Tensors, Tensors]
"""Inputs and outputs."""


class Deferred:
    """Lets responses go first: observes batches in a later turn of the event loop, small ones together.

    observe  called with a batch, or several as one; it must not keep their arrays

    Used on the event loop only.
    """

    def __init__(self, observe: Callable[[Tensors, Tensors], None]) -> None:
        self._observe = observe
        self._new_batches: list[Batch] = []
        self._buffer = Buffer({}, {})
        self._timer: asyncio.TimerHandle | None = None

    def add(self, inputs: Tensors, outputs: Tensors) -> None:
        """Put a batch in line to be observed once its response is sent."""
        if not self._new_batches:
            asyncio.get_running_loop().call_soon(self._process_new)
        self._new_batches.append((inputs, outputs))

    def catch_up(self) -> None:
        """Observe all waiting batches now."""
        self._gather()
        self._flush()

    def _process_new(self) -> None:
        """Gather the new batches; observe them if there are enough, else later."""
        self._gather()
        if self._buffer.rows >= self._buffer.target_rows:
            self._flush()
        elif self._buffer.rows and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MAX_WAIT_SECONDS, self.catch_up)

    def _gather(self) -> None:
        batches, self._new_batches = self._new_batches, []
        for inputs, outputs in batches:
            try:
                if not (self._buffer.add(inputs, outputs) or self._start_buffer(inputs, outputs)):
                    self._observe(inputs, outputs)
            except Exception:  # the others are still observed
                log.exception("rows can't be observed")

    def _start_buffer(self, inputs: Tensors, outputs: Tensors) -> bool:
        """Start a new buffer with a batch; return False if the batch is too large for one."""
        self._flush()
        buffer = Buffer(inputs, outputs)
        if not buffer.add(inputs, outputs):
            return False
        self._buffer = buffer
        return True

    def _flush(self) -> None:
        """Observe the rows in the buffer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._buffer.rows:
            try:
                self._observe(*self._buffer.batch())
            except Exception:
                log.exception("rows can't be observed")
            finally:
                self._buffer.clear()


class Buffer:
    """Small batches of one form as one, each copied while it is in the processor's caches.

    Fetching their arrays again later, to join and to release them, would take longer than observing them.

    inputs, outputs  a batch of that form
    rows             rows in the buffer
    target_rows      rows to observe at once; there is room for twice as many
    """

    def __init__(self, inputs: Tensors, outputs: Tensors) -> None:
        values = sum(array.size for side in (inputs, outputs) for array in arrays_of(side))
        self.rows = 0
        self.target_rows = max(1, min(TARGET_ROWS, MAX_VALUES * row_count(inputs, outputs) // max(1, values)))
        self._inputs = allocate(inputs, 2 * self.target_rows)
        self._outputs = allocate(outputs, 2 * self.target_rows)

    def add(self, inputs: Tensors, outputs: Tensors) -> bool:
        """Copy a batch into it; return False if it is too large, of another form, or there is no room."""
        rows = row_count(inputs, outputs)
        start, stop = self.rows, self.rows + rows
        if rows > self.target_rows or stop > 2 * self.target_rows:
            return False
        if not (put(inputs, self._inputs, start, stop) and put(outputs, self._outputs, start, stop)):
            return False
        self.rows = stop
        return True

    def batch(self) -> Batch:
        """Return its rows, without a copy."""
        return slice_rows(self._inputs, 0, self.rows), slice_rows(self._outputs, 0, self.rows)

    def clear(self) -> None:
        """Remove all rows."""
        forget(self._inputs, self.rows)
        forget(self._outputs, self.rows)
        self.rows = 0


def row_count(inputs: Tensors, outputs: Tensors) -> int:
    """Return the number of rows in a batch."""
    if type(inputs) is Blocks:
        return inputs.rows
    for array in inputs.values():
        return len(array)
    return len(next(iter(outputs.values()), ()))
