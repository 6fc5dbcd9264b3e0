"""NVIDIA GPUs: their memory, a stream, copies; and finding those that can be used.

Arrays on a GPU are Numba's, which kernels take directly; so all of this also runs in Numba's simulator.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime

from driftline.engine.cuda.shared_lock import SharedLock
from driftline.errors import ConfigError
from driftline.tensors import Array
from driftline_kernels import device as kernels

log = logging.getLogger("driftline.device")

PROVIDER = "CUDAExecutionProvider"
INSTALL = "pip install 'driftline[gpu]' instead of 'driftline[cpu]'"

MIN_CUDA_VERSION = 13_000
"""The CUDA version, 13.0, that the driver must support: the packages of `driftline[gpu]` are built for it."""


class Device(Protocol):
    """What a model needs from a GPU. All work is queued on one stream and runs in that order.

    Gpu implements it with Numba; tests implement it on the CPU.

    name    as in settings, 'cuda:0'
    memory  where ONNX Runtime finds its arrays, 'cuda' or 'cpu', and
    index   the number of that device
    stream  the address of the stream, 0 if there is none
    """

    name: str
    memory: str
    index: int
    stream: int

    def active(self) -> AbstractContextManager[Any]:
        """Make it the device of this thread: kernels run there, on its stream."""

    def loading(self) -> AbstractContextManager[Any]:
        """As `active`, for work that may take seconds or minutes."""

    def exclusive(self) -> AbstractContextManager[bool]:
        """Keep all other threads from using any device; the caller must not have one active itself.

        Yields False, and keeps no thread out, if another thread is `loading` for too long.
        """

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an uninitialised array on the device."""

    def pinned(self, size: int) -> Array:
        """Return (size,) uint8 in pinned host memory, which the device reads without the CPU."""

    def copy_in(self, source: Array, target: Any) -> None:
        """Queue a copy; both arrays contiguous and of one size."""

    def copy_out(self, source: Any, target: Array) -> None:
        """Queue a copy; both arrays contiguous and of one size."""

    def mark(self, reused: Any = None) -> Any:
        """Mark the point in the stream after all queued work; `reused` is an earlier mark to reuse."""

    def wait(self, mark: Any) -> None:
        """Wait until a mark is reached."""

    def between(self, first: Any, last: Any) -> int:
        """Return the nanoseconds between two marks that were reached."""

    def address(self, array: Any) -> int:
        """Return the address of an array."""

    def give_back(self) -> None:
        """Free the memory of arrays that are no longer referenced."""

    def failure(self) -> str:
        """Return why this process can no longer use the device; "" if it can. Waits for queued work."""


_LOCK = SharedLock()
"""Held shared by threads that use any GPU of this process, exclusively by one that records a CUDA graph."""

EXCLUSIVE_TIMEOUT_SECONDS = 5.0
"""How long `Gpu.exclusive` waits for a model that is being loaded."""


class Gpu:
    """An NVIDIA GPU; raises ConfigError with what is missing."""

    memory = "cuda"

    def __init__(self, index: int) -> None:
        self.name, self.index = f"cuda:{index}", index
        try:
            self._cuda = kernels.load_cuda()
            with self._cuda.gpus[index]:
                self._stream = self._cuda.stream()
        except Exception as error:  # CUDA raises many kinds
            raise ConfigError(f"device {self.name!r}: {' '.join(str(error).split())}") from error
        self.stream = handle_of(self._stream)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make it the device of this thread: kernels run there, on its stream."""
        with _LOCK.shared(), self._cuda.gpus[self.index], kernels.launching(self._stream):
            yield

    @contextmanager
    def loading(self) -> Iterator[None]:
        """As `active`, for work that may take seconds or minutes."""
        with _LOCK.shared_long(), self.active():
            yield

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        """See Device. CUDA invalidates a recording if, for example, another thread allocates memory."""
        with (
            _LOCK.exclusive(EXCLUSIVE_TIMEOUT_SECONDS) as acquired,
            self._cuda.gpus[self.index],
            self._cuda.defer_cleanup(),
        ):
            yield acquired

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an uninitialised array; CUDA frees it only after the kernels that use it have ended."""
        return self._cuda.device_array(shape, dtype)

    def pinned(self, size: int) -> Array:
        """Return (size,) uint8 in page-locked host memory."""
        pinned: Array = self._cuda.pinned_array(size, np.uint8)
        return pinned

    def copy_in(self, source: Array, target: Any) -> None:
        """Queue a copy; both arrays contiguous and of one size."""
        target.copy_to_device(source, stream=self._stream)

    def copy_out(self, source: Any, target: Array) -> None:
        """Queue a copy; both arrays contiguous and of one size."""
        source.copy_to_host(target, stream=self._stream)

    def mark(self, reused: Any = None) -> Any:
        """Record an event, `reused` or a new one."""
        event = self._cuda.event() if reused is None else reused
        event.record(self._stream)
        return event

    def wait(self, mark: Any) -> None:
        """Wait for an event; other threads keep running."""
        mark.synchronize()

    def between(self, first: Any, last: Any) -> int:
        """Return the nanoseconds between two events, to about half a microsecond."""
        return int(1e6 * first.elapsed_time(last))

    def address(self, array: Any) -> int:
        """Return the address of an array."""
        return int(array.__cuda_array_interface__["data"][0])

    def failure(self) -> str:
        """See Device. Some errors, such as an illegal address, end CUDA's context: each later call of this
        process fails with the same one. A stream can't be waited for while it is recorded."""
        try:
            with self.active():
                self._stream.synchronize()
        except Exception as error:  # CUDA raises many kinds
            return f"device {self.name!r} is lost: {' '.join(str(error).split())}"
        return ""

    def give_back(self) -> None:
        """Make Numba free dropped events and arrays now, instead of together with the next few."""
        with self.active():
            context = self._cuda.current_context()
            for holder in (context, getattr(context, "memory_manager", None)):
                waiting = getattr(holder, "deallocations", None)
                with suppress(IndexError):  # another thread has freed the last one
                    if waiting is not None:
                        waiting.clear()


def handle_of(stream: Any) -> int:
    """Return the address of a Numba stream."""
    handle = getattr(stream, "handle", 0)
    return int(getattr(handle, "value", handle) or 0)


# -- finding GPUs -------------------------------------------------------------------------------------


def find(wanted: str) -> Device | None:
    """Return the GPU that a setting names; None for the CPU.

    wanted  'cpu', 'cuda' (the first GPU), 'cuda:N', or 'auto': the first GPU, else the CPU

    Raises ConfigError, with what is missing, if a named GPU can't be used.
    """
    kind, _, index = resolve(wanted, log.info).partition(":")
    return None if kind == "cpu" else Gpu(int(index or 0))


def names(wanted: str) -> tuple[str, ...]:
    """Return the devices that a setting names, each for `find`: several for 'cuda:0,1' and 'cuda:all'."""
    kind, _, indexes = wanted.partition(":")
    if indexes == "all":
        resolve(wanted, log.info)
        return tuple(f"{kind}:{gpu}" for gpu in range(count()))
    return tuple(f"{kind}:{gpu}" for gpu in indexes.split(",")) if indexes else (wanted,)


def resolve(wanted: str, report: Callable[[str], Any]) -> str:
    """Return a setting with 'auto' resolved and its GPUs checked; `report` gets why 'auto' is the CPU."""
    kind, _, indexes = wanted.partition(":")
    if kind == "cpu":
        return wanted
    gpus = [int(gpu) for gpu in indexes.split(",")] if indexes not in ("", "all") else [0]
    problems = list(dict.fromkeys(problem for gpu in gpus for problem in missing(gpu)))
    if kind == "cuda":
        if problems:
            raise ConfigError(f"device {wanted!r}: {'; '.join(problems)}")
        return wanted
    if problems:
        report(f"device 'auto' is the CPU: {'; '.join(problems)}")
    return "cpu" if problems else "cuda"


def missing(index: int = 0) -> list[str]:
    """Return descriptions of what is missing of driver, GPU, provider and library; empty if nothing is."""
    return [problem for problem in (no_driver(index), no_provider(), no_library()) if problem]


def no_driver(index: int) -> str:
    """Return why there is no such GPU; "" if there is."""
    try:
        version, gpu_count = driver(), count()
    except OSError as error:
        return f"no driver ({error})"
    if version < MIN_CUDA_VERSION:
        needed, supported = _cuda_version(MIN_CUDA_VERSION), _cuda_version(version)
        return f"no driver for CUDA {needed} (there is one for {supported})"
    return "" if index < gpu_count else f"no GPU {index} (there are {gpu_count})"


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def count() -> int:
    """Return how many GPUs the driver has; OSError if it fails."""
    return _query("cuDeviceGetCount")


def driver() -> int:
    """Return the newest CUDA version that the driver supports, 13000 for 13.0; OSError if it fails."""
    return _query("cuDriverGetVersion")


def _query(function: str) -> int:
    """Return a number from a function of the driver."""
    driver, value = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
    for result in (driver.cuInit(0), driver[function](ctypes.byref(value))):
        if result:
            raise OSError(f"libcuda.so.1 returned error {result}")
    return value.value


def no_provider() -> str:
    """Return why ONNX Runtime can't use a GPU; "" if it can."""
    available = onnxruntime.get_available_providers()
    if PROVIDER not in available:
        return f"no provider (onnxruntime has {', '.join(available)}; {INSTALL})"
    with redirect_stdout(io.StringIO()):  # it prints what it does not find
        onnxruntime.preload_dlls()
    shared = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(shared.with_name("libonnxruntime_providers_shared.so")))
        ctypes.CDLL(str(shared))
    except OSError as error:
        # Found, with all its dependencies: ONNX Runtime itself provides this symbol when it loads it.
        return "" if "Provider_GetHost" in str(error) else f"no library for the provider ({error})"
    return ""


_LIBRARIES = {
    "cuda.bindings.nvvm": "version",
    "cuda.bindings.nvrtc": "nvrtcVersion",
    "cuda.bindings.nvjitlink": "version",
}
"""The libraries that Numba compiles with, and the function of each that returns its version."""


def no_library() -> str:
    """Return why kernels can't be compiled for a GPU; "" if they can."""
    if find_spec("numba_cuda") is None:
        return f"no library for kernels (numba-cuda; {INSTALL})"
    for name, question in _LIBRARIES.items():
        try:
            getattr(importlib.import_module(name), question)()  # only this call loads the library itself
        except Exception as error:
            return f"no library for kernels ({' '.join(str(error).split())}; {INSTALL})"
    return ""
