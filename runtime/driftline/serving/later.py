"""Batches that have been answered and are still to be observed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from driftline.blocks import Blocks, cut, put, room_for
from driftline.tensors import Tensors

TOGETHER = 512
"""Rows that are observed at once. The monitor has left the processor's caches between two times and has to
come back, so fewer would cost more each; while more are observed, requests would wait."""

LATER_SECONDS = 0.05
"""How long the first of them waits at most."""

Batch = tuple[Tensors, Tensors]
"""What went in and what came out."""


class Later:
    """Lets answers go first: has their batches observed in a later turn of the event loop, several together.

    observe   takes several batches as one, or one, not always in the order in which they came; it may not
              keep their arrays
    together  so many rows are observed once they are there

    Used on the event loop only.
    """

    def __init__(self, observe: Callable[[Tensors, Tensors], None]) -> None:
        self._observe = observe
        self.together = TOGETHER
        self._fresh: list[Batch] = []
        self._pile = Pile({}, {}, 0)
        self._apart: list[Batch] = []
        self._rows = 0
        self._next: asyncio.Handle | None = None

    def add(self, took: Tensors, gave: Tensors) -> None:
        """Have a batch observed. Its answer is still to be sent: all else is done behind that."""
        if not self._fresh:
            asyncio.get_running_loop().call_soon(self._take)
        self._fresh.append((took, gave))

    def _take(self) -> None:
        """See to what has been answered."""
        self._put_together()
        if self._rows >= self.together:
            self.catch_up()
        elif self._rows and self._next is None:
            self._next = asyncio.get_running_loop().call_later(LATER_SECONDS, self.catch_up)

    def _put_together(self) -> None:
        fresh, self._fresh = self._fresh, []
        for took, gave in fresh:
            rows = length(took, gave)
            self._rows += rows
            if self._pile.add(took, gave, rows):
                continue
            if self._pile.rows or rows >= self.together:
                self._apart.append((took, gave))
            else:
                self._pile = Pile(took, gave, 2 * self.together)
                self._pile.add(took, gave, rows)

    def catch_up(self) -> None:
        """Have all of them observed now."""
        self._put_together()
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._rows = 0
        if self._pile.rows:
            self._observe(*self._pile.empty())
        apart, self._apart = self._apart, []
        for took, gave in apart:
            self._observe(took, gave)


class Pile:
    """Small batches of one form as one, each copied while it is in the processor's caches.

    Later its arrays would have to be fetched again, to be joined and to be let go, which takes longer than
    to observe them.

    took, gave  of a batch of that form
    room        for so many rows
    """

    def __init__(self, took: Tensors, gave: Tensors, room: int) -> None:
        self.rows = 0
        self._took, self._gave = room_for(took, room), room_for(gave, room)
        self._room = room

    def add(self, took: Tensors, gave: Tensors, rows: int) -> bool:
        """Put a batch on it; False if it is of another form, or there is no room."""
        start, stop = self.rows, self.rows + rows
        fits = (
            stop <= self._room and put(took, self._took, start, stop) and put(gave, self._gave, start, stop)
        )
        if fits:
            self.rows = stop
        return fits

    def empty(self) -> Batch:
        """All of them, in arrays that are there until another is put."""
        rows, self.rows = self.rows, 0
        return cut(self._took, 0, rows), cut(self._gave, 0, rows)


def length(took: Tensors, gave: Tensors) -> int:
    """The rows of a batch."""
    if type(took) is Blocks:
        return took.rows
    for array in took.values():
        return len(array)
    return len(next(iter(gave.values()), ()))
