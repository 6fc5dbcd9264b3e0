"""The CPU in place of a GPU."""

from __future__ import annotations

import weakref
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter_ns
from typing import Any

import numpy as np

from driftline.tensors import Array


class Cpu:
    """The CPU as a device: everything is done at once."""

    name, memory, index, stream = "cpu", "cpu", 0, 0

    def active(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def loading(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def exclusive(self) -> AbstractContextManager[bool]:
        return nullcontext(True)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return np.empty(shape, dtype)

    def pinned(self, size: int) -> Array:
        return np.empty(size, np.uint8)

    def copy_in(self, source: Array, target: Any) -> None:
        np.copyto(target, source)

    def copy_out(self, source: Any, target: Array) -> None:
        np.copyto(target, source)

    def mark(self, reused: Any = None) -> int:
        return perf_counter_ns()

    def wait(self, mark: Any) -> None:
        """Nothing to wait for."""

    def between(self, first: int, last: int) -> int:
        return last - first

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def give_back(self) -> None:
        """Nothing to do."""

    def failure(self) -> str:
        return ""


class FakeGpu(Cpu):
    """A pretended GPU that counts its batches, and the bytes of device memory and pinned memory in use."""

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
