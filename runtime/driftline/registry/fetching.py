"""Downloads a version's files into a folder before a server starts, as KServe's storage initializer does."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from driftline.errors import BadRequest, RegistryError
from driftline.registry.source import Reference, Registry, Version, check_name, parse_version

SCHEME = "models:/"
PARTS = ".driftline"
"""Marks a folder as ours to empty, and holds unfinished downloads so that they can be resumed."""


def parse(source: str) -> Reference:
    """Read `models:/NAME`, `models:/NAME/VERSION` or `models:/NAME@ALIAS`, as MLflow writes them, or a
    reference in driftline's own syntax; BadRequest for anything else."""
    if not source.startswith(SCHEME):
        return Reference.parse(source)
    name, slash, version = source.removeprefix(SCHEME).partition("/")
    if slash:
        return Reference(check_name(name), version=parse_version(version))
    if name.startswith("m-"):
        raise BadRequest(f"{source}: expected a registered model, got a logged one: register it first")
    return Reference.parse(name)


def fetch(uri: str, source: str, folder: Path) -> Version:
    """Put the files of a registry's version that `source` refers to into a folder; return the version.

    The folder is created, and emptied of an earlier fetch. All users can read every file, since a server may
    run as another user. Raises BadRequest if the folder holds something else.
    """
    reference = parse(source)
    try:
        if not folder.exists():
            folder.mkdir(parents=True)
            folder.chmod(0o755)
        _claim(folder)
        registry = _open_registry(uri, folder / PARTS)
        version = registry.resolve(reference)
        files = registry.fetch(version)
        _empty(folder)
        link_or_copy = os.link if files.is_relative_to(folder / PARTS) else shutil.copyfile
        for path in sorted(files.rglob("*")):  # not the folder itself, which another user may own
            target = folder / path.relative_to(files)
            target.mkdir() if path.is_dir() else link_or_copy(path, target)
            target.chmod(0o755 if path.is_dir() else 0o644)
        shutil.rmtree(folder / PARTS)
        (folder / PARTS).mkdir()
    except OSError as error:
        raise RegistryError(f"{source} can't be put into {folder}: {error}") from error
    return version


def _claim(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    if names and PARTS not in names:
        other = names[0]
        raise BadRequest(f"{folder}: expected an empty folder or one of an earlier fetch, it holds {other}")
    (folder / PARTS).mkdir(exist_ok=True)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == PARTS:
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _open_registry(uri: str, parts: Path) -> Registry:
    """Open the registry; MLflow's with a temporary cache on the folder's own disk."""
    if uri.startswith(("http://", "https://")):
        from driftline.registry.cache import Cache
        from driftline.registry.mlflow.source import MlflowRegistry

        return MlflowRegistry(uri, Cache(parts))
    return Registry.open(uri)
