"""Batches that have been answered and are still to be observed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from driftline.blocks import Blocks, arrays_of, cut, forget, put, room_for
from driftline.tensors import Tensors

log = logging.getLogger("driftline.monitor")

ENOUGH_ROWS = 512
"""Rows that are observed at once, or a few more. The monitor has left the processor's caches between two
times and has to come back, so fewer would cost more each; while more are observed, requests would wait."""

MOST_VALUES = 2**18
"""At most so many values in the rows that are observed at once, about."""

MOST_SECONDS = 0.05
"""Seconds that the first of these rows waits, at most."""

Batch = tuple[Tensors, Tensors]
"""What went in and what came out."""


class Deferred:
    """Lets answers go first: has batches observed in a later turn of the event loop, small ones together.

    observe  takes a batch, or several as one; it may not keep their arrays

    Used on the event loop only.
    """

    def __init__(self, observe: Callable[[Tensors, Tensors], None]) -> None:
        self._observe = observe
        self._fresh: list[Batch] = []
        self._buffer = Buffer({}, {})
        self._next: asyncio.TimerHandle | None = None

    def add(self, inputs: Tensors, outputs: Tensors) -> None:
        """Have a batch observed. Its answer is still to be sent: all else is done behind that."""
        if not self._fresh:
            asyncio.get_running_loop().call_soon(self._take)
        self._fresh.append((inputs, outputs))

    def catch_up(self) -> None:
        """Have all of them observed now."""
        self._gather()
        self._flush()

    def _take(self) -> None:
        """See to what has been answered."""
        self._gather()
        if self._buffer.rows >= self._buffer.enough:
            self._flush()
        elif self._buffer.rows and self._next is None:
            self._next = asyncio.get_running_loop().call_later(MOST_SECONDS, self.catch_up)

    def _gather(self) -> None:
        fresh, self._fresh = self._fresh, []
        for inputs, outputs in fresh:
            try:
                if not (self._buffer.add(inputs, outputs) or self._begin(inputs, outputs)):
                    self._observe(inputs, outputs)
            except Exception:  # the others are observed all the same
                log.exception("rows can't be observed")

    def _begin(self, inputs: Tensors, outputs: Tensors) -> bool:
        """Begin another buffer with a batch; False if it belongs in none."""
        self._flush()
        buffer = Buffer(inputs, outputs)
        if not buffer.add(inputs, outputs):
            return False
        self._buffer = buffer
        return True

    def _flush(self) -> None:
        """Have observed what is in the buffer."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._buffer.rows:
            try:
                self._observe(*self._buffer.batch())
            except Exception:
                log.exception("rows can't be observed")
            finally:
                self._buffer.clear()


class Buffer:
    """Small batches of one form as one, each copied while it is in the processor's caches.

    Later its arrays would have to be fetched again, to be joined and to be let go, which takes longer than
    to observe them.

    inputs, outputs  of a batch of that form
    rows             that are in it
    enough           of them; there is room for twice as many
    """

    def __init__(self, inputs: Tensors, outputs: Tensors) -> None:
        width = sum(array.size for side in (inputs, outputs) for array in arrays_of(side))
        self.rows = 0
        self.enough = max(1, min(ENOUGH_ROWS, MOST_VALUES * length(inputs, outputs) // max(1, width)))
        self._inputs, self._outputs = room_for(inputs, 2 * self.enough), room_for(outputs, 2 * self.enough)

    def add(self, inputs: Tensors, outputs: Tensors) -> bool:
        """Put a batch into it; False if it is large or of another form, or there is no room."""
        rows = length(inputs, outputs)
        start, stop = self.rows, self.rows + rows
        if rows > self.enough or stop > 2 * self.enough:
            return False
        if not (put(inputs, self._inputs, start, stop) and put(outputs, self._outputs, start, stop)):
            return False
        self.rows = stop
        return True

    def batch(self) -> Batch:
        """All that is in it, where it is."""
        return cut(self._inputs, 0, self.rows), cut(self._outputs, 0, self.rows)

    def clear(self) -> None:
        """Take all away."""
        forget(self._inputs, self.rows)
        forget(self._outputs, self.rows)
        self.rows = 0


def length(inputs: Tensors, outputs: Tensors) -> int:
    """The rows of a batch."""
    if type(inputs) is Blocks:
        return inputs.rows
    for array in inputs.values():
        return len(array)
    return len(next(iter(outputs.values()), ()))
