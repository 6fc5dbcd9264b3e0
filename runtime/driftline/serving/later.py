"""Batches that have been answered and are still to be observed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from driftline.blocks import Blocks, join
from driftline.tensors import Tensors

TOGETHER = 128
"""Rows that are observed at once. What is kept of them has left the processor's caches between two times, and
has to come back, so fewer would cost more each; while more are observed, requests would wait."""

MOST_BATCHES = 64
"""At once: to join one more takes as long as a row or two."""

LATER_SECONDS = 0.05
"""How long the first of them waits at most."""

Batch = tuple[Tensors, Tensors]
"""What went in and what came out."""


class Later:
    """Lets answers go first: has their batches observed in a later turn of the event loop, several together.

    observe   takes several batches as one, or one
    together  so many rows are observed in the loop's next turn

    Used on the event loop only.
    """

    def __init__(self, observe: Callable[[Tensors, Tensors], None]) -> None:
        self._observe = observe
        self.together = TOGETHER
        self._waiting: list[Batch] = []
        self._rows = 0
        self._next: asyncio.Handle | None = None
        self._soon = False

    def add(self, took: Tensors, gave: Tensors) -> None:
        """Have a batch observed."""
        self._waiting.append((took, gave))
        self._rows += length(took, gave)
        if self._next is None:
            self._next = asyncio.get_running_loop().call_later(LATER_SECONDS, self.catch_up)
        if not self._soon and (self._rows >= self.together or len(self._waiting) >= MOST_BATCHES):
            self._soon = True
            self._next.cancel()
            self._next = asyncio.get_running_loop().call_soon(self.catch_up)

    def catch_up(self) -> None:
        """Have all of them observed now."""
        if self._next is None:
            return
        self._next.cancel()
        self._next, self._soon = None, False
        waiting, self._waiting, self._rows = self._waiting, [], 0
        for took, gave in together(waiting):
            self._observe(took, gave)


def length(took: Tensors, gave: Tensors) -> int:
    """The rows of a batch."""
    if type(took) is Blocks:
        return took.rows
    for array in took.values():
        return len(array)
    return len(next(iter(gave.values()), ()))


def together(batches: Sequence[Batch]) -> Sequence[Batch]:
    """Batches of the same columns as one; as they are if they can't be."""
    took, gave = ([batch[side] for batch in batches] for side in (0, 1))
    if len(batches) > 1 and all(part.keys() == side[0].keys() for side in (took, gave) for part in side):
        with suppress(ValueError):  # dimensions that may vary do
            return [(join(took), join(gave))]
    return batches
