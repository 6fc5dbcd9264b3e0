"""Where kernels run: one scalar body, in a loop on the CPU or in a grid of threads on an NVIDIA GPU."""

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
"""Rows that the CPU processes together: few enough to stay in the L1 cache from column to column."""

THREADS = 128
"""Threads of a CUDA block."""

BLOCKS = 1024
"""Blocks of a launch over many rows: a few for each multiprocessor of a GPU."""


def body(function: Function) -> Function:
    """Declare a scalar function that both devices call: inlined on the CPU, compiled again for a GPU."""
    return cast(Function, compiling.declare(function, compiling.as_body))


def driver(function: Function) -> Function:
    """Declare a loop on one CPU core, without the GIL; compiled at its first call, cached if possible."""
    return cast(Function, compiling.declare(function, compiling.as_driver, driver=True))


def machine(function: Function) -> Function:
    """Declare a function that Numba can't compile; `intrinsics` has the same in LLVM IR."""
    return cast(Function, compiling.declare(function, compiling.as_machine))


@overload
def grid(function: Callable[..., None]) -> Any: ...


@overload
def grid(*, shared: int, registers: int = 0) -> Callable[[Callable[..., None]], Any]: ...


def grid(function: Callable[..., None] | None = None, *, shared: int = 0, registers: int = 0) -> Any:
    """Declare a CUDA kernel, called as kernel(blocks, *arguments): blocks of THREADS, one number or two.

    shared     bytes of shared memory of a block, where all its shared arrays of size 0 begin
    registers  the most that a thread may have; 0: the compiler decides. With fewer, more blocks run at the
               same time

    It runs on the stream of `launching`; without blocks, nothing is launched. The first launch imports
    numba.cuda, so machines without a GPU neither wait for it nor need it.
    """
    if function is None:
        return functools.partial(grid, shared=shared, registers=registers)
    vars(function).update(shared=shared, registers=registers)  # for compiling.as_grid

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
    """Let kernels of this thread run on a Numba stream."""
    previous = getattr(_current, "stream", 0)
    _current.stream = stream
    try:
        yield
    finally:
        _current.stream = previous


def load_cuda() -> Any:
    """Return numba.cuda, and bind it to `cuda` in every kernel's module."""
    compiling.load()
    numba_cuda = importlib.import_module("numba.cuda")
    # Batches have few rows: Numba would warn for each number of rows. It has read its settings by now.
    warn = int(os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0"))
    importlib.import_module("numba").config.CUDA_LOW_OCCUPANCY_WARNINGS = warn
    for module in compiling.modules():
        if "cuda" in vars(module):
            vars(module)["cuda"] = numba_cuda
    return numba_cuda


def kernel_of(launch: Any) -> Any:
    """Return a grid's function, or a function itself, with the namespace of the compiled functions."""
    return compiling.rebound(getattr(launch, "__wrapped__", launch))


def blocks_for(threads: int) -> int:
    """Return how many blocks are needed for so many threads."""
    return -(-threads // THREADS)


def zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    """Return an array of zeros on the GPU."""
    return importlib.import_module("numba.cuda").to_device(np.zeros(shape, dtype))


def on_cpu(array: Any) -> bool:
    """Return whether an array is on the CPU, not one of Numba's on a GPU."""
    return isinstance(array, np.ndarray)
