"""Cache compiled kernels on disk, so that only the first process on a machine compiles them.

Numba's own cache needs one writable folder: a read-only container would compile again at each start, even
kernels whose compiled code its image contains. This cache reads several folders, and writes to the first one
that is writable; if there is none, nothing is cached and nothing fails.
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
"""What compiled code depends on: the sources of all kernels, and the versions of Numba and Python."""
_DIGEST = _STAMP.digest_size


class DriverCache:
    """The cache of one driver, with the interface of Numba's dispatchers."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.cache_path = str(_PACKAGE)
        self._name = name_of(function)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return the driver for a signature on this CPU, from the first folder that has it; or None."""
        # Compiled code needs only this. Numba's own cache also loads what compiling needs: a second of
        # imports, SciPy among them.
        rtsys.initialize(context)
        states = load(self._file(signature, context.codegen()))
        on_compile = compiling.on_compile  # read once: another thread may set it to None
        if states is None and on_compile is not None:
            on_compile()
        return _rebuild(context, *states) if states is not None else None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Save the driver for later processes, in the first writable folder."""
        if not compiled.library.has_dynamic_globals:  # else it contains addresses of this process
            save(self._file(signature, compiled.codegen), _dumps(compiled._reduce()))

    def _file(self, signature: Any, codegen: Any) -> str:
        """Return the file name of a signature; code for other processors has other names."""
        return f"{self._name}-{digest(signature, codegen.magic_tuple())}.kernel"


class GridCache:
    """The cache of one grid, with the interface of Numba's CUDA dispatchers.

    A file has the machine code for the GPUs that the grid was compiled for, and its intermediate code, from
    which Numba makes the code for other GPUs without the Python source.

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
        """Return the grid for a signature, from the first folder that has it, on the current GPU; or None."""
        kernel = self.read(signature)
        if kernel is not None:
            kernel.bind()  # here, since only one thread compiles
        return kernel

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Save the grid for later processes, in the first writable folder."""
        serialize = import_module("numba.cuda.serialize")
        save(self._file(signature), serialize.dumps(compiled._reduce_states()))

    def read(self, signature: Any) -> Any:
        """Return the grid for a signature, for any GPU; or None."""
        states = load(self._file(signature))
        kernel = import_module("numba.cuda.dispatcher")._Kernel
        return kernel._rebuild(**states) if states is not None else None

    def _file(self, signature: Any) -> str:
        return f"{self._name}-{digest(signature, self._compilers)}.grid"


def name_of(function: Callable[..., Any]) -> str:
    """Return a function's name for file names and messages."""
    return f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"


def digest(*parts: object) -> str:
    """Return sixteen hexadecimal digits for what distinguishes compiled code."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def load(name: str) -> Any:
    """Return a file's content, from the first folder that has it intact and of these sources; or None."""
    for folder in folders():
        with suppress(OSError):
            data = (folder / name).read_bytes()
            if data[:_DIGEST] == stamp(data[_DIGEST:]):
                return pickle.loads(data[_DIGEST:])  # noqa: S301  # only we write there
    return None


def save(name: str, data: bytes) -> None:
    """Write a file to the first writable folder."""
    for folder in folders():
        with suppress(OSError):
            write(folder / name, stamp(data) + data)
            return


def stamp(data: bytes) -> bytes:
    """Return the digest that precedes compiled code of these sources."""
    hasher = _STAMP.copy()
    hasher.update(data)
    return hasher.digest()


def write(path: Path, data: bytes) -> None:
    """Write a file atomically; OSError if it can't be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")  # Numba compiles in one thread at a time
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@functools.cache
def folders() -> tuple[Path, ...]:
    """Return folders for compiled code: NUMBA_CACHE_DIR, the package's, the user's, a temporary one."""
    candidates = [Path(numba.config.CACHE_DIR)] if numba.config.CACHE_DIR else []
    candidates.append(_PACKAGE / "__pycache__")
    with suppress(RuntimeError):  # no home
        candidates.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "driftline")
    with suppress(OSError):
        candidates.append(make_private(Path(tempfile.gettempdir()) / f"driftline-{os.getuid()}"))
    return tuple(candidates)


def make_private(folder: Path) -> Path:
    """Make a folder in a shared one; OSError unless it is only ours: code from it is executed."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder}: expected a folder that only its owner can open")
    return folder
