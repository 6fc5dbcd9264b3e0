"""Where a kernel runs: one scalar body, a loop over it on the CPU, a grid of threads on an NVIDIA GPU."""

from __future__ import annotations

import functools
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast, overload

import numpy as np

from driftline_kernels import compiling

Function = TypeVar("Function", bound=Callable[..., Any])

BLOCK = 256
"""Rows that the CPU works on together: few enough to stay in the first-level cache from column to column."""

THREADS = 128
"""Threads of a CUDA block."""

BLOCKS = 1024
"""Blocks of a launch that go through many rows: a few for each processor of a card."""


def body(function: Function) -> Function:
    """A scalar function that drivers of both devices call: inlined on the CPU, compiled anew for a GPU."""
    return cast(Function, compiling.declare(function, compiling.as_body))


def driver(function: Function) -> Function:
    """A loop on one CPU core, without the GIL; compiled at its first call, kept on disk where that can be."""
    return cast(Function, compiling.declare(function, compiling.as_driver, driver=True))


def machine(function: Function) -> Function:
    """What Numba can't compile as it stands here: the same in LLVM's words is in `intrinsics`."""
    return cast(Function, compiling.declare(function, compiling.as_machine))


@overload
def grid(function: Callable[..., None]) -> Any: ...


@overload
def grid(*, shared: int, registers: int = 0) -> Callable[[Callable[..., None]], Any]: ...


def grid(function: Callable[..., None] | None = None, *, shared: int = 0, registers: int = 0) -> Any:
    """A kernel of CUDA threads, called as kernel(blocks, *arguments): blocks of THREADS, one number or two.

    shared     bytes of each block's own, where all its shared arrays of size 0 begin
    registers  that a thread may have at most, if not as many as the compiler likes: with fewer, more blocks
               run at the same time

    It runs on the stream of `launching`; no blocks, no launch. The first launch imports numba.cuda, so that
    whoever has no GPU never waits for it, nor needs it.
    """
    if function is None:
        return functools.partial(grid, shared=shared, registers=registers)
    vars(function).update(shared=shared, registers=registers)  # for whoever compiles it

    @functools.cache
    def compiled() -> Any:
        return compiling.as_grid(kernel_of(function), load_cuda())

    def launch(blocks: int | tuple[int, int], *arguments: Any) -> None:
        if np.prod(blocks):
            compiled()[blocks, THREADS, getattr(_current, "stream", 0), shared](*arguments)

    return functools.update_wrapper(launch, function)


_current = threading.local()


@contextmanager
def launching(stream: Any) -> Iterator[None]:
    """Let kernels of this thread run on a stream, one of Numba's."""
    before = getattr(_current, "stream", 0)
    _current.stream = stream
    try:
        yield
    finally:
        _current.stream = before


def load_cuda() -> Any:
    """numba.cuda, bound to `cuda` of every kernel's module when first asked for."""
    compiling.load()
    found = importlib.import_module("numba.cuda")
    # A batch has few rows: Numba would warn of each number of them. It has read its settings by now.
    warn = int(os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0"))
    importlib.import_module("numba").config.CUDA_LOW_OCCUPANCY_WARNINGS = warn
    for module in compiling.modules():
        if "cuda" in vars(module):
            vars(module)["cuda"] = found
    return found


def kernel_of(launch: Any) -> Any:
    """The function of a grid, or a function itself, among the names that are compiled."""
    return compiling.home(getattr(launch, "__wrapped__", launch))


def blocks_for(threads: int) -> int:
    """How many blocks have so many threads."""
    return -(-threads // THREADS)


def zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of zeros on the GPU."""
    return importlib.import_module("numba.cuda").to_device(np.zeros(shape, dtype))


def on_cpu(array: Any) -> bool:
    """Whether an array lives on the CPU; one of Numba's for a card doesn't."""
    return isinstance(array, np.ndarray)
