"""The versions of one worker: it loads, serves and drops what the supervisor tells it to."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from driftline.config import ServerFile
from driftline.engine.bundle import Bundle
from driftline.engine.model import Model
from driftline.errors import NotFound, Unavailable
from driftline.machine import available_cores, available_memory
from driftline.registry.source import Reference, Version
from driftline.serving.base_host import BaseHost, Entry
from driftline.serving.fleet.arena import Arena, Region
from driftline.serving.fleet.channel import Channel
from driftline.serving.fleet.totals import VersionTotals, WorkerTotals
from driftline.serving.fleet.worker_watch import WorkerGpuWatch, WorkerWatch
from driftline.serving.kernels import warm_in_background
from driftline.serving.monitoring.notifier import Notifier
from driftline.serving.monitoring.watch import Watch
from driftline.serving.payloads.log import Counts, PayloadLog
from driftline.serving.served import Served
from driftline.tensors import Array, Signature


class WorkerHost(BaseHost):
    """A host controlled by the supervisor's messages.

    file      see BaseHost
    number    of this worker, from 0
    workers   number of workers
    arena     memory of the slabs
    channel   to the supervisor
    payloads  see BaseHost
    """

    def __init__(
        self,
        file: ServerFile,
        number: int,
        workers: int,
        arena: Arena,
        channel: Channel,
        payloads: PayloadLog | None,
    ) -> None:
        super().__init__(file, Notifier(), payloads)
        self._number = number
        self._workers = workers
        self._arena = arena
        self._channel = channel
        self._loading: dict[Version, tuple[int, Path]] = {}
        self._served_by_key: dict[int, Served] = {}
        self._slabs: dict[int, Future[Any]] = {}

    def find(self, name: str | None, version: str | None = None) -> Served:
        """See BaseHost.find; Unavailable instead of NotFound until all models are loaded."""
        try:
            return super().find(name, version)
        except NotFound:
            if not self.ready:
                raise Unavailable("the server is not ready") from None
            raise

    # -- messages of the supervisor ---------------------------------------------------------------

    async def load(self, key: int, version: Version, folder: Path) -> Signature:
        """Load and warm a version; it serves no requests before the flip."""
        self._loading[version] = key, folder
        entry = self.entries.setdefault(version.name, Entry(version.name))
        try:
            self._served_by_key[key] = served = await self._make_served(entry, version)
        finally:
            del self._loading[version]
        return served.signature

    def drop(self, key: int) -> None:
        """Close a version that will not serve after all."""
        if (served := self._served_by_key.get(key)) is not None:
            self._forget(served)
            served.close()
            self._spawn(asyncio.to_thread(served.model.close))

    def flip(self, name: str, resolved: dict[Reference, tuple[int, Version]], default: int | None) -> None:
        """Send new requests to a model to these versions from now on; all of them are loaded.

        resolved  the key and the version of each reference
        default   the key of the version for requests that name none
        """
        for key, version in resolved.values():
            self._served_by_key[key].version = version
        versions = {reference: self._served_by_key[key] for reference, (key, _) in resolved.items()}
        entry = self.entries.setdefault(name, Entry(name))
        self._flip(entry, versions, self._served_by_key[default] if default is not None else None)

    def set_slabs(self, key: int, region: Region | None) -> None:
        """Take the region of all workers' slabs for a version's monitor; None if it has no monitor."""
        if key not in self._served_by_key or (slab := self._slab_future(key)).done():
            return
        slab.set_result(partial(self._map_slab, region) if region is not None else None)

    def _map_slab(self, region: Region) -> Array:
        """Map this worker's slab; OSError if files or memory run out."""
        slab: Array = self._arena.map(region).reshape(self._workers, -1)[self._number]
        return slab

    def begin(self, default_name: str | None) -> None:
        """Become ready: all workers have loaded all models. `default_name`: see BaseHost.find."""
        self.default_name = default_name
        self.ready = True
        self._start_watching()
        warm_in_background(list(self.served()))

    def follow(self) -> None:
        """Hand over counts and captured rows to the supervisor, if it has requested them."""
        for key, served in self._served_by_key.items():
            if isinstance(served.watch, WorkerWatch):
                served.watch.follow()
                for batch in served.watch.take_captured():
                    self._channel.tell("captured", key, *batch)

    def capture(self, key: int, rows: int) -> None:
        """Keep the next rows of a version for a profile; see WorkerWatch.capture."""
        if key in self._served_by_key and isinstance(watch := self._served_by_key[key].watch, WorkerWatch):
            watch.capture(rows)

    def tell_totals(self) -> None:
        """Send the supervisor the totals so far.

        They are a message of their own, even if the supervisor requested them, so that it handles totals in
        one place.
        """
        self.follow()
        totals = WorkerTotals(
            {key: VersionTotals.of(served) for key, served in self._served_by_key.items()},
            {name: entry.latency for name, entry in self.entries.items()},
            self.payload_counts or Counts(),
        )
        self._channel.tell("totals", totals)

    # -- a version's life -------------------------------------------------------------------------

    def _folder(self, version: Version) -> Path:
        return self._loading[version][1]

    def _bundle(self, version: Version) -> Bundle:
        """See BaseHost; with this worker's share of cores and memory, unless the settings name one."""
        bundle = super()._bundle(version)
        engine = bundle.settings.engine
        engine = replace(
            engine,
            threads=engine.threads_on(max(1, available_cores() // self._workers)),
            memory_bytes=engine.memory_on(available_memory() // self._workers),
        )
        return replace(bundle, settings=replace(bundle.settings, engine=engine))

    def _watch(self, version: Version, model: Model, bundle: Bundle) -> Watch | None:
        settings = bundle.settings.monitor
        slab = self._slab_future(self._loading[version][0])
        if not settings.enabled:
            return None
        watch_type = WorkerGpuWatch if model.copies_inputs else WorkerWatch
        return watch_type(version, model, bundle.profile, settings, slab)

    def _slab_future(self, key: int) -> Future[Any]:
        return self._slabs.setdefault(key, Future())

    def _on_unloaded(self, served: Served) -> None:
        self._channel.tell("dropped", self._forget(served))

    def _forget(self, served: Served) -> int:
        """Remove a version; return its key."""
        (key,) = [key for key, other in self._served_by_key.items() if other is served]
        del self._served_by_key[key]
        self._slabs.pop(key, None)
        return key
