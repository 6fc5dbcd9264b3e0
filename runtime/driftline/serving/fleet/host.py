"""The supervisor's host: several workers on one port hold the same versions.

Workers handle requests and count rows into their slabs. The supervisor serves no client. It follows the
registry, runs the monitors and adds up the totals, and it makes the pages that are about all workers,
whichever worker gets the request. A swap has two phases: every worker loads and warms the version, then all
are versions to flip.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from driftline.config import Server, ServerFile
from driftline.errors import DriftlineError, ModelError
from driftline.http import call_app
from driftline.registry.source import Reference, Registry, Version
from driftline.serving.base_host import Entry
from driftline.serving.fleet.arena import Arena
from driftline.serving.fleet.channel import PeerGone
from driftline.serving.fleet.pool import Worker, WorkerPool
from driftline.serving.fleet.served import FleetServed, FleetWatch, RemoteModel
from driftline.serving.fleet.totals import VersionTotals, WorkerTotals, total
from driftline.serving.host import Host
from driftline.serving.http.app import App
from driftline.serving.latency import Latency
from driftline.serving.monitoring.notifier import Notifier
from driftline.serving.payloads.log import Counts
from driftline.serving.served import Served

if TYPE_CHECKING:
    import socket

    from driftline.tensors import Tensors

log = logging.getLogger("driftline.fleet")

COLLECT_SECONDS = 0.02
"""Seconds between two collections of the workers' counts."""

TOTALS_TIMEOUT_SECONDS = 2.0
"""How long a page waits for a worker's totals."""


class FleetHost(Host):
    """A Host whose versions are held by workers.

    listeners  a socket for each worker
    settings   of the server; the other arguments are those of Host
    """

    def __init__(
        self,
        registry: Registry,
        references: Sequence[Reference],
        file: ServerFile,
        settings: Server,
        listeners: Sequence[socket.socket],
        notifier: Notifier | None = None,
    ) -> None:
        super().__init__(
            registry, references, file, settings.poll_seconds, notifier, exit_on_error=settings.exit_on_error
        )
        self._arena = Arena()
        handlers: dict[str, Callable[..., Any]] = {
            "totals": self._on_totals,
            "dropped": self._on_dropped,
            "captured": self._on_captured,
            "page": self._make_page,
        }
        self.pool = WorkerPool(
            listeners, self._arena, (settings, file), self._prepare, self._worker_ended, handlers
        )
        self._pages = App(self, settings)
        self._keys = count(1)
        self._required: dict[int, tuple[Version, Path]] = {}
        self._logs_payloads = settings.log_payloads != "none"
        self._totals: dict[Worker, WorkerTotals] = {}
        self._ended_totals = WorkerTotals()

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the workers, load the referenced versions, then follow the registry; raise any failure."""
        await self.pool.start()
        await super().start()
        self.pool.tell("ready", self.default_name)
        self._spawn(self._keep_collecting())

    async def load(self, name: str) -> None:
        """As Host.load; when it returns, every worker has flipped."""
        await super().load(name)
        await self.pool.ask("tell_totals")

    async def unload(self, name: str) -> None:
        """As Host.unload; when it returns, no worker serves the model."""
        await super().unload(name)
        await self.pool.ask("tell_totals")

    async def stop(self) -> None:
        """Let the workers finish their requests and end."""
        self.ready = False
        await self.pool.stop()

    @property
    def pending(self) -> int:
        """Requests in flight, by the last totals of the workers."""
        return sum(totals.pending for totals in self._totals.values())

    @property
    def payload_counts(self) -> Counts | None:
        """See BaseHost; of all workers, by their last totals."""
        return total([self._ended_totals, *self._totals.values()]).payloads if self._logs_payloads else None

    @property
    def processes(self) -> list[int]:
        """The ids of all processes of this server."""
        return [os.getpid(), *self.pool.processes]

    # -- a version's life -------------------------------------------------------------------------

    async def _make_served(self, entry: Entry, version: Version) -> Served:
        bundle = await self.read(self._bundle, version)
        folder = await self.read(self._folder, version)
        key = next(self._keys)
        self._required[key] = version, folder
        try:
            signature = await self._load_everywhere(key, version, folder)
        except BaseException:
            del self._required[key]
            for worker in self.pool.live:
                worker.loaded.discard(key)
                worker.channel.tell("drop", key)
            raise
        holders = {worker.number for worker in self.pool.live if key in worker.loaded}
        remote, settings = RemoteModel(signature, holders), bundle.settings.monitor
        watch = None
        if settings.enabled:
            watch = FleetWatch(
                version, remote, bundle.profile, settings, self.notifier, self._arena, len(self.pool.workers),
                lambda slabs: self.pool.tell("slabs", key, slabs),
                lambda rows: self.pool.tell("capture", key, rows),
            )  # fmt: skip
        return FleetServed(key, version, remote, entry.latency, watch)

    async def _load_everywhere(self, key: int, version: Version, folder: Path) -> Any:
        """Have every live worker load a version; return its signature. Raises a worker's first error."""
        results = await self.pool.ask("load", key, version, folder)
        for worker, result in results.items():
            if isinstance(result, BaseException):
                raise result
            worker.loaded.add(key)
        if not results:
            raise ModelError(f"{version.name} {version.number}: no worker has outlived it")
        return next(iter(results.values()))

    def _flip(self, entry: Entry, resolved: dict[Reference, Served], default: Served | None) -> None:
        for served in set(entry.resolved.values()) - set(resolved.values()):
            del self._required[_key(served)]
        self.pool.tell("flip", entry.name, *_flip_arguments(resolved, default))
        super()._flip(entry, resolved, default)

    # -- workers' lives ---------------------------------------------------------------------------

    async def _prepare(self, worker: Worker) -> None:
        """Have a new process load all versions, including those that are still being loaded."""
        while missing := self._required.keys() - worker.loaded:
            key = missing.pop()
            try:
                await worker.channel.ask("load", key, *self._required[key])
            except DriftlineError as error:
                if isinstance(error, PeerGone) or any(key == _key(served) for served in self.served()):
                    raise
                # The other workers decide whether the version is good; if it is, the flip ends this process.
            worker.loaded.add(key)
        # No await from here on: the process must miss no message that the others get.
        for key in worker.loaded - self._required.keys():
            worker.channel.tell("drop", key)
        worker.loaded &= self._required.keys()
        for entry in self.entries.values():
            worker.channel.tell("flip", entry.name, *_flip_arguments(entry.resolved, entry.default))
        if self.ready:
            worker.channel.tell("ready", self.default_name)
        for served in self._versions():
            if served.key in worker.loaded:
                served.remote.holders.add(worker.number)
                watch = served.watch
                if watch is not None and (watch.slabs is not None or watch.failed):
                    worker.channel.tell("slabs", served.key, watch.slabs)
                if watch is not None and watch.capture_rows:
                    worker.channel.tell("capture", served.key, watch.capture_rows)

    def _worker_ended(self, worker: Worker) -> None:
        """Take over the totals and the counts of a process that has ended."""
        totals = self._totals.pop(worker, WorkerTotals())
        totals.end()
        self._ended_totals.add(totals)
        for served in self._versions():
            if served.watch is not None:
                served.watch.take_all(worker.number)
            served.remote.dropped_by(worker.number)

    def _versions(self) -> Iterator[FleetServed]:
        """Every version that a worker may have, including draining ones."""
        for entry in self.entries.values():
            for served in (*entry.versions.values(), *entry.unloading):
                assert isinstance(served, FleetServed)
                yield served

    # -- messages of workers ----------------------------------------------------------------------

    def _on_totals(self, worker: Worker, totals: WorkerTotals) -> None:
        self._totals[worker] = totals

    def _on_dropped(self, worker: Worker, key: int) -> None:
        worker.loaded.discard(key)
        for served in self._versions():
            if served.key == key:
                served.remote.dropped_by(worker.number)

    def _on_captured(self, worker: Worker, key: int, columns: Tensors, rows: int) -> None:
        for served in self._versions():
            if served.key == key and served.watch is not None:
                served.watch.keep_captured(columns, rows)

    async def _update_all(self) -> None:
        """Bring totals and monitors up to date; of a worker that does not respond, the last ones count."""
        watches = [served.watch for served in self._versions() if served.watch is not None]
        for watch in watches:
            watch.request_counts()
        with suppress(TimeoutError):
            async with asyncio.timeout(TOTALS_TIMEOUT_SECONDS):
                await self.pool.ask("tell_totals")
        for watch in watches:
            watch.collect()
        keys = {served.key for served in self._versions()}
        for key in self._ended_totals.versions.keys() - keys:
            del self._ended_totals.versions[key]
        totals = total([self._ended_totals, *self._totals.values()])
        for served in self._versions():
            served.remote.update(totals.versions.get(served.key, VersionTotals()))
            if served.watch is not None:
                served.watch.observer.skipped_rows = served.remote.skipped_rows
                served.watch.observer.waiting_rows = served.remote.waiting_rows
        for name, entry in self.entries.items():
            latency = totals.models.get(name, Latency())
            entry.latency.counts, entry.latency.sum_ns = latency.counts, latency.sum_ns

    async def _keep_collecting(self) -> None:
        while True:
            await asyncio.sleep(COLLECT_SECONDS)
            for served in self._versions():
                if served.watch is not None:
                    try:
                        served.watch.collect()
                    except Exception:  # others are still collected, this one later
                        log.exception("the workers' counts can't be collected")

    async def _make_page(
        self, worker: Worker, scope: dict[str, Any], body: bytes
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Make a page about all workers for one of them; return its status, headers and body."""
        await self._update_all()
        return await call_app(self._pages, scope, body)


def _key(served: Served) -> int:
    assert isinstance(served, FleetServed)
    return served.key


def _flip_arguments(
    resolved: dict[Reference, Served], default: Served | None
) -> tuple[dict[Reference, tuple[int, Version]], int | None]:
    """Return the arguments of the message `flip`."""
    versions = {reference: (_key(served), served.version) for reference, served in resolved.items()}
    return versions, _key(default) if default is not None else None
