"""Files that are whole or not there, and small ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MOST_BYTES = 2**20
"""Of a file that is read as a whole because it is small."""


def unfinished(path: Path) -> Path:
    """Where a file or a folder is made: beside its place, hidden, and no other process's."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def read_small(path: Path) -> bytes:
    """A file that a person may have written; ValueError if it is too large for that."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"expected at most {MOST_BYTES} bytes, came more")
    return content


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
