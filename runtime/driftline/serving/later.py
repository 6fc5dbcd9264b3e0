"""Batches that have been answered and are still to be observed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from driftline.blocks import Blocks, arrays_of, cut, forget, put, room_for
from driftline.tensors import Tensors

log = logging.getLogger("driftline.monitor")

TOGETHER = 512
"""Rows that are observed at once, or a few more. The monitor has left the processor's caches between two
times and has to come back, so fewer would cost more each; while more are observed, requests would wait."""

MOST_VALUES = 2**18
"""At most so many values in the rows that are observed at once, about."""

LATER_SECONDS = 0.05
"""Seconds that the first of these rows waits, at most."""

Batch = tuple[Tensors, Tensors]
"""What went in and what came out."""


class Later:
    """Lets answers go first: has batches observed in a later turn of the event loop, small ones together.

    observe  takes a batch, or several as one; it may not keep their arrays

    Used on the event loop only.
    """

    def __init__(self, observe: Callable[[Tensors, Tensors], None]) -> None:
        self._observe = observe
        self._fresh: list[Batch] = []
        self._pile = Pile({}, {})
        self._next: asyncio.TimerHandle | None = None

    def add(self, took: Tensors, gave: Tensors) -> None:
        """Have a batch observed. Its answer is still to be sent: all else is done behind that."""
        if not self._fresh:
            asyncio.get_running_loop().call_soon(self._take)
        self._fresh.append((took, gave))

    def catch_up(self) -> None:
        """Have all of them observed now."""
        self._put_together()
        self._empty()

    def _take(self) -> None:
        """See to what has been answered."""
        self._put_together()
        if self._pile.rows >= self._pile.enough:
            self._empty()
        elif self._pile.rows and self._next is None:
            self._next = asyncio.get_running_loop().call_later(LATER_SECONDS, self.catch_up)

    def _put_together(self) -> None:
        fresh, self._fresh = self._fresh, []
        for took, gave in fresh:
            try:
                if not (self._pile.add(took, gave) or self._another(took, gave)):
                    self._observe(took, gave)
            except Exception:  # the others are observed all the same
                log.exception("rows can't be observed")

    def _another(self, took: Tensors, gave: Tensors) -> bool:
        """Begin another pile with a batch; False if it belongs on none."""
        self._empty()
        pile = Pile(took, gave)
        if not pile.add(took, gave):
            return False
        self._pile = pile
        return True

    def _empty(self) -> None:
        """Have observed what is on the pile."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._pile.rows:
            try:
                self._observe(*self._pile.batch())
            except Exception:
                log.exception("rows can't be observed")
            finally:
                self._pile.clear()


class Pile:
    """Small batches of one form as one, each copied while it is in the processor's caches.

    Later its arrays would have to be fetched again, to be joined and to be let go, which takes longer than
    to observe them.

    took, gave  of a batch of that form
    rows        that are on it
    enough      of them; there is room for twice as many
    """

    def __init__(self, took: Tensors, gave: Tensors) -> None:
        width = sum(array.size for side in (took, gave) for array in arrays_of(side))
        self.rows = 0
        self.enough = max(1, min(TOGETHER, MOST_VALUES * length(took, gave) // max(1, width)))
        self._took, self._gave = room_for(took, 2 * self.enough), room_for(gave, 2 * self.enough)

    def add(self, took: Tensors, gave: Tensors) -> bool:
        """Put a batch on it; False if it is large or of another form, or there is no room."""
        rows = length(took, gave)
        start, stop = self.rows, self.rows + rows
        if rows > self.enough or stop > 2 * self.enough:
            return False
        if not (put(took, self._took, start, stop) and put(gave, self._gave, start, stop)):
            return False
        self.rows = stop
        return True

    def batch(self) -> Batch:
        """All that is on it, where it is."""
        return cut(self._took, 0, self.rows), cut(self._gave, 0, self.rows)

    def clear(self) -> None:
        """Take all away."""
        forget(self._took, self.rows)
        forget(self._gave, self.rows)
        self.rows = 0


def length(took: Tensors, gave: Tensors) -> int:
    """The rows of a batch."""
    if type(took) is Blocks:
        return took.rows
    for array in took.values():
        return len(array)
    return len(next(iter(gave.values()), ()))
