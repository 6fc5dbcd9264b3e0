"""Where TensorRT keeps the engines that it has built: in driftline's cache, a folder for each model file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path

import onnxruntime

from driftline.registry.cache import Cache

log = logging.getLogger("driftline.device")

_LOCATION = b"\n\x08location\x12"
"""How ONNX, in the words of protobuf, begins the name of a file with weights; its length follows."""


def folder_of(path: Path, options: Mapping[str, str]) -> Path | None:
    """The folder of engines for a model file, made if it was not there; None if it can't be.

    An engine has the weights in it: so the folder is named by what is in the model file and in those with its
    weights, by what TensorRT is told of it, and by the version of ONNX Runtime. TensorRT's own names of the
    files in it tell kinds of cards apart.
    """
    key = [contents(path), sorted(options.items()), onnxruntime.__version__]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    folder = Cache.default().root / "tensorrt" / digest
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("TensorRT builds its engines at each start: %s", error)
        return None
    return folder


def contents(path: Path) -> str:
    """The SHA-256 of a model file and of the files with weights that it names."""
    with path.open("rb") as file:
        whole = hashlib.file_digest(file, "sha256")
        with mmap(file.fileno(), 0, access=ACCESS_READ) as model:
            named = external(model)
    for name in sorted(named):
        weights = path.parent / name
        if os.path.isfile(weights):  # it may be no path at all: other properties are written in the same way
            with weights.open("rb") as file:
                whole.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def external(model: bytes | mmap) -> set[str]:
    """The files with weights that an ONNX model names, by their paths from where it lies."""
    found = set()
    at = model.find(_LOCATION)
    while at >= 0:
        at += len(_LOCATION)
        size = shift = 0
        for byte in model[at : at + 5]:  # seven bits each, and whether there are more
            size |= (byte & 0x7F) << shift
            shift += 7
            at += 1
            if byte < 0x80:
                break
        found.add(bytes(model[at : at + size]).decode(errors="replace"))
        at = model.find(_LOCATION, at)
    return found
