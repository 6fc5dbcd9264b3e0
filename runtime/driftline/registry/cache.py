"""A local cache of versions fetched over a network: content-addressed and limited in size.

    <root>/trees/<digest>/...       the files of a version, under the digest of their contents
    <root>/sources/<key>.json       the tree that a source provided, and the digest of each file
    <root>/filling/<key>/...        downloads in progress; by one process at a time, kept if interrupted

A complete tree is renamed into place and verified against its digests on each use, so a crash, a full disk or
a flipped bit costs a download and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from driftline.errors import ConfigError
from driftline.registry.files import locked

log = logging.getLogger("driftline.registry")

DEFAULT_LIMIT = 10 * 2**30
ABANDONED_SECONDS = 7 * 86_400
"""Age at which a partial download is deleted."""

Digests = Mapping[str, str]
"""The SHA-256 of each file of a tree, in hexadecimal, by its path with slashes."""


class Cache:
    """Trees of files by the key of their source.

    root   its folder, created when needed
    limit  most bytes of all trees; above that, the least recently used are removed
    """

    def __init__(self, root: Path, limit: int = DEFAULT_LIMIT) -> None:
        self.root = root
        self.limit = limit

    @classmethod
    def default(cls) -> Cache:
        """Return the cache of DRIFTLINE_CACHE and DRIFTLINE_CACHE_BYTES, else 10 GiB in XDG_CACHE_HOME."""
        cache_home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        folder = os.environ.get("DRIFTLINE_CACHE") or f"{cache_home}/driftline"
        try:
            root = Path(folder).expanduser()
        except RuntimeError:  # a container's user may have no home
            raise ConfigError(
                f"DRIFTLINE_CACHE = {folder!r}: expected a folder; there is no such home"
            ) from None
        limit = os.environ.get("DRIFTLINE_CACHE_BYTES") or str(DEFAULT_LIMIT)
        if not (limit.isascii() and limit.isdigit()):
            raise ConfigError(f"DRIFTLINE_CACHE_BYTES = {limit!r}: expected a whole number from 0")
        return cls(root, int(limit))

    def find(self, key: str) -> Path | None:
        """Return a source's tree after verifying its digests; None if it is missing or damaged."""
        try:
            source = json.loads(self._source(key).read_bytes())
            tree, digests = self.root / "trees" / str(source["tree"]), dict(source["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not _is_intact(tree, digests):
            if tree.exists():
                log.warning("%s: its contents have changed; it is fetched again", tree)
                self._remove(tree)
            return None
        with suppress(OSError):
            os.utime(tree)
        return tree

    @contextmanager
    def filling(self, key: str) -> Iterator[Path]:
        """Yield a folder for a source's files, to one process at a time.

        Files of an earlier attempt are still in it, and stay for the next one unless `keep` removes them.
        """
        folder = self.root / "filling" / key
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder) as descriptor:
                # The previous holder of the lock may have moved the folder away.
                if folder.is_dir() and os.path.samestat(os.fstat(descriptor), folder.stat()):
                    yield folder
                    return

    def keep(self, key: str, files: Path, digests: Digests) -> Path:
        """Move a complete tree into place, inside the lock of `filling`; return its path."""
        digest = digest_of(digests)
        tree = self.root / "trees" / digest
        tree.parent.mkdir(parents=True, exist_ok=True)
        if not _is_intact(tree, digests):  # otherwise another source provided the same tree
            self._remove(tree)
            files.rename(tree)
        os.utime(tree)
        source = self._source(key)
        source.parent.mkdir(parents=True, exist_ok=True)
        write(source, json.dumps({"tree": digest, "files": dict(digests)}))
        shutil.rmtree(self.root / "filling" / key, ignore_errors=True)
        self._evict(tree)
        return tree

    def _source(self, key: str) -> Path:
        return self.root / "sources" / f"{key}.json"

    def _evict(self, newest: Path) -> None:
        """Remove the least recently used trees while the cache is too large; never the newest."""
        oldest_kept = time.time() - ABANDONED_SECONDS
        for download in (self.root / "filling").iterdir():
            if _last_use(download) < oldest_kept:
                shutil.rmtree(download, ignore_errors=True)
        sizes = {tree: _size(tree) for tree in (self.root / "trees").iterdir()}
        total = sum(sizes.values())
        for tree in sorted(set(sizes) - {newest}, key=_last_use):
            if total <= self.limit:
                return
            log.info("%s is removed from the cache: %d bytes, of %d at most", tree, total, self.limit)
            self._remove(tree)
            total -= sizes[tree]
        if total > self.limit:
            log.warning("the cache %s: one version has %d bytes, of %d at most", self.root, total, self.limit)

    def _remove(self, tree: Path) -> None:
        """Remove a tree: atomically by a rename, then delete its files."""
        trash = self.root / "filling" / f"old-{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):
            trash.parent.mkdir(parents=True, exist_ok=True)
            tree.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)


def digest_of(digests: Digests) -> str:
    """Return one digest of a tree, over the paths and digests of its files."""
    return hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()


def digests_of(folder: Path) -> dict[str, str]:
    """Return the digests of all files in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def write(path: Path, text: str) -> None:
    """Replace a file by rename, so that no reader sees half of it."""
    new = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def _digest(path: Path) -> str:
    """Return a file's SHA-256; OSError if it is a link or not a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_intact(tree: Path, digests: Digests) -> bool:
    """Whether all files of a tree exist and are unchanged."""
    try:
        return all(_digest(tree / path) == digest for path, digest in digests.items())
    except OSError:
        return False


def _size(tree: Path) -> int:
    total = 0
    for folder, _, names in os.walk(tree):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _last_use(tree: Path) -> float:
    try:
        return tree.stat().st_mtime
    except FileNotFoundError:
        return 0.0
