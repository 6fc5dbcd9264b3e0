"""The CPU's memory in the place of a card, with an eye on what is done there."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from driftline.engine.device import Cpu


class Card(Cpu):
    """Counts the batches that cross to it, and the bytes of its memory and of pinned memory that are held."""

    def __init__(self, name: str = "cuda:0") -> None:
        self.name = name
        self.batches = 0
        self.held = 0
        self.held_when_given_back = -1

    def give_back(self) -> None:
        self.held_when_given_back = self.held

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return self._counted(super().empty(shape, dtype))

    def pinned(self, size: int) -> np.ndarray:
        return self._counted(super().pinned(size))

    def copy_out(self, there: np.ndarray, here: np.ndarray) -> None:
        self.batches += 1
        super().copy_out(there, here)

    def _counted(self, array: np.ndarray) -> np.ndarray:
        self.held += array.nbytes
        weakref.finalize(array, self._gone, array.nbytes)
        return array

    def _gone(self, nbytes: int) -> None:
        self.held -= nbytes
