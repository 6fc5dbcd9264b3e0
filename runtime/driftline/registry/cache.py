"""Versions that came over a network, on this machine: content-addressed, of a limited size.

    <root>/trees/<digest>/...       the files of a version, under the digest of what is in them
    <root>/sources/<key>.json       which tree a source gave, and the digest of each file
    <root>/filling/<key>/...        what is on its way; one process at a time, kept if it breaks off

A tree is renamed into place when it is complete, and checked against its digests each time that it is asked
for, so a crash, a full disk or a flipped bit costs a download and nothing else.
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
"""After so long nobody comes back for half a download."""

Digests = Mapping[str, str]
"""The SHA-256 of each file of a tree, in hexadecimal, by its path with slashes."""


class Cache:
    """Trees of files by the key of where they come from.

    root   its folder, made when it is needed
    limit  bytes that trees may have; above that those go first that have not been asked for the longest
    """

    def __init__(self, root: Path, limit: int = DEFAULT_LIMIT) -> None:
        self.root = root
        self.limit = limit

    @classmethod
    def default(cls) -> Cache:
        """The cache that DRIFTLINE_CACHE and DRIFTLINE_CACHE_BYTES say, else 10 GiB in the user's own."""
        home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        said = os.environ.get("DRIFTLINE_CACHE") or f"{home}/driftline"
        try:
            root = Path(said).expanduser()
        except RuntimeError:  # a container's user may be a number and nothing more
            raise ConfigError(
                f"DRIFTLINE_CACHE = {said!r}: expected a folder; there is no such home"
            ) from None
        limit = os.environ.get("DRIFTLINE_CACHE_BYTES") or str(DEFAULT_LIMIT)
        if not (limit.isascii() and limit.isdigit()):
            raise ConfigError(f"DRIFTLINE_CACHE_BYTES = {limit!r}: expected a whole number from 0")
        return cls(root, int(limit))

    def find(self, key: str) -> Path | None:
        """The tree that a source gave, checked to its last bit; None if it is not here or no longer whole."""
        try:
            known = json.loads(self._source(key).read_bytes())
            tree, digests = self.root / "trees" / str(known["tree"]), dict(known["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not _whole(tree, digests):
            if tree.exists():
                log.warning("%s: what is in it has changed; it is fetched anew", tree)
                self._remove(tree)
            return None
        with suppress(OSError):
            os.utime(tree)
        return tree

    @contextmanager
    def filling(self, key: str) -> Iterator[Path]:
        """A folder to put a source's files in, for one process at a time.

        What an earlier attempt has left is still there. `keep` empties it; otherwise it stays for the next.
        """
        folder = self.root / "filling" / key
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder) as descriptor:
                # Whoever held the lock before may have moved the folder away.
                if folder.is_dir() and os.path.samestat(os.fstat(descriptor), folder.stat()):
                    yield folder
                    return

    def keep(self, key: str, files: Path, digests: Digests) -> Path:
        """Move a complete tree to its place, within the lock of `filling`; where it is now."""
        digest = digest_of(digests)
        tree = self.root / "trees" / digest
        tree.parent.mkdir(parents=True, exist_ok=True)
        if not _whole(tree, digests):  # else the same has come from elsewhere
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
        """Remove what has not been asked for the longest while all is too large; never the newest."""
        long_ago = time.time() - ABANDONED_SECONDS
        for left in (self.root / "filling").iterdir():
            if _last_use(left) < long_ago:
                shutil.rmtree(left, ignore_errors=True)
        sizes = {tree: _size(tree) for tree in (self.root / "trees").iterdir()}
        total = sum(sizes.values())
        for tree in sorted(set(sizes) - {newest}, key=_last_use):
            if total <= self.limit:
                return
            log.info("%s leaves the cache: %d bytes, of %d at most", tree, total, self.limit)
            self._remove(tree)
            total -= sizes[tree]
        if total > self.limit:
            log.warning("the cache %s: one version has %d bytes, of %d at most", self.root, total, self.limit)

    def _remove(self, tree: Path) -> None:
        """Take a tree away at once, and then its files."""
        left = self.root / "filling" / f"old-{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):
            left.parent.mkdir(parents=True, exist_ok=True)
            tree.rename(left)
            shutil.rmtree(left, ignore_errors=True)


def digest_of(digests: Digests) -> str:
    """One digest for all of a tree: of the paths and digests of its files."""
    return hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()


def digests_of(folder: Path) -> dict[str, str]:
    """The digests of all files in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def write(path: Path, text: str) -> None:
    """Replace a file by rename, so that nobody reads half of it."""
    new = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def _digest(path: Path) -> str:
    """A file's SHA-256; OSError if it is none, or a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _whole(tree: Path, digests: Digests) -> bool:
    """Whether all files of a tree are there, and what they were."""
    try:
        return all(_digest(tree / path) == digest for path, digest in digests.items())
    except OSError:
        return False


def _size(tree: Path) -> int:
    total = 0
    for at, _, names in os.walk(tree):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(at, name)).st_size
    return total


def _last_use(tree: Path) -> float:
    try:
        return tree.stat().st_mtime
    except FileNotFoundError:
        return 0.0
