"""Compile kernels when they are imported, or later, with Python running the same bodies until then.

Numba takes half a second or more to load. A process that must respond sooner calls `interpret` first: its
kernels are available at once, slow but with the same bits, until `load` is done.
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
_waiting: list[tuple[Any, Callable[[Any], Any]]] = []  # functions declared meanwhile, and how to compile them
_twins: dict[str, ModuleType] = {}  # namespaces of compiled functions, for modules imported meanwhile
_lock = threading.Lock()
_running = threading.local()


def interpret() -> None:
    """Let Python run kernels until `load` is done; does nothing if a kernel has been imported already."""
    global _interpreting
    _interpreting = not _begun


def interpreted() -> bool:
    """Return whether Python still runs kernels."""
    return _interpreting


def load() -> None:
    """Compile kernels if that was deferred, and wait until it is done; thread safe.

    Drivers that were called meanwhile are compiled for those arguments, or read from disk, before they take
    over.
    """
    global _interpreting, _begun
    with _lock:
        if not _interpreting:
            return
        import_module("numba")
        here = [str(Path(__file__).parent)]
        modules = [import_module(f"{__package__}.{found.name}") for found in pkgutil.iter_modules(here)]
        # Separate namespaces: compiled and interpreted functions must not call each other.
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
    """Return the value of a kernel's name: the compiled function, or one for Python until `load` is done."""
    global _begun
    if not _interpreting:
        _begun = True
        return compiled(function)
    held = Interpreted(function) if driver else function
    _waiting.append((held, compiled))
    return held


class Interpreted:
    """A driver that Python runs; `called` holds the arguments of its last call, except by other drivers."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.called: tuple[Any, ...] = ()

    def __call__(self, *arguments: Any) -> Any:
        """Run it without warnings of overflow, as compiled code does."""
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
    """Return the imported modules of kernels, and the separate namespaces of their compiled functions."""
    imported = [held for name, held in list(sys.modules.items()) if name.startswith(f"{__package__}.")]
    return [*imported, *_twins.values()]


def home(held: Any) -> Any:
    """Return a function with the namespace of the compiled functions."""
    function = held.function if isinstance(held, Interpreted) else held
    twin = _twins.get(function.__module__)
    if twin is None:
        return function
    return update_wrapper(FunctionType(function.__code__, vars(twin), function.__name__), function)


def compile_for(compiled: Any, arguments: tuple[Any, ...]) -> None:
    """Compile a driver for the types of these arguments."""
    numba = import_module("numba")
    if not numba.config.DISABLE_JIT:
        compiled.compile(tuple(map(numba.typeof, arguments)))


def as_body(function: Any) -> Any:
    """Compile a function that is inlined where it is called."""
    return import_module("numba").njit(forceinline=True, error_model="numpy")(function)


def as_driver(function: Any) -> Any:
    """Wrap a function to be compiled at its first call and cached on disk."""
    made = import_module("numba").njit(nogil=True, error_model="numpy")(function)
    if made is not function and function.__module__.startswith(f"{__package__}."):
        made._cache = import_module(f"{__package__}.keeping").Kept(function)
    return made  # the function itself where NUMBA_DISABLE_JIT is set


def as_grid(function: Any, cuda: Any) -> Any:
    """Wrap a function to be compiled at its first launch and cached on disk; see device.grid."""
    if import_module("numba").config.ENABLE_CUDASIM:
        return cuda.jit(function)
    made = cuda.jit(function, **({"max_registers": function.registers} if function.registers else {}))
    made._cache = import_module(f"{__package__}.keeping").KeptGrid(function, made.targetoptions)
    return made


def as_machine(function: Any) -> Any:
    """Return the function of the same name in `intrinsics`."""
    if import_module("numba").config.DISABLE_JIT:
        return function
    return getattr(import_module(f"{__package__}.intrinsics"), function.__name__)
