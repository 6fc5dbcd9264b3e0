"""One .onnx file, served in place: a model with a single version."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from driftline.errors import BadRequest, NotFound, RegistryError
from driftline.registry.files import Check
from driftline.registry.source import PRODUCTION, Registry, Version, accept

_INVALID_IN_NAME = re.compile(r"^[.\-]|[^A-Za-z0-9_.\-]")


class FileRegistry(Registry):
    """The model `NAME` in `path/NAME.onnx`, whose version 1 is the current file.

    Characters not allowed in a model's name become `_`. A rewritten file is the same
    version with another fingerprint.
    """

    def __init__(self, path: Path) -> None:
        self.uri = str(path)
        self.path = path
        self.name = _INVALID_IN_NAME.sub("_", path.stem)[:200]

    def models(self) -> list[str]:
        """Return the file's only model; RegistryError if the file can't be read."""
        return [version.name for version in self.versions(self.name)]

    def versions(self, name: str) -> list[Version]:
        """Return version 1; NotFound for another model's name, RegistryError if the file can't be read."""
        if name != self.name:
            raise NotFound(f"no model {name!r} in {self.uri}; there is: {self.name}")
        try:
            status = self.path.stat()
        except OSError as error:
            raise RegistryError(f"model file {self.uri} can't be read: {error.strerror}") from error
        return [Version(name, 1, created=status.st_mtime, fingerprint=fingerprint(status))]

    def aliases(self, name: str) -> dict[str, int]:
        """Return no aliases: a file has none."""
        return {}

    def register(self, files: Sequence[str | Path] | str | Path, name: str, check: Check = accept) -> Version:
        """Raise BadRequest: a single file has no place for a second version."""
        raise BadRequest(f"can't register {name!r} in {self.uri}: expected a folder, got a single file")

    def promote(self, name: str, version: int, alias: str = PRODUCTION) -> None:
        """Raise BadRequest: a single file has no place for aliases."""
        raise BadRequest(f"can't promote {name!r} in {self.uri}: expected a folder, got a single file")

    def fetch(self, version: Version) -> Path:
        """Return the path of the file itself; NotFound if it is gone."""
        if not self.path.is_file():
            raise NotFound(f"model file {self.uri} is gone")
        return self.path


def fingerprint(status: os.stat_result) -> str:
    """Return a text that changes when a path is rewritten or replaced."""
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
