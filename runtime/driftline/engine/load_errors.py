"""Rewords ONNX Runtime's errors about a model file for the owner of the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from driftline.errors import ModelError

_CODE = re.compile(r"\d+ : [A-Z_]+ : ")
_PLACE = re.compile(r"[\w/]+\.(?:cc|h):\d+ (?:[\w:<>*& ]*\w\(.*?\) (?=[A-Z]))?")
"""A place in ONNX Runtime's own code: file, line, and a function with its arguments."""


@contextmanager
def in_plain_words(path: Path) -> Iterator[None]:
    """Reword a ModelError from loading a file: without ONNX Runtime's codes and places in its code."""
    try:
        yield
    except ModelError as error:
        if error.__cause__ is None:  # not ONNX Runtime's
            raise
        raise ModelError(f"{path}: {_reworded(path, error)}") from error.__cause__


def _reworded(path: Path, error: ModelError) -> str:
    text = str(error).removeprefix(f"{path}: ")
    if type(error.__cause__).__name__ == "InvalidProtobuf" or "No graph was found" in text:
        size = path.stat().st_size
        content = f"{size:,} bytes that are not one, or not all of one" if size else "an empty file"
        return f"expected an ONNX model, got {content}"
    text = _CODE.sub("", text, count=1).removeprefix(f"Load model from {path} failed:")
    text = _PLACE.sub("", text)
    if type(error.__cause__).__name__ == "NotImplemented":
        return f"ONNX Runtime can't compute it here: {text}"
    return f"ONNX Runtime can't load it: {text}"
