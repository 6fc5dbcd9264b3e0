"""Writes the files of figures and settings."""

from __future__ import annotations

from pathlib import Path

from driftline.errors import BadRequest
from driftline.files import replacing


def replace_file(path: Path, text: str) -> None:
    """Write a file by rename; BadRequest, with the reason, if it can't be written."""
    try:
        with replacing(path) as new:
            new.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadRequest(f"{path}: can't be written: {error.strerror}") from error


def check_folder(path: Path) -> None:
    """Raise BadRequest if a file can't be written there: better before a long measurement than after."""
    if path.is_dir() or not path.parent.is_dir():
        raise BadRequest(f"{path}: expected a file in a folder that is there")
