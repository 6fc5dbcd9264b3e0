"""When kernels are compiled: as they are imported, or later, and Python runs the very same bodies until then.

Numba takes half a second or more to load. A process that must answer before calls `interpret` first: its
kernels are there at once, slow, but with the same bits, until `load` is done.
"""

from __future__ import annotations

import pkgutil
import sys
import threading
from collections.abc import Callable
from functools import update_wrapper
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

on_compile: Callable[[], None] | None = None
"""Called before each kernel that is compiled because none was kept on disk."""

_interpreting = False
_begun = False  # whether anything was compiled
_waiting: list[tuple[Any, Callable[[Any], Any]]] = []  # what was declared meanwhile, and how it is compiled
_twins: dict[str, ModuleType] = {}  # of modules imported meanwhile: what their compiled functions see
_lock = threading.Lock()
_running = threading.local()


def interpret() -> None:
    """Let Python run kernels until `load` is done; no kernel may have been imported, or nothing happens."""
    global _interpreting
    _interpreting = not _begun


def interpreted() -> bool:
    """Whether Python runs kernels still."""
    return _interpreting


def load() -> None:
    """Compile kernels, if that waits; thread safe, and whoever calls it waits until it is done.

    What was called meanwhile is compiled for those arguments, or read from disk, before it takes over.
    """
    global _interpreting, _begun
    with _lock:
        if not _interpreting:
            return
        import_module("numba")
        here = [str(Path(__file__).parent)]
        modules = [import_module(f"{__package__}.{found.name}") for found in pkgutil.iter_modules(here)]
        # Names of their own: what is compiled must not meet what Python runs, nor be met by it on its way.
        for module in modules:
            _twins[module.__name__] = ModuleType(module.__name__)
        made: dict[int, Any] = {id(module): _twins[module.__name__] for module in modules}
        made |= {id(held): compiled(home(held)) for held, compiled in _waiting}
        for module in modules:
            names = {name: made.get(id(held), held) for name, held in vars(module).items()}
            vars(_twins[module.__name__]).update(names)
        for held, _ in _waiting:
            if isinstance(held, Interpreted) and held.called:
                compile_for(made[id(held)], held.called)
        for module in modules:
            for name, held in list(vars(module).items()):
                if isinstance(held, Interpreted):
                    setattr(module, name, made[id(held)])
        _waiting.clear()
        _interpreting, _begun = False, True


def declare(function: Any, compiled: Callable[[Any], Any], driver: bool = False) -> Any:
    """What a kernel's name stands for: the function compiled, or what Python runs until `load` is done."""
    global _begun
    if not _interpreting:
        _begun = True
        return compiled(function)
    held = Interpreted(function) if driver else function
    _waiting.append((held, compiled))
    return held


class Interpreted:
    """A driver that Python runs; `called` is what it was called with, but by other drivers."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.called: tuple[Any, ...] = ()

    def __call__(self, *arguments: Any) -> Any:
        """Run it, without warnings of what overflows, as compiled code has none."""
        if getattr(_running, "driver", False):
            return self.function(*arguments)
        self.called = arguments
        _running.driver = True
        try:
            with np.errstate(all="ignore"):
                return self.function(*arguments)
        finally:
            _running.driver = False


def modules() -> list[ModuleType]:
    """The modules of kernels that are imported, and those of what is compiled where these are others."""
    imported = [held for name, held in list(sys.modules.items()) if name.startswith(f"{__package__}.")]
    return [*imported, *_twins.values()]


def home(held: Any) -> Any:
    """A function among the names that are compiled."""
    function = held.function if isinstance(held, Interpreted) else held
    twin = _twins.get(function.__module__)
    if twin is None:
        return function
    return update_wrapper(FunctionType(function.__code__, vars(twin), function.__name__), function)


def compile_for(compiled: Any, arguments: tuple[Any, ...]) -> None:
    """Compile a driver for arguments such as these."""
    numba = import_module("numba")
    if not numba.config.DISABLE_JIT:
        compiled.compile(tuple(map(numba.typeof, arguments)))


def as_body(function: Any) -> Any:
    """Inlined where it is called."""
    return import_module("numba").njit(forceinline=True, error_model="numpy")(function)


def as_driver(function: Any) -> Any:
    """Compiled at its first call, kept on disk."""
    made = import_module("numba").njit(nogil=True, error_model="numpy")(function)
    if made is not function and function.__module__.startswith(f"{__package__}."):
        made._cache = import_module(f"{__package__}.keeping").Kept(function)
    return made  # the function itself where NUMBA_DISABLE_JIT is set


def as_grid(function: Any, cuda: Any) -> Any:
    """Compiled at its first launch, kept on disk; see device.grid."""
    if import_module("numba").config.ENABLE_CUDASIM:
        return cuda.jit(function)
    made = cuda.jit(function, **({"max_registers": function.registers} if function.registers else {}))
    made._cache = import_module(f"{__package__}.keeping").KeptGrid(function, made.targetoptions)
    return made


def as_machine(function: Any) -> Any:
    """The one of the same name in `intrinsics`."""
    if import_module("numba").config.DISABLE_JIT:
        return function
    return getattr(import_module(f"{__package__}.intrinsics"), function.__name__)
