"""Files that are whole or not there, and small ones."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MOST_BYTES = 2**20
"""Of a file that is read as a whole because it is small."""

PIPE_SECONDS = 5.0
"""How long may pass before the first of it comes, and the next."""


def unfinished(path: Path) -> Path:
    """Where a file or a folder is made: beside its place, hidden, and no other process's."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def read_small(path: Path) -> bytes:
    """A file that a person may have written; ValueError if it is too large for that, or if it is a pipe or a
    terminal and nothing comes."""
    content, poll = b"", select.poll()
    with open(path, "rb", buffering=0, opener=_without_waiting) as file:
        poll.register(file, select.POLLIN)
        while len(content) <= MOST_BYTES:
            if not poll.poll(PIPE_SECONDS * 1000):
                raise ValueError(f"expected a file, nothing has come in {PIPE_SECONDS:g} s")
            part = file.read(MOST_BYTES + 1 - len(content))
            if part == b"":
                return content
            content += part or b""  # None: another reader of a pipe was quicker
    raise ValueError(f"expected at most {MOST_BYTES} bytes, came more")


def _without_waiting(path: str, flags: int) -> int:
    """A file's descriptor, at once: a pipe would wait for somebody who writes."""
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file to, which replaces `path` if all goes well, and else is gone."""
    new = unfinished(path)
    try:
        yield new
        os.replace(new, path)
    finally:
        with suppress(OSError):
            new.unlink()
