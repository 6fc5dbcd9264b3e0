"""One model on several cards: a batch goes to the one that has the least to do."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from driftline.engine.lane import Behind, Lane
from driftline.tensors import Tensors


class Cards:
    """Runs a model on the lane with the fewest batches under way, in turn if several have; thread safe.

    lanes  one for each card
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes
        self._under_way = [0] * len(lanes)
        self._next = 0
        self._lock = Lock()

    def run(self, inputs: Tensors, outputs: Sequence[str], behind: Behind | None = None) -> Tensors:
        """Compute the named outputs of one batch; see Lane.run."""
        with self._lock:
            least, number = min(self._under_way), len(self._lanes)
            turn = [(self._next + step) % number for step in range(number)]
            card = next(one for one in turn if self._under_way[one] == least)
            self._next = (card + 1) % number
            self._under_way[card] += 1
        try:
            return self._lanes[card].run(inputs, outputs, behind)
        finally:
            with self._lock:
                self._under_way[card] -= 1
