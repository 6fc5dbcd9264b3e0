"""NVIDIA cards, where models run: their memory, a stream, copies; and which of them are there.

The arrays of a card are Numba's, which kernels take as they are; so Numba's simulator runs all of this, too.
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

DRIVER = 13_000
"""The CUDA, 13.0, that a driver has to know: what the packages of `driftline[gpu]` are made for."""


class Device(Protocol):
    """What a model needs of a card. All work is queued on one stream and done in that order.

    Card has it of Numba; tests have it of the CPU.

    name    as settings have it, 'cuda:0'
    memory  where ONNX Runtime finds its arrays, 'cuda' or 'cpu', and
    index   on which of them
    stream  the address of the stream, 0 if there is none
    """

    name: str
    memory: str
    index: int
    stream: int

    def active(self) -> AbstractContextManager[Any]:
        """Make it the device of this thread: kernels run there, on its stream."""

    def loading(self) -> AbstractContextManager[Any]:
        """As `active`, for what may take seconds or minutes."""

    def exclusive(self) -> AbstractContextManager[bool]:
        """Keep all other threads from using any device; the caller must not have one active itself.

        Yields False, and keeps nobody out, if another thread is `loading` for too long.
        """

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An uninitialised array on the device."""

    def pinned(self, size: int) -> Array:
        """(size,) uint8 in pinned memory of this machine, which the device reads without the CPU."""

    def copy_in(self, source: Array, target: Any) -> None:
        """Queue a copy; both arrays contiguous and of one size."""

    def copy_out(self, source: Any, target: Array) -> None:
        """Queue a copy; both arrays contiguous and of one size."""

    def mark(self, again: Any = None) -> Any:
        """Mark the point in the stream behind all that is queued; `again` is an earlier mark to use again."""

    def wait(self, mark: Any) -> None:
        """Wait until a mark is reached."""

    def between(self, first: Any, last: Any) -> int:
        """Nanoseconds between two marks that are reached."""

    def address(self, array: Any) -> int:
        """Where an array starts."""

    def give_back(self) -> None:
        """Free the memory of arrays that nobody refers to any more."""

    def lost(self) -> str:
        """Why this process can't use it any more; "" if it can. Waits for what is queued."""


_USE = SharedLock()
"""Held shared by threads that use any card of this process, exclusively by one that records a CUDA graph."""

EXCLUSIVE_TIMEOUT_SECONDS = 5.0
"""How long `Card.exclusive` waits for a model that is being loaded."""


class Card:
    """An NVIDIA card; ConfigError says what is missing."""

    memory = "cuda"

    def __init__(self, index: int) -> None:
        self.name, self.index = f"cuda:{index}", index
        try:
            self._cuda = kernels.load_cuda()
            with self._cuda.gpus[index]:
                self._stream = self._cuda.stream()
        except Exception as error:  # CUDA's own, of many kinds
            raise ConfigError(f"device {self.name!r}: {' '.join(str(error).split())}") from error
        self.stream = handle_of(self._stream)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make it the device of this thread: kernels run there, on its stream."""
        with _USE.shared(), self._cuda.gpus[self.index], kernels.launching(self._stream):
            yield

    @contextmanager
    def loading(self) -> Iterator[None]:
        """As `active`, for what may take seconds or minutes."""
        with _USE.shared_long(), self.active():
            yield

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        """See Device. CUDA spoils a recording if another thread allocates or frees memory, say."""
        with (
            _USE.exclusive(EXCLUSIVE_TIMEOUT_SECONDS) as held,
            self._cuda.gpus[self.index],
            self._cuda.defer_cleanup(),
        ):
            yield held

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An uninitialised array there; CUDA frees it only when the kernels that use it have ended."""
        return self._cuda.device_array(shape, dtype)

    def pinned(self, size: int) -> Array:
        """(size,) uint8 in memory that stays where it is."""
        pinned: Array = self._cuda.pinned_array(size, np.uint8)
        return pinned

    def copy_in(self, source: Array, target: Any) -> None:
        """Queue a copy; both arrays contiguous and of one size."""
        target.copy_to_device(source, stream=self._stream)

    def copy_out(self, source: Any, target: Array) -> None:
        """Queue a copy; both arrays contiguous and of one size."""
        source.copy_to_host(target, stream=self._stream)

    def mark(self, again: Any = None) -> Any:
        """An event."""
        event = self._cuda.event() if again is None else again
        event.record(self._stream)
        return event

    def wait(self, mark: Any) -> None:
        """Wait until an event has come; other threads go on."""
        mark.synchronize()

    def between(self, first: Any, last: Any) -> int:
        """Nanoseconds, to about half a microsecond."""
        return int(1e6 * first.elapsed_time(last))

    def address(self, array: Any) -> int:
        """Where an array starts."""
        return int(array.__cuda_array_interface__["data"][0])

    def lost(self) -> str:
        """See Device. Some errors, an illegal address say, end CUDA's context: each later call of this
        process fails with the same one. A stream can't be waited for while it is recorded."""
        try:
            with self.active():
                self._stream.synchronize()
        except Exception as error:  # CUDA's own, of many kinds
            return f"device {self.name!r} is lost: {' '.join(str(error).split())}"
        return ""

    def give_back(self) -> None:
        """Have Numba free events and arrays now, instead of along with the next few that are dropped."""
        with self.active():
            context = self._cuda.current_context()
            for holder in (context, getattr(context, "memory_manager", None)):
                waiting = getattr(holder, "deallocations", None)
                with suppress(IndexError):  # another thread has freed the last one
                    if waiting is not None:
                        waiting.clear()


def handle_of(stream: Any) -> int:
    """The address of one of Numba's streams."""
    handle = getattr(stream, "handle", 0)
    return int(getattr(handle, "value", handle) or 0)


# -- finding them -------------------------------------------------------------------------------------


def find(wanted: str) -> Device | None:
    """The card that a setting names; None for the CPU.

    wanted  'cpu', 'cuda' (the first card), 'cuda:N', or 'auto': the first card, else the CPU

    Raises ConfigError, in a line that says what is missing, where a card that is named can't be used.
    """
    kind, _, index = settled(wanted, log.info).partition(":")
    return None if kind == "cpu" else Card(int(index or 0))


def names(wanted: str) -> tuple[str, ...]:
    """The devices that a setting names, each as `find` takes it: 'cuda:0,1' and 'cuda:all' are several."""
    kind, _, which = wanted.partition(":")
    if which == "all":
        settled(wanted, log.info)
        return tuple(f"{kind}:{card}" for card in range(count()))
    return tuple(f"{kind}:{card}" for card in which.split(",")) if which else (wanted,)


def settled(wanted: str, tell: Callable[[str], Any]) -> str:
    """'cpu' or cards that are there, for what settings say; `tell` hears why it is not a card for 'auto'."""
    kind, _, which = wanted.partition(":")
    if kind == "cpu":
        return wanted
    cards = [int(card) for card in which.split(",")] if which not in ("", "all") else [0]
    lacking = list(dict.fromkeys(what for card in cards for what in missing(card)))
    if kind == "cuda":
        if lacking:
            raise ConfigError(f"device {wanted!r}: {'; '.join(lacking)}")
        return wanted
    if lacking:
        tell(f"device 'auto' is the CPU: {'; '.join(lacking)}")
    return "cpu" if lacking else "cuda"


def missing(index: int = 0) -> list[str]:
    """What of driver, card, provider and library is not there, each in some words; nothing if all is."""
    return [what for what in (no_driver(index), no_provider(), no_library()) if what]


def no_driver(index: int) -> str:
    """Why there is no such card."""
    try:
        knows, cards = driver(), count()
    except OSError as error:
        return f"no driver ({error})"
    if knows < DRIVER:
        return f"no driver for CUDA {_cuda_version(DRIVER)} (there is one for {_cuda_version(knows)})"
    return "" if index < cards else f"no card {index} (there are {cards})"


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def count() -> int:
    """How many cards the driver has; OSError if it can't say."""
    return _asked("cuDeviceGetCount")


def driver() -> int:
    """The newest CUDA that the driver knows, 13000 for 13.0; OSError if it can't say."""
    return _asked("cuDriverGetVersion")


def _asked(question: str) -> int:
    """A number that the driver tells."""
    driver, number = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
    for result in (driver.cuInit(0), driver[question](ctypes.byref(number))):
        if result:
            raise OSError(f"libcuda.so.1 answers with error {result}")
    return number.value


def no_provider() -> str:
    """Why ONNX Runtime can't use a card."""
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
        # Found, with all that it needs: this symbol ONNX Runtime itself gives it when it loads it.
        return "" if "Provider_GetHost" in str(error) else f"no library for the provider ({error})"
    return ""


_LIBRARIES = {
    "cuda.bindings.nvvm": "version",
    "cuda.bindings.nvrtc": "nvrtcVersion",
    "cuda.bindings.nvjitlink": "version",
}
"""What Numba compiles with, and what asks each for its version."""


def no_library() -> str:
    """Why kernels can't be compiled for a card."""
    if find_spec("numba_cuda") is None:
        return f"no library for kernels (numba-cuda; {INSTALL})"
    for name, question in _LIBRARIES.items():
        try:
            getattr(importlib.import_module(name), question)()  # only that loads the library itself
        except Exception as error:
            return f"no library for kernels ({' '.join(str(error).split())}; {INSTALL})"
    return ""
