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
_compiled_any = False  # whether anything was compiled
_deferred: list[tuple[Any, Callable[[Any], Any]]] = []  # functions that Python runs, and how to compile them
_twins: dict[str, ModuleType] = {}  # namespaces of compiled functions, for modules imported meanwhile
_lock = threading.Lock()
_running = threading.local()


def interpret() -> None:
    """Let Python run kernels until `load` is done; does nothing if a kernel has been imported already."""
    global _interpreting
    _interpreting = not _compiled_any


def interpreted() -> bool:
    """Return whether Python still runs kernels."""
    return _interpreting


def load() -> None:
    """Compile kernels if that was deferred, and wait until it is done; thread safe.

    Drivers that were called meanwhile are compiled for those arguments, or read from disk, before they take
    over.
    """
    global _interpreting, _compiled_any
    with _lock:
        if not _interpreting:
            return
        import_module("numba")
        package = [str(Path(__file__).parent)]
        modules = [import_module(f"{__package__}.{info.name}") for info in pkgutil.iter_modules(package)]
        # Separate namespaces: compiled and interpreted functions must not call each other.
        for module in modules:
            _twins[module.__name__] = ModuleType(module.__name__)
        compiled_of: dict[int, Any] = {id(module): _twins[module.__name__] for module in modules}
        compiled_of |= {id(value): compile_function(rebound(value)) for value, compile_function in _deferred}
        for module in modules:
            names = {name: compiled_of.get(id(value), value) for name, value in vars(module).items()}
            vars(_twins[module.__name__]).update(names)
        for value, _ in _deferred:
            if isinstance(value, Interpreted) and value.arguments:
                compile_for(compiled_of[id(value)], value.arguments)
        for module in modules:
            for name, value in list(vars(module).items()):
                if isinstance(value, Interpreted):
                    setattr(module, name, compiled_of[id(value)])
        _deferred.clear()
        _interpreting, _compiled_any = False, True


def declare(function: Any, compile_function: Callable[[Any], Any], driver: bool = False) -> Any:
    """Return the value of a kernel's name: the compiled function, or one for Python until `load` is done."""
    global _compiled_any
    if not _interpreting:
        _compiled_any = True
        return compile_function(function)
    interpreted = Interpreted(function) if driver else function
    _deferred.append((interpreted, compile_function))
    return interpreted


class Interpreted:
    """A driver that Python runs; `arguments` are those of its last call, except by other drivers."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.arguments: tuple[Any, ...] = ()

    def __call__(self, *arguments: Any) -> Any:
        """Run it without warnings of overflow, as compiled code does."""
        if getattr(_running, "driver", False):
            return self.function(*arguments)
        self.arguments = arguments
        _running.driver = True
        try:
            with np.errstate(all="ignore"):
                return self.function(*arguments)
        finally:
            _running.driver = False


def modules() -> list[ModuleType]:
    """Return the imported modules of kernels, and the separate namespaces of their compiled functions."""
    imported = [module for name, module in list(sys.modules.items()) if name.startswith(f"{__package__}.")]
    return [*imported, *_twins.values()]


def rebound(kernel: Any) -> Any:
    """Return a function with the namespace of the compiled functions."""
    function = kernel.function if isinstance(kernel, Interpreted) else kernel
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
    dispatcher = import_module("numba").njit(nogil=True, error_model="numpy")(function)
    if dispatcher is not function and function.__module__.startswith(f"{__package__}."):
        dispatcher._cache = import_module(f"{__package__}.disk_cache").DriverCache(function)
    return dispatcher  # the function itself where NUMBA_DISABLE_JIT is set


def as_grid(function: Any, cuda: Any) -> Any:
    """Wrap a function to be compiled at its first launch and cached on disk; see device.grid."""
    if import_module("numba").config.ENABLE_CUDASIM:
        return cuda.jit(function)
    compiled = cuda.jit(function, **({"max_registers": function.registers} if function.registers else {}))
    cache = import_module(f"{__package__}.disk_cache").GridCache
    compiled._cache = cache(function, compiled.targetoptions)
    return compiled


def as_machine(function: Any) -> Any:
    """Return the function of the same name in `intrinsics`."""
    if import_module("numba").config.DISABLE_JIT:
        return function
    return getattr(import_module(f"{__package__}.intrinsics"), function.__name__)
