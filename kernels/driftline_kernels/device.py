"""Where a kernel runs: one scalar body, a loop over it on the CPU, a grid of threads on an NVIDIA GPU."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from driftline_kernels import compiling

Function = TypeVar("Function", bound=Callable[..., Any])

BLOCK = 256
"""Rows that the CPU works on together: few enough to stay in the first-level cache from column to column."""

THREADS = 128
"""Threads of a CUDA block."""

STRIPE = 1024
"""Rows that one CUDA thread sums, where threads share a sum."""


def body(function: Function) -> Function:
    """A scalar function that drivers of both devices call: inlined on the CPU, compiled anew for a GPU."""
    return cast(Function, compiling.declare(function, compiling.as_body))


def driver(function: Function) -> Function:
    """A loop on one CPU core, without the GIL; compiled at its first call, kept on disk where that can be."""
    return cast(Function, compiling.declare(function, compiling.as_driver, driver=True))


def machine(function: Function) -> Function:
    """What Numba can't compile as it stands here: the same in LLVM's words is in `intrinsics`."""
    return cast(Function, compiling.declare(function, compiling.as_machine))


def grid(function: Callable[..., None]) -> Callable[..., None]:
    """A kernel of CUDA threads, launched by their number and its arguments.

    The first launch imports numba.cuda and binds it to `cuda` of the kernel's module, so that whoever has no
    GPU never waits for it, nor needs it.
    """

    @functools.cache
    def compiled() -> Any:
        compiling.load()
        kernel = compiling.home(function)
        kernel.__globals__["cuda"] = cuda = importlib.import_module("numba.cuda")
        return cuda.jit(kernel)

    def launch(threads: int, *arguments: Any) -> None:
        if threads:
            compiled()[-(-threads // THREADS), THREADS](*arguments)

    return launch


def stripes(rows: int) -> int:
    """How many stripes so many rows are."""
    return -(-rows // STRIPE)


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array on the GPU, not filled."""
    return importlib.import_module("numba.cuda").device_array(shape, dtype)


def on_cpu(array: Any) -> bool:
    """Whether an array lives on the CPU; one of CuPy, Numba or any other CUDA array interface doesn't."""
    return isinstance(array, np.ndarray)
