"""Artifacts through MLflow's proxy: list, download, upload."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from driftline.errors import RegistryError
from driftline.registry.cache import write
from driftline.registry.mlflow.tracking import Tracking

log = logging.getLogger("driftline.registry")

API = "/api/2.0/mlflow-artifacts/artifacts"
ATTEMPTS = 4
PROGRESS_SECONDS = 10.0
MAX_FILES = 10_000
MAX_DEPTH = 16

_NAME = re.compile(r"[^/\\\x00-\x1f]{1,255}")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file below the root: its path, with slashes, and its size in bytes, if the server knows it."""

    path: str
    size: int | None


class Artifacts:
    """The files below one URI such as `mlflow-artifacts:/0/models/m-1/artifacts`.

    Raises RegistryError for a URI that the tracking server does not serve itself.
    """

    def __init__(self, tracking: Tracking, uri: str) -> None:
        parts = urlsplit(uri)
        if parts.scheme != "mlflow-artifacts" or not parts.path.strip("/"):
            raise RegistryError(
                f"registry {tracking.uri}: expected artifacts that the server itself hands out, "
                f"mlflow-artifacts:/..., got {uri}; `mlflow server --artifacts-destination` makes it"
            )
        self._tracking = tracking
        self._root = parts.path.strip("/")

    def listing(self) -> list[Artifact]:
        """Return all files; RegistryError for a name that would leave the folder, or too many files."""
        artifacts = []
        for artifact in self._walk("", MAX_DEPTH):
            artifacts.append(artifact)
            if len(artifacts) > MAX_FILES:
                raise RegistryError(f"artifacts {self._root}: expected at most {MAX_FILES} files, got more")
        return sorted(artifacts, key=lambda artifact: artifact.path)

    def _walk(self, folder: str, depth: int) -> Iterator[Artifact]:
        path = f"{self._root}/{folder}".rstrip("/")
        response = self._tracking.send("GET", API, params={"path": path})
        try:
            entries = [
                (
                    str(entry["path"]),
                    bool(entry.get("is_dir")),
                    size if type(size := entry.get("file_size")) is int else None,
                )
                for entry in response.json().get("files", [])
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RegistryError(f"artifacts {path}: expected a list of files, got something else") from error
        for name, is_folder, size in entries:
            if not _NAME.fullmatch(name) or name in (".", "..") or depth == 0:
                raise RegistryError(f"artifacts {path}: expected names of files and folders, got {name!r}")
            if is_folder:
                yield from self._walk(f"{folder}{name}/", depth - 1)
            else:
                yield Artifact(f"{folder}{name}", size)

    def download(self, artifact: Artifact, folder: Path) -> tuple[Path, str]:
        """Fetch a file to `folder`, under a unique name; return its path and its SHA-256.

        An earlier attempt is resumed if the server says that the file is unchanged. Raises Unreachable if it
        is interrupted repeatedly, RegistryError if it has another size.
        """
        from driftline.registry.mlflow.http import httpx

        part = folder / hashlib.sha256(artifact.path.encode()).hexdigest()
        for attempt in range(ATTEMPTS):
            try:
                self._receive(artifact, part)
                break
            except httpx.HTTPError as error:
                if attempt == ATTEMPTS - 1:
                    raise self._tracking.unreachable(error) from error
                log.info("%s was interrupted: %s; resuming", artifact.path, type(error).__name__)
                time.sleep(0.1 * 2**attempt)
        size = part.stat().st_size
        if artifact.size not in (size, None):
            part.unlink()
            raise RegistryError(f"artifact {artifact.path}: expected {artifact.size} bytes, got {size}")
        with part.open("rb") as file:
            return part, hashlib.file_digest(file, "sha256").hexdigest()

    def _receive(self, artifact: Artifact, part: Path) -> None:
        """Append to `part` what is missing of a file, or write all of it."""
        etag_file = part.with_suffix(".etag")
        offset, headers = 0, {}
        with suppress(FileNotFoundError):
            offset = part.stat().st_size
            headers = {"range": f"bytes={offset}-", "if-range": etag_file.read_text("utf-8")}
        with self._tracking.stream(self._path(artifact.path), headers) as response:
            if response.status_code == 416:  # it is complete
                return
            if not response.is_success:
                response.read()
            self._tracking.check(response)
            is_partial = response.status_code == 206
            if is_partial and not response.headers.get("content-range", "").startswith(f"bytes {offset}-"):
                etag_file.unlink()
                raise RegistryError(
                    f"artifact {artifact.path}: expected what follows byte {offset}, got other bytes"
                )
            etag = response.headers.get("etag", "")
            if etag.startswith('"'):  # only a strong one identifies the exact bytes
                write(etag_file, etag)
            elif not is_partial:
                etag_file.unlink(missing_ok=True)
            with part.open("ab" if is_partial else "wb") as file:
                last_logged = time.monotonic()
                for chunk in response.iter_bytes():
                    file.write(chunk)
                    if time.monotonic() - last_logged >= PROGRESS_SECONDS:
                        last_logged = time.monotonic()
                        log.info(
                            "%s: %d bytes of %s have come", artifact.path, file.tell(), artifact.size or "?"
                        )
                    if artifact.size is not None and file.tell() > artifact.size:
                        return

    def upload(self, file: Path, path: str) -> None:
        """Upload a file to a path; raises as Tracking does."""
        with file.open("rb") as content:
            # Without a length httpx would send chunks, which not every proxy in front of MLflow accepts.
            headers = {"content-length": str(file.stat().st_size)}
            self._tracking.upload(self._path(path), content, headers)

    def _path(self, path: str) -> str:
        return f"{API}/{quote(f'{self._root}/{path}')}"
