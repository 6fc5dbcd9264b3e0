"""Files that are replaced atomically, and small files."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_BYTES = 2**20
"""The most bytes of a small file, which is read as a whole."""

PIPE_SECONDS = 5.0
"""How long a read may wait for the first bytes of a pipe, and for the next."""


def unfinished(path: Path) -> Path:
    """Return where to make a file or folder: beside its destination, hidden, for this process only."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def read_small(path: Path) -> bytes:
    """Read a file that a person may have written; ValueError if it is too large for that, or a pipe or a
    terminal from which nothing comes."""
    content, poll = b"", select.poll()
    with open(path, "rb", buffering=0, opener=_without_waiting) as file:
        poll.register(file, select.POLLIN)
        while len(content) <= MAX_BYTES:
            if not poll.poll(PIPE_SECONDS * 1000):
                raise ValueError(f"expected a file, nothing arrived in {PIPE_SECONDS:g} s")
            part = file.read(MAX_BYTES + 1 - len(content))
            if part == b"":
                return content
            content += part or b""  # None: another reader of a pipe was faster
    raise ValueError(f"expected at most {MAX_BYTES} bytes, got more")


def _without_waiting(path: str, flags: int) -> int:
    """Open a file without blocking: opening a pipe would wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write a file to, which replaces `path` on success, and is removed on failure."""
    new = unfinished(path)
    try:
        yield new
        os.replace(new, path)
    finally:
        with suppress(OSError):
            new.unlink()
