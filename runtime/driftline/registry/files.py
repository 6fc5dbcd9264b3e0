"""Files on their way into a registry: which go where in a version, and locks on folders."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from driftline import mlmodel
from driftline.errors import BadRequest

MODEL = Path("model.onnx")
MLMODEL = Path(mlmodel.MLMODEL)


def gather(files: Sequence[Path]) -> dict[Path, Path]:
    """Which file goes where in a version; BadRequest if that makes no bundle."""
    for path in files:
        if not path.exists():
            raise BadRequest(f"{path}: no such file")
    if len(files) == 1 and files[0].is_dir():
        bundle = {path.relative_to(files[0]): path for path in _regular_files(files[0])}
    else:
        bundle = {}
        for path in files:
            if not path.is_file():
                raise BadRequest(f"{path}: expected files, or one folder and nothing else")
            place = Path(path.name)
            if place in bundle:
                raise BadRequest(f"{path}: expected different names, came {place} twice")
            bundle[place] = path
    # The second is how Triton lays out a model with external data.
    if MODEL in bundle or MODEL / MODEL in bundle:
        return bundle
    models = [place for place in bundle if place.parent == Path() and place.suffix == ".onnx"]
    if MLMODEL in bundle and not models:  # MLflow's, of Python code
        return bundle
    if len(models) != 1:
        came = sorted({place.parts[0] for place in bundle}) or ["nothing"]
        more = f" and {len(came) - 10} more" if len(came) > 10 else ""
        raise BadRequest(f"expected {MODEL} or exactly one .onnx file, came {', '.join(came[:10])}{more}")
    bundle[MODEL] = bundle.pop(models[0])
    return bundle


def _regular_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            raise BadRequest(f"{path}: expected files and folders, came a link")
        if path.is_dir():
            yield from _regular_files(path)
        elif path.is_file():
            yield path
        else:
            raise BadRequest(f"{path}: expected files and folders, came neither")


@contextmanager
def locked(folder: Path, operation: int = fcntl.LOCK_EX) -> Iterator[int]:
    """Hold the lock of a folder, which is open under the descriptor; with LOCK_NB, BlockingIOError if another
    holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, operation)
        yield descriptor
    finally:
        os.close(descriptor)
