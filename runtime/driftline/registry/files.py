"""The files of a new version: which one goes where, and locks on folders."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path

from driftline import mlmodel
from driftline.errors import BadRequest, DriftlineError

Check = Callable[[Path], object]
"""Raises an error if a folder must not become a version."""

MODEL = Path("model.onnx")
MLMODEL = Path(mlmodel.MLMODEL)

TRANSFORM, PROFILE, SETTINGS = "transform.json", "profile.arrow", "driftline.toml"
"""Optional files beside a model."""

_LOCATION = b"\n\x08location\x12"
"""The protobuf bytes before the name of an ONNX file of weights; the name's length follows."""


def paths_of(files: Sequence[str | Path] | str | Path) -> list[Path]:
    """Return the files as a list of paths; a single one is a list, too."""
    return [Path(file) for file in ([files] if isinstance(files, str | Path) else files)]


def gather(files: Sequence[Path]) -> dict[Path, Path]:
    """Return which file goes where in a version.

    Raises BadRequest if the files make no bundle, and for a file with a name that no version uses; other
    files in a folder are ignored.
    """
    for path in files:
        if not path.exists():
            raise BadRequest(f"{path}: no such file")
    is_folder = len(files) == 1 and files[0].is_dir()
    if is_folder:
        bundle = {path.relative_to(files[0]): path for path in _regular_files(files[0])}
    else:
        bundle = {}
        for path in files:
            if not path.is_file():
                raise BadRequest(f"{path}: expected files, or one folder and nothing else")
            target = Path(path.name)
            if target in bundle:
                raise BadRequest(f"{path}: expected different names, got {target} twice")
            bundle[target] = path
    if MODEL / MODEL in bundle:  # how Triton lays out a model with external data
        return bundle
    models = [target for target in bundle if target.parent == Path() and target.suffix == ".onnx"]
    if MLMODEL in bundle and MODEL not in bundle and not models:  # an MLflow model in Python
        return bundle
    if MODEL not in bundle:
        if len(models) != 1:
            names = sorted({target.parts[0] for target in bundle}) or ["nothing"]
            rest = f" and {len(names) - 10} more" if len(names) > 10 else ""
            raise BadRequest(f"expected {MODEL} or exactly one .onnx file, got {', '.join(names[:10])}{rest}")
        bundle[MODEL] = bundle.pop(models[0])
    if not is_folder and MLMODEL not in bundle:  # an MLmodel names its own files
        _check_names(bundle)
    return bundle


def checked(check: Check, folder: Path, files: Sequence[Path], bundle: Mapping[Path, Path]) -> None:
    """Check a version's folder; errors name the original files instead of their copies."""
    try:
        check(folder)
    except DriftlineError as error:
        text = str(error)
        for target in sorted(bundle, key=lambda target: -len(str(target))):
            text = text.replace(str(folder / target), str(bundle[target]))
        if text == str(error):
            raise
        raise type(error)(text.replace(str(folder), ", ".join(map(str, files)))) from error


def _check_names(bundle: Mapping[Path, Path]) -> None:
    extras = sorted(set(bundle) - {MODEL, *map(Path, (TRANSFORM, PROFILE, SETTINGS))})
    weights = sorted(external_of(bundle[MODEL])) if extras else []
    for target in extras:
        if target not in map(Path, weights):
            listed_weights = f" ({', '.join(weights)})" if weights else ""
            raise BadRequest(
                f"{bundle[target]}: no file of a version is called so; expected {MODEL} or one .onnx file, "
                f"the external data that it names{listed_weights}, {TRANSFORM}, {PROFILE} and {SETTINGS}"
            )


def external_of(path: Path) -> set[str]:
    """Return the weight files that an ONNX model names, as paths relative to it."""
    locations: set[str] = set()
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:  # an empty file can't be mapped
            return locations
        with mmap(file.fileno(), 0, access=ACCESS_READ) as model:
            position = model.find(_LOCATION)
            while position >= 0:
                position += len(_LOCATION)
                size = shift = 0
                # A varint: seven bits each, and whether more follow.
                for byte in model[position : position + 5]:
                    size |= (byte & 0x7F) << shift
                    shift += 7
                    position += 1
                    if byte < 0x80:
                        break
                locations.add(bytes(model[position : position + size]).decode(errors="replace"))
                position = model.find(_LOCATION, position)
    return locations


def _regular_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            raise BadRequest(f"{path}: expected files and folders, got a link")
        if path.is_dir():
            yield from _regular_files(path)
        elif path.is_file():
            yield path
        else:
            raise BadRequest(f"{path}: expected files and folders, got neither")


@contextmanager
def locked(folder: Path, operation: int = fcntl.LOCK_EX) -> Iterator[int]:
    """Hold the lock of a folder; yield its open descriptor. With LOCK_NB, raises BlockingIOError if another
    process holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, operation)
        yield descriptor
    finally:
        os.close(descriptor)
