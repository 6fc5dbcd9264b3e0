"""The folders where TensorRT caches its engines: in driftline's cache, one for each model file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import onnxruntime

from driftline.registry.cache import Cache
from driftline.registry.files import external_of

log = logging.getLogger("driftline.device")


def cache_folder(path: Path, options: Mapping[str, str]) -> Path | None:
    """Return the folder of engines for a model file, created if missing; None if it can't be.

    An engine contains the weights. So the folder's name is a hash of the model file and the files with its
    weights, of TensorRT's options and of ONNX Runtime's version. TensorRT names the files in it by the GPU's
    architecture.
    """
    key = [content_hash(path), sorted(options.items()), onnxruntime.__version__]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    folder = Cache.default().root / "tensorrt" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("TensorRT builds its engines at each start: %s", error)
        return None
    return folder


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a model file and of the files with weights that it names."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    for name in sorted(external_of(path)):
        weights = path.parent / name
        if os.path.isfile(weights):  # it may not be a path: other properties are written in the same way
            with weights.open("rb") as file:
                digest.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
