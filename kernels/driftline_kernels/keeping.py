"""Compiled drivers on disk, so that only the first process of a machine compiles them.

Numba has such a cache, but one folder must be found for it, which is then written: a container whose files
are read-only would compile again at each start, even what its image holds. Here any of a few places is read,
and the first that can be written is written; where there is none, nothing is kept and nothing fails.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import stat
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba
from numba.core import serialize
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys

from driftline_kernels import compiling

_dumps: Any = serialize.dumps
_rebuild: Any = CompileResult._rebuild

_PACKAGE = Path(__file__).parent
_SOURCES = b"".join(path.read_bytes() for path in sorted(_PACKAGE.glob("*.py")))
_STAMP = hashlib.blake2b(_SOURCES + repr((numba.__version__, sys.version)).encode())
"""What compiled code depends on: bodies of any file are part of it, as Numba and Python are."""
_DIGEST = _STAMP.digest_size


class Kept:
    """The cache of one driver, as Numba's dispatchers call it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.cache_path = str(_PACKAGE)
        self._name = name_of(function)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The driver for a signature and this processor, from the first place that has it; or None."""
        # All that compiled code asks of this process. Numba's own cache loads here what compiling takes, too:
        # a second of imports, SciPy among them.
        rtsys.initialize(context)
        states = load(self._file(signature, context.codegen()))
        if states is None and compiling.on_compile is not None:
            compiling.on_compile()
        return _rebuild(context, *states) if states is not None else None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep it for the next process, in the first place that can be written."""
        if not compiled.library.has_dynamic_globals:  # else addresses of this process are part of it
            save(self._file(signature, compiled.codegen), _dumps(compiled._reduce()))

    def _file(self, signature: Any, codegen: Any) -> str:
        """The file of a signature; code for other processors has other names."""
        return f"{self._name}-{digest(signature, codegen.magic_tuple())}.kernel"


class KeptGrid:
    """The cache of one grid, as Numba's dispatchers for cards call it.

    What is kept has machine code for the kinds of cards that it was compiled for, and what is before that on
    the way, from which Numba makes another card's code without Python's.

    options  of the dispatcher, with which it compiles
    """

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self._name = name_of(function)
        config, runtime = (import_module(f"numba.cuda.{name}") for name in ("core.config", "cudadrv.runtime"))
        self._compilers = (
            *map(version, ("numba-cuda", "cuda-core", "cuda-bindings")),
            runtime.get_version(),
            config.FORCE_CUDA_CC,
            sorted(options.items()),
        )

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The grid for a signature, from the first place that has it, on the current card; or None."""
        kernel = self.read(signature)
        if kernel is not None:
            kernel.bind()  # here, since only one thread compiles
        return kernel

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep it for the next process, in the first place that can be written."""
        serialize = import_module("numba.cuda.serialize")
        save(self._file(signature), serialize.dumps(compiled._reduce_states()))

    def read(self, signature: Any) -> Any:
        """The grid for a signature, for whatever card; or None."""
        states = load(self._file(signature))
        kernel = import_module("numba.cuda.dispatcher")._Kernel
        return kernel._rebuild(**states) if states is not None else None

    def _file(self, signature: Any) -> str:
        return f"{self._name}-{digest(signature, self._compilers)}.grid"


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called in the names of files, and for people."""
    return f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"


def digest(*parts: object) -> str:
    """Sixteen digits for what makes compiled code another."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def load(name: str) -> Any:
    """What was kept in a file, from the first place that has it whole and of these sources; or None."""
    for place in places():
        with suppress(OSError):
            data = (place / name).read_bytes()
            if data[:_DIGEST] == stamp(data[_DIGEST:]):
                return pickle.loads(data[_DIGEST:])  # noqa: S301  # only we write there
    return None


def save(name: str, data: bytes) -> None:
    """Keep a file in the first place that can be written."""
    for place in places():
        with suppress(OSError):
            write(place / name, stamp(data) + data)
            return


def stamp(data: bytes) -> bytes:
    """What stands before compiled code of these sources."""
    whole = _STAMP.copy()
    whole.update(data)
    return whole.digest()


def write(path: Path, data: bytes) -> None:
    """Write a file that others see whole or not at all; OSError if it can't be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")  # Numba compiles in one thread at a time
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@functools.cache
def places() -> tuple[Path, ...]:
    """Folders for compiled code: NUMBA_CACHE_DIR, the package's, the user's, one among temporary files."""
    found = [Path(numba.config.CACHE_DIR)] if numba.config.CACHE_DIR else []
    found.append(_PACKAGE / "__pycache__")
    with suppress(RuntimeError):  # no home
        found.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "driftline")
    with suppress(OSError):
        found.append(private(Path(tempfile.gettempdir()) / f"driftline-{os.getuid()}"))
    return tuple(found)


def private(folder: Path) -> Path:
    """Make a folder where others may write, too; OSError if it is not ours alone: what lies there is run."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder}: expected a folder that only its owner can open")
    return folder
