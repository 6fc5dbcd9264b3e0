"""The files that figures and settings are written to."""

from __future__ import annotations

from pathlib import Path

from driftline.errors import BadRequest
from driftline.files import replacing


def replace_file(path: Path, text: str) -> None:
    """Write a file by renaming; BadRequest, with the reason, if it can't be written."""
    try:
        with replacing(path) as new:
            new.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadRequest(f"{path}: can't be written: {error.strerror}") from error


def check_folder(path: Path) -> None:
    """BadRequest if a file can't be there: better said before what takes long than after."""
    if path.is_dir() or not path.parent.is_dir():
        raise BadRequest(f"{path}: expected a file in a folder that is there")
