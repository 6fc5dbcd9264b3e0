"""Memory, a stream and copies where models run: an NVIDIA card, or the CPU's own, which stand in for one.

The arrays of a card are Numba's, which kernels take as they are; so Numba's simulator runs all of this, too.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Protocol

import numpy as np
import onnxruntime

from driftline.engine.gate import Gate
from driftline.errors import ConfigError
from driftline.tensors import Array
from driftline_kernels import device as kernels

log = logging.getLogger("driftline.device")

PROVIDER = "CUDAExecutionProvider"
INSTALL = "pip install 'driftline[gpu]' instead of 'driftline[cpu]'"

DRIVER = 13_000
"""The CUDA, 13.0, that a driver has to know: what the packages of `driftline[gpu]` are made for."""


class Device(Protocol):
    """What a card does for a model: everything on one stream, in the order in which it is asked for.

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
        """Makes it the device of this thread: kernels run there, on its stream."""

    def loading(self) -> AbstractContextManager[Any]:
        """As `active`, for what may take seconds or minutes."""

    def alone(self) -> AbstractContextManager[bool]:
        """No other thread has a device active meanwhile; not for one that has. False if somebody is `loading`
        for longer than can be waited for."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array there, not filled."""

    def pinned(self, size: int) -> Array:
        """(size,) uint8 here, from where the device copies without the CPU's help."""

    def copy_in(self, here: Array, there: Any) -> None:
        """Copy as soon as its turn comes; both contiguous and of one size."""

    def copy_out(self, there: Any, here: Array) -> None:
        """Copy as soon as its turn comes; both contiguous and of one size."""

    def mark(self, again: Any = None) -> Any:
        """A point in the stream, behind all that was asked for; `again` is one that may be used for it."""

    def wait(self, mark: Any) -> None:
        """Wait until a mark is reached."""

    def between(self, first: Any, last: Any) -> int:
        """Nanoseconds between two marks that are reached."""

    def address(self, array: Any) -> int:
        """Where an array starts."""

    def give_back(self) -> None:
        """Let others have the memory of arrays that nobody has any more."""

    def lost(self) -> str:
        """Why this process can ask nothing of it any more; "" if it can. Waits for what is on the stream."""


class Cpu:
    """The CPU as a device: whatever is asked for is done at once."""

    name, memory, index, stream = "cpu", "cpu", 0, 0

    def active(self) -> AbstractContextManager[Any]:
        """Nothing to do."""
        return nullcontext()

    def loading(self) -> AbstractContextManager[Any]:
        """Nothing to do."""
        return nullcontext()

    def alone(self) -> AbstractContextManager[bool]:
        """Nobody disturbs it."""
        return nullcontext(True)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array, not filled."""
        return np.empty(shape, dtype)

    def pinned(self, size: int) -> Array:
        """(size,) uint8."""
        return np.empty(size, np.uint8)

    def copy_in(self, here: Array, there: Any) -> None:
        """Copy."""
        np.copyto(there, here)

    def copy_out(self, there: Any, here: Array) -> None:
        """Copy."""
        np.copyto(here, there)

    def mark(self, again: Any = None) -> int:
        """The time."""
        return perf_counter_ns()

    def wait(self, mark: Any) -> None:
        """It is reached."""

    def between(self, first: int, last: int) -> int:
        """Nanoseconds."""
        return last - first

    def address(self, array: Any) -> int:
        """Where an array starts."""
        return int(array.ctypes.data)

    def give_back(self) -> None:
        """They have it already."""

    def lost(self) -> str:
        """It is not."""
        return ""


_GATE = Gate()
"""Who uses any card of this process."""

PATIENCE = 5.0
"""Seconds that a form of batch waits to be recorded while a model is loaded; it goes on unrecorded then."""


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
        """Makes it the device of this thread: kernels run there, on its stream."""
        with _GATE.passing(), self._cuda.gpus[self.index], kernels.launching(self._stream):
            yield

    @contextmanager
    def loading(self) -> Iterator[None]:
        """As `active`, for what may take seconds or minutes."""
        with _GATE.passing_long(), self.active():
            yield

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """CUDA spoils what is being recorded if another thread of the process takes or frees memory, say."""
        with _GATE.alone(PATIENCE) as free, self._cuda.gpus[self.index], self._cuda.defer_cleanup():
            yield free

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array there, not filled. CUDA frees memory when the kernels that use it have ended."""
        return self._cuda.device_array(shape, dtype)

    def pinned(self, size: int) -> Array:
        """(size,) uint8 in memory that stays where it is."""
        pinned: Array = self._cuda.pinned_array(size, np.uint8)
        return pinned

    def copy_in(self, here: Array, there: Any) -> None:
        """Copy as soon as its turn comes; both contiguous and of one size."""
        there.copy_to_device(here, stream=self._stream)

    def copy_out(self, there: Any, here: Array) -> None:
        """Copy as soon as its turn comes; both contiguous and of one size."""
        there.copy_to_host(here, stream=self._stream)

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
        """Some errors, an illegal address say, end CUDA's context: whatever this process asks later has the
        same one as its answer."""
        try:
            with self._cuda.gpus[self.index]:
                self._stream.synchronize()
        except Exception as error:  # CUDA's own, of many kinds
            return f"device {self.name!r} is lost: {' '.join(str(error).split())}"
        return ""

    def give_back(self) -> None:
        """What Numba would free with the next few arrays, it frees now: events, and the memory of arrays."""
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
