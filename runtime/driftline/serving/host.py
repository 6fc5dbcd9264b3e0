"""Keeps the versions in memory in step with the registry.

The life of a version: a reference resolves to it (`_sync`) -> `_load` fetches, verifies, loads and warms it
beside the old one -> `_flip` -> when no reference resolves to it any more, `_retire` waits for its last
request and closes it. If anything before the flip fails, the old version stays in service.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from driftline.backoff import backoff
from driftline.config import ServerFile
from driftline.engine.difference import signature_changes
from driftline.errors import DriftlineError, ModelError, NotFound
from driftline.registry.source import Reference, Registry, Version, check_name
from driftline.serving.base_host import BaseHost, Entry
from driftline.serving.monitoring.notifier import Notifier
from driftline.serving.payloads.log import PayloadLog
from driftline.serving.served import Served

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("driftline.host")


class Host(BaseHost):
    """Holds the versions that references resolve to, and follows changes in the registry.

    references  which models to serve; the first one of a model is its default; all models if empty
    file        the server's settings for models
    interval    seconds between two checks of the registry
    notifier    is notified of windows and alarms; none if None
    payloads    logs requests and responses; None if that is off
    exit_on_error  whether a model that can't be loaded ends the startup; otherwise it is retried while the
                   others serve
    """

    def __init__(
        self,
        registry: Registry,
        references: Sequence[Reference] = (),
        file: ServerFile | None = None,
        interval: float = 0.5,
        notifier: Notifier | None = None,
        payloads: PayloadLog | None = None,
        exit_on_error: bool = True,
    ) -> None:
        super().__init__(file or ServerFile(), notifier or Notifier(), payloads)
        self.registry = registry
        self._exit_on_error = exit_on_error
        self._references = list(references)
        self._all_models = not references
        self.default_name = references[0].name if references else None
        self._unloaded: set[str] = set()
        self._interval = interval
        self._follow_task: asyncio.Task[None] | None = None

    # -- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the referenced versions, then follow the registry.

        Raises the error of a model that can't be loaded, if `exit_on_error` is set.
        """
        await self.refresh(strict=self._exit_on_error)
        self.ready = True
        self._start_watching()
        self._start_following()

    def announce(self) -> None:
        """Log that the server is ready, and likely mistakes in the settings."""
        log.info("ready", extra={"models": sorted(self.entries)})
        if not any(self.served()):
            log.warning("%s: no model is served so far", self.registry.uri)
        for name in self._file.models.keys() - self.entries.keys():
            log.warning("%s: models.%s: no model of this name is served so far", self._file.path, name)

    async def refresh(self, strict: bool = False) -> None:
        """Synchronise every model with the registry; `strict`: raise the first failure."""
        names = {reference.name for reference in self._references}
        try:
            if self._all_models:
                names = set(await self.read(self.registry.models))
        except Exception as error:
            if strict:
                raise
            log.warning("%s; what is loaded serves on", str(error))
        outcomes = await asyncio.gather(*map(self._sync, sorted(names)), return_exceptions=True)
        for outcome in outcomes:
            if strict and outcome is not None:
                raise outcome

    def sync_soon(self, name: str) -> None:
        """Synchronise one model with the registry, in the background."""
        self._spawn(self._sync(name))

    async def load(self, name: str) -> None:
        """Serve a model from now on, in the version that the registry names.

        Raises NotFound if there is no such model. Other failures are raised, and retried later.
        """
        if not any(reference.name == name for reference in self._references):
            reference = Reference(check_name(name))
            await self.read(self.registry.resolve, reference)
            if not self._all_models:
                self._references.append(reference)
                self._start_following()
        self._unloaded.discard(name)
        await self._sync(name)

    async def unload(self, name: str) -> None:
        """Stop serving a model until it is loaded again; NotFound if it was never served."""
        entry = self.entries.get(name)
        if entry is None:
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        self._unloaded.add(name)
        async with entry.lock:
            if name in self._unloaded:
                self._flip(entry, {}, None)
                self._forget_failures(entry)
                log.info("%s is unloaded", name, extra={"model": name})

    # -- following --------------------------------------------------------------------------------

    def _start_following(self) -> None:
        """Follow the current references; called again when one is added."""
        if self._follow_task is not None:
            self._follow_task.cancel()
        self._follow_task = self._spawn(self._follow_registry())

    async def _follow_registry(self) -> None:
        """Synchronise models whenever the registry changes; none delays another."""
        attempts = 0
        while True:
            try:
                async for targets in self.registry.watch(tuple(self._references), self._interval):
                    attempts = 0
                    for name in {reference.name for reference in targets}:
                        self._spawn(self._sync(name))
            except Exception:
                log.exception("the registry can't be followed; what is loaded serves on")
            attempts += 1
            await asyncio.sleep(backoff(attempts))

    async def _sync(self, name: str) -> None:
        """Synchronise a model with the registry; one call at a time, so that the last one decides.

        A failure is raised after it is recorded and, unless it ends the startup, a retry is scheduled: files
        may still be in transit.
        """
        entry = self.entries.setdefault(name, Entry(name))
        async with entry.lock:
            if name in self._unloaded:
                return
            references = [reference for reference in self._references if reference.name == name]
            references = references or [Reference(name)]
            resolved, failures, errors = await self._resolve(entry, references)
            self._flip(entry, resolved, resolved.get(references[0]))
            removed = self._all_models and not resolved and errors and isinstance(errors[0], NotFound)
            if not errors or removed:  # removed from the registry before it could serve: no failure
                self._forget_failures(entry)
                return
            if failures.keys() != entry.failures.keys():
                entry.attempts = 0
            entry.failures = failures
            if self._retries:  # otherwise it ends the startup, which logs it
                self._schedule_retry(entry, str(errors[0]))
            raise errors.pop()  # a local variable would be a reference cycle with the traceback's frames

    async def _resolve(
        self, entry: Entry, references: Sequence[Reference]
    ) -> tuple[dict[Reference, Served], dict[int, str], list[Exception]]:
        """Load the versions that references resolve to, unless they are loaded.

        Returns the version of each reference, which is the previous one if this fails; why versions can't be
        loaded, by number; and a list with the first error, if any.
        """
        resolved = dict(entry.resolved)
        failures: dict[int, str] = {}
        errors: list[Exception] = []
        for reference in references:
            try:
                version = await self.read(self.registry.resolve, reference)
            except Exception as error:
                errors.append(error)
                continue
            loaded = next((served for served in resolved.values() if served.has_same_files(version)), None)
            try:
                resolved[reference] = loaded or await self._load(entry, version)
                resolved[reference].version = version
            except DriftlineError as error:
                failures[version.number] = str(error)
                errors.append(error)
        del errors[1:]
        return resolved, failures, errors

    @property
    def _retries(self) -> bool:
        """Whether a model that fails to load is retried; otherwise it ends the startup."""
        return self.ready or not self._exit_on_error

    async def _load(self, entry: Entry, version: Version) -> Served:
        """Load a version beside those in service, and count and log the result."""
        begin = monotonic()
        entry.loading.add(version.number)
        try:
            served = await self._make_served(entry, version)
        except Exception as error:
            entry.load_failures += 1
            if isinstance(error, DriftlineError):
                raise
            raise ModelError(f"{version.name} {version.number}: {type(error).__name__}: {error}") from error
        finally:
            entry.loading.discard(version.number)
        if ignored_settings := await self.read(self.registry.ignored_settings, version.name):
            log.warning(
                "%s: config.pbtxt is not followed in: %s; here, aliases and driftline.toml say that",
                version.name, ", ".join(ignored_settings), extra={"model": version.name},
            )  # fmt: skip
        entry.loads += 1
        entry.load_seconds = monotonic() - begin
        log.info(
            "%s %d is loaded in %.2f s", version.name, version.number, entry.load_seconds,
            extra={"model": version.name, "version": version.number, "seconds": entry.load_seconds},
        )  # fmt: skip
        return served

    def _flip(self, entry: Entry, resolved: dict[Reference, Served], default: Served | None) -> None:
        old = entry.default
        super()._flip(entry, resolved, default)
        if old is not None and default is not None and old is not default:
            for warning in swap_warnings(old, default):
                log.warning(
                    "%s %d %s", entry.name, default.version.number, warning,
                    extra={"model": entry.name, "version": default.version.number},
                )  # fmt: skip

    def _folder(self, version: Version) -> Path:
        return self.registry.fetch(version)

    def _schedule_retry(self, entry: Entry, reason: str) -> None:
        """Log why a model is out of step with the registry, and schedule a retry, with backoff.

        reason  the text of the first error; not the error, since a log handler that keeps its records would
                keep the frames of its traceback, and with them models
        """
        entry.attempts += 1
        wait = backoff(entry.attempts)
        serving = f"{entry.default.version.number} serves on" if entry.default else "nothing serves"
        for number, failure in entry.failures.items():
            log.error(
                "%s %d can't be loaded: %s; %s; next try in %.0f s",
                entry.name, number, failure, serving, wait,
                extra={"model": entry.name, "version": number, "reason": failure},
            )  # fmt: skip
        if reason not in entry.failures.values():
            log.warning(
                "%s: %s; %s; next try in %.0f s", entry.name, reason, serving, wait,
                extra={"model": entry.name, "reason": reason},
            )  # fmt: skip
        if entry.retry is not None:
            entry.retry.cancel()
        loop = asyncio.get_running_loop()
        entry.retry = loop.call_later(wait, lambda: self._spawn(self._sync(entry.name)))


def swap_warnings(old: Served, new: Served) -> Iterator[str]:
    """Yield what may be a mistake in a version that takes over from another."""
    before = f"version {old.version.number}"
    if changes := signature_changes(old.signature, new.signature):
        yield f"may break clients of {before}: {changes}"
    had_profile = old.watch is not None and old.watch.has_profile
    if had_profile and new.watch is not None and not new.watch.has_profile:
        yield f"has no profile.arrow: its data is not compared with a reference; {before} had one"
