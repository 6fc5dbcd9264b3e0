"""One model on several cards: a batch goes to the one that has the least to do."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from driftline.engine.lane import Behind, Lane
from driftline.tensors import Tensors


class Cards:
    """Runs a model on that of its lanes with the fewest batches under way, the first of them; thread safe.

    lanes  one for each card
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes
        self._under_way = [0] * len(lanes)
        self._lock = Lock()

    def run(self, inputs: Tensors, outputs: Sequence[str], behind: Behind | None = None) -> Tensors:
        """Compute the named outputs of one batch; see Lane.run."""
        with self._lock:
            card = self._under_way.index(min(self._under_way))
            self._under_way[card] += 1
        try:
            return self._lanes[card].run(inputs, outputs, behind)
        finally:
            with self._lock:
                self._under_way[card] -= 1
