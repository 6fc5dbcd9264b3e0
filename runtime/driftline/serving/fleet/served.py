"""The supervisor's side of a version that several workers hold."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from driftline.config import Monitoring
from driftline.errors import Unavailable
from driftline.monitor.observer import is_temporary
from driftline.monitor.reference.capture import Capture
from driftline.registry.source import Version
from driftline.serving.fleet.arena import Arena, Region
from driftline.serving.fleet.totals import VersionTotals
from driftline.serving.latency import Latency
from driftline.serving.monitoring.notifier import Notifier
from driftline.serving.monitoring.watch import Watch
from driftline.serving.served import Served
from driftline.tensors import Signature, Tensors

if TYPE_CHECKING:
    from driftline.monitor.monitor import Monitor
    from driftline.monitor.slab import Collector

log = logging.getLogger("driftline.fleet")


class RemoteModel(VersionTotals):
    """A version's totals, in place of its model and its batcher, which are in the workers.

    signature  of the model
    holders    the numbers of the workers that have the version loaded
    device_sessions  none: the workers' totals include the times of GPUs
    """

    device_sessions = ()

    def __init__(self, signature: Signature, holders: set[int]) -> None:
        super().__init__()
        self.signature = signature
        self.holders = holders
        self.running = 0
        self._dropped = asyncio.Event()

    def update(self, totals: VersionTotals) -> None:
        """Replace the totals by the sum of all workers' totals."""
        for field in fields(VersionTotals):
            setattr(self, field.name, getattr(totals, field.name))

    def dropped_by(self, number: int) -> None:
        """Note that a worker has closed the version, or ended."""
        self.holders.discard(number)
        if not self.holders:
            self._dropped.set()

    async def drain(self) -> None:
        """Wait until no worker has the version any more."""
        if self.holders:
            await self._dropped.wait()

    def close(self) -> None:
        """Nothing to do."""


class FleetWatch(Watch):
    """The monitor of a version whose rows several workers count, each into its slab.

    version, remote, profile, settings, notifier  see Watch
    arena       memory for the slabs
    workers     number of workers
    on_slabs    called on the event loop with the region of the slabs, or with None if there is no monitor
    on_capture  called with the number of rows that each worker is to keep for a profile, 0 to stop

    slabs         region of the slabs; None until the monitor is loaded
    failed        whether there will be no slabs, because the monitor or the memory failed
    capture_rows  rows that each worker now keeps for a profile; 0 for none
    """

    def __init__(
        self,
        version: Version,
        remote: RemoteModel,
        profile: Path | None,
        settings: Monitoring,
        notifier: Notifier,
        arena: Arena,
        workers: int,
        on_slabs: Callable[[Region | None], None],
        on_capture: Callable[[int], None],
    ) -> None:
        stand_in: Any = remote
        super().__init__(version, stand_in, profile, settings, notifier)
        self.slabs: Region | None = None
        self.failed = False
        self._arena = arena
        self._workers = workers
        self._on_slabs = on_slabs
        self._on_capture = on_capture
        self.capture_rows = 0
        self._collectors: list[Collector] = []
        self._closed = False
        self._remote = remote
        self._loaded_everywhere = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """See Watch.start."""
        self._loop = asyncio.get_running_loop()
        super().start()

    def ready(self) -> Monitor:
        """Return the monitor; raise Unavailable until every worker has begun to count for it."""
        monitor = super().ready()
        self._loaded_everywhere = self._loaded_everywhere or not self._remote.loading_watches
        if not self._loaded_everywhere:
            about = f"{self._version.name} {self._version.number}"
            raise Unavailable(
                f"the monitor of {about} is being loaded by {self._remote.loading_watches} workers"
            )
        return monitor

    def collect(self) -> None:
        """Take the counts that the workers have handed over, and request more if the monitor needs them."""
        for collector in self._collectors:
            collector.collect()
            if collector.has_unrequested_rows:
                collector.ask()

    def request_counts(self) -> None:
        """Request all counts from the workers, whether the monitor needs them or not."""
        for collector in self._collectors:
            collector.collect()
            collector.ask()

    @contextmanager
    def capturing(self, rows: int) -> Iterator[Capture]:
        """See Watched.capturing: the rows are those of all workers."""
        with super().capturing(rows) as capture:
            self._set_capture_rows(rows)
            try:
                yield capture
            finally:
                self._set_capture_rows(0)

    def _set_capture_rows(self, rows: int) -> None:
        self.capture_rows = rows
        self._on_capture(rows)

    def keep_captured(self, columns: Tensors, rows: int) -> None:
        """Keep a batch that a worker has captured."""
        self._keep(columns, rows)

    def take_all(self, number: int) -> None:
        """Take all counts of a worker that has ended."""
        if self._collectors:
            self._collectors[number].take_all()

    def close(self) -> None:
        """Take all counts, close the monitor, and free the slabs."""
        self._closed = True
        for collector in self._collectors:
            collector.take_all()
        super().close()
        self._collectors = []
        if self.slabs is not None:
            self._arena.free(self.slabs)

    def _make_monitor(self) -> Monitor:
        assert self._loop is not None
        try:
            monitor = super()._make_monitor()
        except Exception as error:
            if not is_temporary(error):  # otherwise it is retried, and the workers' rows wait
                self._loop.call_soon_threadsafe(self._set_up_slabs, None)
            raise
        self._loop.call_soon_threadsafe(self._set_up_slabs, monitor)
        return monitor

    def _set_up_slabs(self, monitor: Monitor | None) -> None:
        """Allocate the slabs, once the monitor is loaded or has failed; on the event loop."""
        if self._closed:
            return
        self.failed = monitor is None
        if monitor is not None:
            try:
                self._allocate_slabs(monitor)
            except OSError as error:  # too many files, or no memory: without slabs, workers still serve
                log.error("%s %d is not monitored: %s", self._version.name, self._version.number, error)
                self.failed = True
        self._on_slabs(self.slabs)

    def _allocate_slabs(self, monitor: Monitor) -> None:
        """Allocate a slab for each worker."""
        from driftline.monitor.slab import Collector, slab_bytes

        size = slab_bytes(monitor.words)
        slabs = self._arena.allocate(self._workers * size)
        memory = self._arena.map(slabs).reshape(self._workers, size // 8)
        self._collectors = [Collector(monitor, slab) for slab in memory]
        self.slabs = slabs


class FleetServed(Served):
    """A version that several workers hold: reports and totals can be read from it, but it runs no inference.

    key  its id between the supervisor and the workers; never reused
    """

    def __init__(
        self, key: int, version: Version, remote: RemoteModel, latency: Latency, watch: FleetWatch | None
    ) -> None:
        stand_in: Any = remote
        self.key = key
        self.version = version
        self.signature = remote.signature
        self.model = self.batcher = stand_in
        self.latency = latency
        self.watch: FleetWatch | None = watch
        self.remote = remote
