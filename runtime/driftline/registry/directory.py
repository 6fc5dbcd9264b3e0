"""A registry in a folder, laid out like Triton's model repository.

    <root>/<name>/<version>/model.onnx ...    version = 1, 2, 3 ...
    <root>/<name>/aliases.json                {"production": 3}

Every change renames something complete and synced to disk, so readers need no lock and a crash at any point
leaves the previous state. Writers lock folders with flock, which works among the processes of one machine: on
a network file system, register and promote from one machine at a time.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from driftline.errors import NotFound, RegistryError
from driftline.files import read_small
from driftline.registry.file import fingerprint
from driftline.registry.files import MODEL, Check, checked, gather, locked, paths_of
from driftline.registry.source import (
    NAME,
    PRODUCTION,
    Reference,
    Registry,
    Version,
    accept,
    check_name,
)

_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_IGNORED_SETTINGS = re.compile(
    r"^\s*(version_policy|instance_group|dynamic_batching|sequence_batching|optimization|model_warmup)\b",
    re.MULTILINE,
)
"""Settings of Triton's `config.pbtxt` about versions, devices and batches."""
_UNFINISHED = ".new-"
_TRIES = 10
_EXISTS = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


class DirectoryRegistry(Registry):
    """The models in a folder; a folder made for Triton works unchanged.

    As in Triton, a version is a folder whose name is a number without a leading zero; anything else beside
    the versions (`config.pbtxt`, labels) is ignored. Every method raises RegistryError, with the
    path and the reason, if the disk can't be read or written.
    """

    def __init__(self, root: Path) -> None:
        self.uri = str(root)
        self.root = root

    def models(self) -> list[str]:
        """Return the names of all models that have a version, sorted."""
        try:
            with os.scandir(self.root) as entries:
                names = sorted(
                    entry.name for entry in entries if NAME.fullmatch(entry.name) and entry.is_dir()
                )
        except FileNotFoundError as error:
            raise RegistryError(
                f"registry {self.uri}: no such folder; "
                f"`driftline register FILES --name NAME --registry {self.uri}` makes it"
            ) from error
        except OSError as error:
            raise RegistryError(f"registry {self.uri} can't be read: {error.strerror}") from error
        return [name for name in names if self._may_have_versions(name)]

    def versions(self, name: str) -> list[Version]:
        """Return all versions of a model, oldest first; NotFound if there is no such model."""
        folder = self.root / check_name(name)
        with _explained(f"model {name!r} can't be read"):
            numbers = _numbers(folder)
            aliases = self.aliases(name)
            versions = []
            for number in numbers:
                # A version that is removed just now is skipped.
                with suppress(FileNotFoundError):
                    versions.append(_describe(folder, number, aliases))
        if not versions:
            known = ", ".join(self.models()) or "none yet, `driftline register` makes one"
            raise NotFound(f"no model {name!r} in {self.uri}; there are: {known}")
        return versions

    def aliases(self, name: str) -> dict[str, int]:
        """Return the version number of each alias of a model; empty if it has none."""
        path = self.root / check_name(name) / "aliases.json"
        with _explained(f"aliases of {name!r} can't be read"):
            wrong = f'{path}: expected an object of alias and version number, as {{"production": 3}}'
            try:
                aliases = json.loads(read_small(path))
            except (FileNotFoundError, NotADirectoryError):
                return {}
            except (ValueError, RecursionError) as error:  # nesting may be too deep for Python
                raise RegistryError(f"{wrong}: {error}") from error
        if not isinstance(aliases, dict) or not all(type(n) is int and n > 0 for n in aliases.values()):
            raise RegistryError(wrong)
        return aliases

    def register(self, files: Sequence[str | Path] | str | Path, name: str, check: Check = accept) -> Version:
        """Copy files, or all contents of one folder, to a new version: one more than the newest.

        If no file is called `model.onnx`, the one that ends in .onnx is renamed to it; others keep their
        names. Concurrent registrations in other processes get different versions. Raises BadRequest for a
        missing file, a link inside the folder, or anything but one model.
        """
        folder = self.root / check_name(name)
        with _explained(f"can't register {name!r} in {self.uri}"):
            files = paths_of(files)
            bundle = gather(files)
            # Skip the aliases' numbers, too: an alias that outlived its version must not point at a new one.
            free = max([*_numbers(folder), *self.aliases(name).values()], default=0) + 1
            with _unfinished(folder) as new:
                _copy(bundle, new)
                checked(check, new, files, bundle)
                number = _publish(new, folder, free)
            return _describe(folder, number, {})

    def promote(self, name: str, version: int, alias: str = PRODUCTION) -> None:
        """Point `alias` at a version; NotFound if there is no such version."""
        self.check_alias(alias)
        self.resolve(Reference(name, version=version))
        folder = self.root / name
        with _explained(f"can't promote {name!r} in {self.uri}"), locked(folder):
            aliases = self.aliases(name) | {alias: version}
            new = folder / f"{_UNFINISHED}aliases.json"
            new.write_text(json.dumps(aliases, indent=2, sort_keys=True) + "\n")
            _sync(new)
            new.replace(folder / "aliases.json")
            _sync(folder)

    def fetch(self, version: Version) -> Path:
        """Return the version's folder; NotFound if it is gone."""
        folder = self.root / version.name / str(version.number)
        if not folder.is_dir():
            raise NotFound(f"version {version.number} of model {version.name!r} is gone from {self.uri}")
        return folder

    def ignored_settings(self, name: str) -> list[str]:
        """Return the settings of `config.pbtxt` that are ignored; none if it can't be read."""
        with suppress(OSError, ValueError):
            text = read_small(self.root / name / "config.pbtxt").decode(errors="replace")
            return list(dict.fromkeys(_IGNORED_SETTINGS.findall(text)))
        return []

    def _may_have_versions(self, name: str) -> bool:
        try:
            return bool(_numbers(self.root / name))
        except OSError:
            # Listed nevertheless: resolving it reports what is wrong, and the others stay readable.
            return True


def _numbers(folder: Path) -> list[int]:
    """Return the version numbers in a model's folder, ascending; none if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                int(entry.name) for entry in entries if _VERSION.fullmatch(entry.name) and entry.is_dir()
            )
    except (FileNotFoundError, NotADirectoryError):
        return []


def _describe(folder: Path, number: int, aliases: Mapping[str, int]) -> Version:
    path = folder / str(number)
    created = path.stat().st_mtime
    try:
        # Registered versions never change, but a model copied by hand may still be growing.
        state = fingerprint((path / MODEL).stat())
    except FileNotFoundError:
        state = ""
    pointing = tuple(sorted(alias for alias, target in aliases.items() if target == number))
    return Version(folder.name, number, created, pointing, state)


def _make(folder: Path) -> None:
    """Create a folder and its parents."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside the versions, locked while in use. Unless it has been renamed, remove it, and
    the parents that were created for it."""
    made = [above for above in (folder, folder.parent) if not above.exists()]
    with ExitStack() as stack:
        stack.callback(_remove_empty, made)
        new = folder / f"{_UNFINISHED}{secrets.token_hex(8)}"
        for tries_left in reversed(range(_TRIES)):
            try:
                _make(folder)
                # Under the model's lock, so that nobody sweeps a folder between its creation and its locking.
                with locked(folder):
                    _sweep(folder)
                    new.mkdir()
                    stack.callback(shutil.rmtree, new, ignore_errors=True)
                    stack.enter_context(locked(new))
                break
            except FileNotFoundError:  # another process may just have removed what it had created
                if not tries_left:
                    raise
        yield new


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _sweep(folder: Path) -> None:
    """Remove unfinished folders of dead processes: a living one holds the lock of its folder."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        # Whatever is in use, another user's or not a folder stays.
        with suppress(OSError), locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(left, ignore_errors=True)


def _copy(bundle: Mapping[Path, Path], new: Path) -> None:
    for place, source in bundle.items():
        target = new / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        _sync(target)
    for at, _, _ in os.walk(new):
        _sync(Path(at))


def _publish(new: Path, folder: Path, number: int) -> int:
    """Rename a finished folder to the first free number from `number` on; return it."""
    while True:
        try:
            new.rename(folder / str(number))
        except OSError as error:
            if error.errno not in _EXISTS:
                raise
            number += 1
        else:
            _sync(folder)
            return number


def _sync(path: Path) -> None:
    """Wait until a file's contents, or a folder's entries, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Raise an OSError as a RegistryError that names the operation."""
    try:
        yield
    except OSError as error:
        raise RegistryError(f"{what}: {error}") from error
