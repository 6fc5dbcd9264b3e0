"""Where a kernel runs: one scalar body, a loop over it on the CPU, a grid of threads on an NVIDIA GPU."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])

BLOCK = 256
"""Rows that the CPU works on together: few enough to stay in the first-level cache from column to column."""

THREADS = 128
"""Threads of a CUDA block."""

STRIPE = 1024
"""Rows that one CUDA thread sums, where threads share a sum."""

_SOURCES = hashlib.blake2b(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()


def body(function: Function) -> Function:
    """A scalar function that drivers of both devices call: inlined on the CPU, compiled anew for a GPU."""
    compiled: Any = numba.njit(forceinline=True, error_model="numpy")(function)
    return cast(Function, compiled)


def driver(function: Function) -> Function:
    """A loop on one CPU core, without the GIL; compiled at its first call, kept on disk where that can be."""
    compiled: Any = numba.njit(nogil=True, error_model="numpy")(function)
    if compiled is not function:  # as it is where NUMBA_DISABLE_JIT is set
        with contextlib.suppress(RuntimeError):  # neither the package's folder nor a home can be written
            compiled.enable_caching()
            # Numba keeps code until the driver's own file changes, but bodies of other files are part of it.
            compiled._cache._cache_file._source_stamp = _SOURCES
    return cast(Function, compiled)


def grid(function: Callable[..., None]) -> Callable[..., None]:
    """A kernel of CUDA threads, launched by their number and its arguments.

    The first launch imports numba.cuda and binds it to `cuda` of the kernel's module, so that whoever has no
    GPU never waits for it, nor needs it.
    """

    @functools.cache
    def compiled() -> Any:
        cuda = importlib.import_module("numba.cuda")
        function.__globals__["cuda"] = cuda
        return cuda.jit(function)

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
