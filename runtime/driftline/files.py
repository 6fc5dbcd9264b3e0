"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from driftline.errors import BadRequest


def replace_file(path: Path, text: str) -> None:
    """Write a file by renaming; BadRequest, with the reason, if it can't be written."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise BadRequest(f"{path}: can't be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def check_folder(path: Path) -> None:
    """BadRequest if a file can't be there: better said before what takes long than after."""
    if path.is_dir() or not path.parent.is_dir():
        raise BadRequest(f"{path}: expected a file in a folder that is there")
