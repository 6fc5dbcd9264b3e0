"""The versions in memory: find one, swap, drain, and release memory."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from driftline.batching.cost import Cost
from driftline.config import ServerFile
from driftline.engine.bundle import Bundle
from driftline.engine.model import Model
from driftline.errors import DriftlineError, NotFound, Unavailable
from driftline.registry.source import Reference, Version
from driftline.serving import memory
from driftline.serving.latency import Latency
from driftline.serving.monitoring.notifier import Notifier
from driftline.serving.monitoring.watch import Watch
from driftline.serving.monitoring.watch_gpu import GpuWatch
from driftline.serving.payloads.log import Counts, PayloadLog
from driftline.serving.served import Served

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("driftline.host")

_NUMBER = re.compile(r"[0-9]{1,18}")

Result = TypeVar("Result")

LAST_WINDOW_SECONDS = 10.0
"""Time limit for writing the last window of a closed version."""


@dataclass(slots=True)
class Entry:
    """One model: its versions in memory and the results of loading them.

    default    serves requests that name no version; None if there is none
    versions   those that accept requests, by number
    resolved   the version that each reference resolves to
    loading    numbers of versions that are being loaded
    unloading  versions that accept no more requests, until the last response
    failures   why versions can't be loaded, by number
    attempts   consecutive failed ones; `retry` starts the next one
    lock       held while the model is synchronised with the registry
    latency    of its requests, for all versions together
    loads, load_failures, load_seconds, swaps  for metrics; `load_seconds` is of the last load
    """

    name: str
    default: Served | None = None
    versions: dict[int, Served] = field(default_factory=dict)
    resolved: dict[Reference, Served] = field(default_factory=dict)
    loading: set[int] = field(default_factory=set)
    unloading: list[Served] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    attempts: int = 0
    retry: asyncio.TimerHandle | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    latency: Latency = field(default_factory=Latency)
    loads: int = 0
    load_failures: int = 0
    load_seconds: float = 0.0
    swaps: int = 0


class BaseHost:
    """Holds versions in memory and finds the one for a request. Subclasses decide which versions to hold.

    file      the server's settings for models
    notifier  is notified of windows and alarms
    payloads  logs requests and responses; None if that is off

    entries       models by name
    default_name  the model for requests that name none; None: the first by name
    ready         whether every model is loaded
    stopping      whether the server has begun to stop
    """

    def __init__(self, file: ServerFile, notifier: Notifier, payloads: PayloadLog | None = None) -> None:
        self.entries: dict[str, Entry] = {}
        self.default_name: str | None = None
        self.ready = False
        self.stopping = False
        self.notifier = notifier
        self.payloads = payloads
        self._file = file
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._readers = ThreadPoolExecutor(thread_name_prefix="driftline-registry")

    # -- for requests -------------------------------------------------------------------------

    def find(self, name: str | None, version: str | None = None) -> Served:
        """Return the version for a request.

        name     of the model; None for `default_name`, or else the first model by name
        version  its number; None for the model's default

        Raises NotFound if it is not in memory, Unavailable if the model is still being loaded.
        """
        if name is None and self.ready:
            name = self.default_name or self._first_name()
        entry = self.entries.get(name) if name is not None else None
        if entry is None and self.ready:
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        if entry is None:
            raise Unavailable("the server is not ready")
        if version is None:
            served = entry.default
        else:
            served = entry.versions.get(int(version)) if _NUMBER.fullmatch(version) else None
        if served is not None:
            return served
        if not entry.versions and entry.lock.locked():
            raise Unavailable(f"model '{name}' is being loaded")
        if version is None:
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        loaded = ", ".join(map(str, sorted(entry.versions))) or "none"
        raise NotFound(
            f"Request for unknown model: '{name}' version {version} is not found; loaded: {loaded}"
        )

    @property
    def ready_for_more(self) -> bool:
        """Whether every model is loaded and the server is not stopping: the readiness that probes see."""
        return self.ready and not self.stopping

    def _first_name(self) -> str:
        """Return the first model by name that has a default version, or the first of all if none has."""
        names = (name for name, entry in self.entries.items() if entry.default is not None)
        return min(names, default=min(self.entries, default=""))

    def served(self) -> Iterator[Served]:
        """Iterate over the versions in memory that accept requests."""
        for entry in self.entries.values():
            yield from entry.versions.values()

    @property
    def device_failure(self) -> str:
        """Why this process can no longer use a device, in one line; "" if it can use all."""
        sessions = (session for served in self.served() for session in served.model.device_sessions)
        return next((session.failure for session in sessions if session.failure), "")

    @property
    def processes(self) -> list[int]:
        """The ids of all processes of this server."""
        return [os.getpid()]

    @property
    def payload_counts(self) -> Counts | None:
        """How many payloads were logged and skipped; None if that is off."""
        return self.payloads.counts if self.payloads is not None else None

    def busy(self) -> bool:
        """Whether a batch is running."""
        return any(
            served.batcher.running
            for entry in self.entries.values()
            for served in (*entry.versions.values(), *entry.unloading)
        )

    async def close(self) -> None:
        """Cancel loading and draining, reject waiting requests, and free all models."""
        self.ready = False
        for entry in self.entries.values():
            self._forget_failures(entry)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for entry in self.entries.values():
            for served in (*entry.versions.values(), *entry.unloading):
                self._close(served)
        await asyncio.gather(*self._closing)
        if self.busy() or self.device_failure:
            # Too late, or on a lost device: the process exits without closing them.
            return
        for entry in self.entries.values():
            for served in (*entry.versions.values(), *entry.unloading):
                await asyncio.to_thread(served.model.close)  # a session on a GPU must end before its stream

    # -- loading ----------------------------------------------------------------------------------

    async def read(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Call a function that reads the registry or a version's files, in a thread.

        It has its own threads, since a disk that stops responding may block all of them forever.
        """
        return await asyncio.get_running_loop().run_in_executor(self._readers, work, *arguments)

    async def _make_served(self, entry: Entry, version: Version) -> Served:
        """Fetch, verify, load and warm a version; it receives no requests yet."""

        def load() -> tuple[Model, Cost, Watch | None]:
            bundle = self._bundle(version)
            model = Model(bundle)
            try:
                return model, model.warm_up(), self._watch(version, model, bundle)
            except BaseException:
                model.close()
                raise

        model, cost, watch = await self.read(load)
        return Served(version, model, cost, entry.latency, watch)

    def _folder(self, version: Version) -> Path:
        """Return the folder with a version's files on this machine."""
        raise NotImplementedError

    def _bundle(self, version: Version) -> Bundle:
        """Open a version's files; the server's file may override their settings."""
        bundle = Bundle.open(self._folder(version))
        return replace(bundle, settings=self._file.settings_of(version.name, bundle.settings))

    def _watch(self, version: Version, model: Model, bundle: Bundle) -> Watch | None:
        """Return the monitor of a version; None if its settings disable it."""
        settings = bundle.settings.monitor
        if not settings.enabled:
            return None
        if model.copies_inputs:
            return GpuWatch(version, model, bundle.profile, settings, self.notifier)
        return Watch(version, model, bundle.profile, settings, self.notifier)

    def _flip(self, entry: Entry, resolved: dict[Reference, Served], default: Served | None) -> None:
        """Swap: send new requests to other versions, and drain those that no reference resolves to.

        resolved  the version that each reference resolves to from now on
        default   serves requests that name no version
        """
        for served in set(entry.resolved.values()) - set(resolved.values()):
            entry.unloading.append(served)
            self._spawn(self._retire(entry, served))
        entry.resolved = resolved
        entry.versions = {served.version.number: served for served in resolved.values()}
        if self.ready:
            self._start_watching()
        old, entry.default = entry.default, default
        if default is None or default is old:
            return
        if old is not None:
            entry.swaps += 1
        log.info(
            "%s %d serves%s", entry.name, default.version.number,
            f", {old.version.number} drains" if old else "",
            extra={"model": entry.name, "version": default.version.number},
        )  # fmt: skip

    def _start_watching(self) -> None:
        """Load the monitors that are not loaded yet; at startup, once every model is loaded."""
        for served in self.served():
            if served.watch is not None:
                served.watch.start()

    def _forget_failures(self, entry: Entry) -> None:
        entry.failures = {}
        entry.attempts = 0
        if entry.retry is not None:
            entry.retry.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, DriftlineError):
            log.error("unexpected: %s", error, exc_info=error)

    # -- unloading ---------------------------------------------------------------------------------

    async def _retire(self, entry: Entry, served: Served) -> None:
        """Drain a version that accepts no new requests, close it, and return its memory to the system."""
        await served.batcher.drain()
        self._close(served)
        entry.unloading.remove(served)
        self._on_unloaded(served)
        await asyncio.to_thread(served.model.close)
        # A response that is being sent, or a monitor that is being loaded, may still refer to the model.
        freed = asyncio.Event()
        loop = asyncio.get_running_loop()
        model = weakref.ref(served.model, lambda _: loop.call_soon_threadsafe(freed.set))
        del served
        if model() is not None:
            await freed.wait()
        await asyncio.to_thread(memory.release_free_pages)

    def _close(self, served: Served) -> None:
        """Close a version; a thread finishes its monitor's writes."""
        served.close()
        if served.watch is not None:
            deadline = monotonic() + LAST_WINDOW_SECONDS
            task = asyncio.create_task(asyncio.to_thread(served.watch.wait_for_writes, deadline))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _on_unloaded(self, served: Served) -> None:
        """Handle that a version is drained and closed."""
        log.info(
            "%s %d is drained and closed", served.version.name, served.version.number,
            extra={"model": served.version.name, "version": served.version.number},
        )  # fmt: skip
