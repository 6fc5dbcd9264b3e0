"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def unfinished(path: Path) -> Path:
    """Where a file or a folder is made: beside its place, hidden, and no other process's."""
    return path.with_name(f".{path.name}.{os.getpid()}")


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
