"""What a registry is: names, numbered versions, aliases that point at them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driftline.errors import BadRequest, DriftlineError, NotFound
from driftline.registry.files import Check
from driftline.rules import without_secrets

PRODUCTION = "production"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")
"""Valid names of models and aliases, which become folder names and parts of URLs."""

_VERSION_LIKE = re.compile(r"[vV]?[0-9]+")


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference to a version of a model: `flights`, `flights@champion` or `flights:3`.

    Without alias and version, the alias `production` if it is set, else the newest version.
    """

    name: str
    alias: str | None = None
    version: int | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read `NAME`, `NAME@ALIAS` or `NAME:VERSION`; BadRequest for anything else."""
        if "/" in text:
            raise BadRequest(
                f"{text}: expected a model's name, or the path of an .onnx file that is there; "
                "`driftline convert` makes one of other libraries' models"
            )
        name, at_sign, alias = text.partition("@")
        if at_sign:
            return cls(check_name(name), alias=check_name(alias, "alias"))
        name, colon, version = text.partition(":")
        return cls(check_name(name), version=parse_version(version) if colon else None)

    def __str__(self) -> str:
        if self.alias is not None:
            return f"{self.name}@{self.alias}"
        return self.name if self.version is None else f"{self.name}:{self.version}"


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable version of a model, as the registry knows it.

    `created` is in seconds since the epoch; `aliases` are those that point here now. `fingerprint` changes
    with the files of this version, for sources whose files can change. `tags` were set when it was
    registered; `lineage` is its origin, as far as the registry knows it, such as
    {"run_id": ..., "datasets": [{"name": ..., "digest": ...}]}.
    """

    name: str
    number: int
    created: float = 0.0
    aliases: tuple[str, ...] = ()
    fingerprint: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    lineage: Mapping[str, Any] = field(default_factory=dict, hash=False)


Targets = Mapping[Reference, Version | DriftlineError]
"""The current version of each reference, or the error of resolving it."""


def check_name(name: str, what: str = "model name") -> str:
    """Return `name` if it may name a model or an alias, as `NAME` defines; BadRequest if not."""
    if not NAME.fullmatch(name):
        raise BadRequest(
            f"{what} {name!r}: expected 1 to 200 letters, digits, '_', '-' or '.', "
            "not beginning with '.' or '-'"
        )
    return name


def check_alias(alias: str) -> str:
    """Return `alias` if it may be set: a name that can't be taken for a version number; BadRequest if not."""
    if _VERSION_LIKE.fullmatch(alias):
        raise BadRequest(
            f"alias {alias!r}: expected a word such as {PRODUCTION!r}, got what reads as a version"
        )
    return check_name(alias, "alias")


def parse_version(text: str) -> int:
    """Read a version number, 1 or more; BadRequest if it is not one."""
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0):
        raise BadRequest(f"version {text!r}: expected a whole number from 1")
    return int(text)


def accept(folder: Path) -> None:
    """Accept any folder."""


class Registry(ABC):
    """A store of models. `Registry.open(uri)` returns the right kind for a URI.

    Methods block on the disk or the network: call them in a thread.
    """

    uri: str
    interval = 0.5
    """Default seconds between two polls of this kind of registry."""

    @staticmethod
    def open(uri: str | Path, remember: bool = False) -> Registry:
        """Open the registry at `uri`: a folder (created by the first registration), or an MLflow tracking
        server's address, as http://host:5000.

        If a server is down, every method fails; with `remember`, its last responses are used instead.

        Raises BadRequest for a URI of an unknown scheme.
        """
        from driftline.registry.directory import DirectoryRegistry

        text = str(uri).removeprefix("file://")
        scheme, separator, _ = text.partition("://")
        if scheme in ("http", "https") and separator:
            from driftline.registry.mlflow.source import MlflowRegistry  # httpx takes a while to import

            return MlflowRegistry(text, remember=remember)
        if separator:
            raise BadRequest(
                f"registry {without_secrets(text)!r}: expected a folder or an http:// URL, "
                f"got the scheme {scheme!r}"
            )
        return DirectoryRegistry(Path(text))

    @abstractmethod
    def models(self) -> list[str]:
        """Return the names of all models that have a version, sorted."""

    @abstractmethod
    def versions(self, name: str) -> list[Version]:
        """Return all versions of a model, oldest first; NotFound if there is no such model."""

    @abstractmethod
    def aliases(self, name: str) -> dict[str, int]:
        """Return the version number of each alias of a model; empty if it has none."""

    @abstractmethod
    def register(self, files: Sequence[str | Path] | str | Path, name: str, check: Check = accept) -> Version:
        """Make a new version of `name` from files, one file or one folder; no reader ever sees half of it.

        If no file is called `model.onnx`, the one that ends in .onnx is renamed to it. `check` is called with
        the folder before it is visible; if it raises, there is no new version: `driftline register` passes
        driftline.engine.verify.verify, which loads it. Raises BadRequest if the files are no bundle,
        RegistryError if they can't be written.
        """

    def check_alias(self, alias: str) -> str:
        """Return `alias` if `promote` accepts it; BadRequest if not."""
        return check_alias(alias)

    @abstractmethod
    def promote(self, name: str, version: int, alias: str = PRODUCTION) -> None:
        """Point `alias` at a version; NotFound if there is no such version, RegistryError if it can't be
        written."""

    @abstractmethod
    def fetch(self, version: Version) -> Path:
        """Return the path of the version's files on this machine; NotFound if they are gone.

        It is a folder that holds `model.onnx` and its files, or, if the registry is a single .onnx file, that
        file itself.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"

    def ignored_settings(self, name: str) -> list[str]:
        """Return the settings for another server that driftline ignores but that would matter here."""
        return []

    def resolve(self, reference: Reference | str) -> Version:
        """Return the version that a reference resolves to now; Reference.parse reads a text.

        Raises NotFound, listing what exists, for an unknown model, version or alias.
        """
        return self._resolve(Reference.parse(reference) if isinstance(reference, str) else reference)

    def _resolve(self, reference: Reference) -> Version:
        # Aliases first: a version exists before an alias points at it, so a registration and promotion
        # between these two lines never looks like an alias of a missing version.
        aliases = self.aliases(reference.name)
        versions = {version.number: version for version in self.versions(reference.name)}
        alias = reference.alias or PRODUCTION
        number = reference.version
        if number is None:
            if reference.alias is not None and alias not in aliases:
                existing = ", ".join(sorted(aliases)) or "none"
                raise NotFound(f"model {reference.name!r} has no alias {alias!r}; it has: {existing}")
            number = aliases.get(alias, max(versions))
        if number not in versions:
            existing = ", ".join(map(str, sorted(versions)))
            if reference.version is None:
                raise NotFound(
                    f"model {reference.name!r}: alias {alias!r} points at version {number}, which is gone; "
                    f"there are: {existing}"
                )
            raise NotFound(f"model {reference.name!r} has no version {number}; it has: {existing}")
        return versions[number]

    def watch(self, references: Sequence[Reference], interval: float = 0.0) -> AsyncIterator[Targets]:
        """Follow references (all models if none), polling about every `interval` seconds (0: this kind's
        default): yields what they resolve to, at once and then whenever it changes.

        A reference that can't be resolved maps to its error. A registry that can't be read counts as
        unchanged, so the first Targets come once it can be read.
        """
        from driftline.registry.watcher import watch

        return watch(self, references, interval or self.interval)
