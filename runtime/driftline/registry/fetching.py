"""A version's files put where a server expects them: what runs before it, as KServe's storage initializer."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from driftline.errors import BadRequest, RegistryError
from driftline.registry.source import Reference, Registry, Version, check_name, parse_version

SCHEME = "models:/"
PARTS = ".driftline"
"""Says that a folder is ours to empty. What is on its way is in it: an interrupted download goes on."""


def parse(source: str) -> Reference:
    """Read `models:/NAME`, `models:/NAME/VERSION` or `models:/NAME@ALIAS`, as MLflow writes them, or a
    reference in driftline's own words; BadRequest for anything else."""
    if not source.startswith(SCHEME):
        return Reference.parse(source)
    name, slash, version = source.removeprefix(SCHEME).partition("/")
    if slash:
        return Reference(check_name(name), version=parse_version(version))
    if name.startswith("m-"):
        raise BadRequest(f"{source}: expected a registered model, came a logged one: register it first")
    return Reference.parse(name)


def fetch(uri: str, source: str, folder: Path) -> Version:
    """Put the files of the version that `source` stands for in a registry into a folder; that version.

    The folder is made; what an earlier fetch has put there goes. Every file can be read by anybody, since a
    server may run as another user. Raises BadRequest if the folder holds something else.
    """
    reference = parse(source)
    try:
        if not folder.exists():
            folder.mkdir(parents=True)
            folder.chmod(0o755)
        _claim(folder)
        registry = _opened(uri, folder / PARTS)
        version = registry.resolve(reference)
        files = registry.fetch(version)
        _empty(folder)
        place = os.link if files.is_relative_to(folder / PARTS) else shutil.copyfile
        for path in sorted(files.rglob("*")):  # but not what the folder itself is: others may own it
            target = folder / path.relative_to(files)
            target.mkdir() if path.is_dir() else place(path, target)
            target.chmod(0o755 if path.is_dir() else 0o644)
        shutil.rmtree(folder / PARTS)
        (folder / PARTS).mkdir()
    except OSError as error:
        raise RegistryError(f"{source} can't be put into {folder}: {error}") from error
    return version


def _claim(folder: Path) -> None:
    held = sorted(path.name for path in folder.iterdir())
    if held and PARTS not in held:
        raise BadRequest(f"{folder}: expected an empty folder or one of an earlier fetch, it holds {held[0]}")
    (folder / PARTS).mkdir(exist_ok=True)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == PARTS:
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _opened(uri: str, parts: Path) -> Registry:
    """The registry; a tracking server's with a cache that is on the folder's own disk and goes in the end."""
    if uri.startswith(("http://", "https://")):
        from driftline.registry.cache import Cache
        from driftline.registry.mlflow.source import MlflowRegistry

        return MlflowRegistry(uri, Cache(parts))
    return Registry.open(uri)
