"""One folder with a model's files, served in place: what KServe mounts at /mnt/models."""

from __future__ import annotations

import hashlib
from pathlib import Path

from driftline.errors import NotFound, RegistryError
from driftline.registry.directory import DirectoryRegistry
from driftline.registry.file import FileRegistry, fingerprint
from driftline.registry.source import Registry, Version, check_name


def mounted(path: Path, name: str) -> Registry:
    """Open a folder mounted for one model: the model's own files, or a registry that has it."""
    has_model = any(path.glob("*.onnx")) or (path / "MLmodel").exists()
    return DirectoryRegistry(path) if not has_model and (path / name).is_dir() else FolderRegistry(path, name)


class FolderRegistry(FileRegistry):
    """The model `name`, whose version 1 is the current content of a folder.

    If files are rewritten, added or removed, it is the same version with another fingerprint.
    """

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path)
        self.name = check_name(name)

    def versions(self, name: str) -> list[Version]:
        """Return version 1; NotFound for another model's name, RegistryError if the folder can't be read."""
        if name != self.name:
            raise NotFound(f"no model {name!r} in {self.uri}; there is: {self.name}")
        files, newest = hashlib.sha256(), 0.0
        try:
            for path in sorted(self.path.iterdir()):
                status = path.stat()
                files.update(f"{path.name} {fingerprint(status)}\n".encode())
                newest = max(newest, status.st_mtime)
        except OSError as error:
            raise RegistryError(f"model folder {self.uri} can't be read: {error.strerror}") from error
        return [Version(name, 1, created=newest, fingerprint=files.hexdigest())]

    def fetch(self, version: Version) -> Path:
        """Return the path of the folder itself; NotFound if it is gone."""
        if not self.path.is_dir():
            raise NotFound(f"model folder {self.uri} is gone")
        return self.path
