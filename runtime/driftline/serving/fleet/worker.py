"""A worker's process: answers on its socket from what its supervisor tells it to hold."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from driftline import logs
from driftline.config import Monitoring, Server, ServerFile
from driftline.engine.bundle import Bundle
from driftline.engine.model import Model
from driftline.errors import NotFound, Unavailable
from driftline.http import loop_factory
from driftline.machine import available_cores, available_memory
from driftline.monitor.capture import Capture
from driftline.registry.source import Reference, Version
from driftline.serving import memory
from driftline.serving.fleet.arena import Arena, Region
from driftline.serving.fleet.channel import Channel
from driftline.serving.fleet.pages import SharedApp
from driftline.serving.fleet.totals import VersionTotals, WorkerTotals
from driftline.serving.holder import Entry, Holder
from driftline.serving.notifier import Notifier
from driftline.serving.payloads.log import Counts, PayloadLog
from driftline.serving.process import Stoppable, leave, warm_in_background
from driftline.serving.served import Served
from driftline.serving.watch import Watch
from driftline.serving.watch_card import CardWatch
from driftline.tensors import Array, Signature, Tensors
from driftline_kernels import compiling

log = logging.getLogger("driftline.fleet")

FOLLOW_SECONDS = 0.05
"""Seconds between two looks at what the monitors want."""

TOTALS_SECONDS = 0.5
"""Seconds between two tellings of what was done: what a killed worker did since is not in the totals."""


class WorkerWatch(Watch):
    """Counts the rows of a version for a monitor that is in the supervisor.

    slab  what maps its slab, when the monitor is there; None if it can't be
    """

    def __init__(
        self, version: Version, model: Model, profile: Path | None, settings: Monitoring, slab: Future[Any]
    ) -> None:
        super().__init__(version, model, profile, settings, Notifier())
        self.slab = slab

    def follow(self) -> None:
        """Let the supervisor have what was counted, if it wants that."""
        self.catch_up()
        share: Any = self.observer.monitor
        if share is not None:
            share.follow()

    def capture(self, rows: int) -> None:
        """Keep the next rows for the supervisor, up to so many; with 0, no more."""
        self.catch_up()
        self._capture = Capture(rows) if rows else None

    def captured(self) -> list[tuple[Tensors, int]]:
        """The batches that were kept since the last time, and their rows."""
        return self._capture.take() if self._capture is not None else []

    def close(self) -> None:
        """Count what has been answered, and nothing more."""
        super().close()
        if not self.slab.done():
            self.slab.set_result(None)

    def _make(self) -> Any:
        """The Share: of a monitor, it has what this class needs. The monitor comes first: if it must
        compile what counts, it does that once for all."""
        from driftline.monitor.slab import Share

        profile, mapped = self._read_profile(), self.slab.result()
        if mapped is None:
            raise Unavailable("the supervisor's log says why")
        share = Share(profile, mapped())
        share.warm_up()
        return share


class WorkerCardWatch(CardWatch, WorkerWatch):
    """As WorkerWatch, on cards: what was counted there is on its way when the supervisor is followed."""

    def follow(self) -> None:
        """See WorkerWatch.follow; waits for no batch that is under way."""
        share: Any = self.observer.monitor
        if share is not None:
            share.follow()
        self.fetch_beside()


class WorkerHost(Holder):
    """Holds what the supervisor says.

    number, workers  which of how many workers this is
    arena            where slabs are
    channel          to the supervisor
    payloads         see Holder
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
        self._orders: dict[Version, tuple[int, Path]] = {}
        self._held: dict[int, Served] = {}
        self._slabs: dict[int, Future[Any]] = {}

    def find(self, name: str | None, version: str | None = None) -> Served:
        """See Holder.find; until the supervisor says that all are loaded, any may still come."""
        try:
            return super().find(name, version)
        except NotFound:
            if not self.ready:
                raise Unavailable("the server is not ready") from None
            raise

    # -- what the supervisor says -----------------------------------------------------------------

    async def load(self, key: int, version: Version, folder: Path) -> Signature:
        """Load and warm a version; nobody is served by it before the flip."""
        self._orders[version] = key, folder
        entry = self.entries.setdefault(version.name, Entry(version.name))
        try:
            self._held[key] = served = await self._make(entry, version)
        finally:
            del self._orders[version]
        return served.signature

    def drop(self, key: int) -> None:
        """Let a version go that is not to serve after all."""
        if (served := self._held.get(key)) is not None:
            self._let_go(served)
            served.close()
            self._spawn(asyncio.to_thread(served.model.close))

    def flip(self, name: str, resolved: dict[Reference, tuple[int, Version]], default: int | None) -> None:
        """From here on, new requests to a model go to these versions, all of which are loaded."""
        for key, version in resolved.values():
            self._held[key].version = version
        held = {reference: self._held[key] for reference, (key, _) in resolved.items()}
        entry = self.entries.setdefault(name, Entry(name))
        self._flip(entry, held, self._held[default] if default is not None else None)

    def slabs(self, key: int, region: Region | None) -> None:
        """Where the slabs of a version's monitor are; None if it has no monitor."""
        if key not in self._held or (slab := self._slab_of(key)).done():
            return
        slab.set_result(partial(self._own_slab, region) if region is not None else None)

    def _own_slab(self, region: Region) -> Array:
        """The one of this worker; OSError if no more files or memory may be had."""
        own: Array = self._arena.map(region).reshape(self._workers, -1)[self._number]
        return own

    def begin(self, default_name: str | None) -> None:
        """Every model can answer, here and in the other workers; `default_name`: see Holder.find."""
        self.default_name = default_name
        self.ready = True
        self._start_watching()
        warm_in_background(list(self.served()))

    def follow(self) -> None:
        """Let the supervisor have what was counted, if it wants that."""
        for key, served in self._held.items():
            if isinstance(served.watch, WorkerWatch):
                served.watch.follow()
                for batch in served.watch.captured():
                    self._channel.tell("captured", key, *batch)

    def capture(self, key: int, rows: int) -> None:
        """Keep the next rows of a version for a profile; see WorkerWatch.capture."""
        if key in self._held and isinstance(watch := self._held[key].watch, WorkerWatch):
            watch.capture(rows)

    def tell_totals(self) -> None:
        """Tell the supervisor all that was done until now. Who asks for it has it before the answer: what a
        worker has said is in one place, whether it was asked or not, and whether it lives or not."""
        self.follow()
        totals = WorkerTotals(
            {key: VersionTotals.of(served) for key, served in self._held.items()},
            {name: entry.latency for name, entry in self.entries.items()},
            self.payload_counts or Counts(),
        )
        self._channel.tell("totals", totals)

    # -- a version's life -------------------------------------------------------------------------

    def _folder(self, version: Version) -> Path:
        return self._orders[version][1]

    def _bundle(self, version: Version) -> Bundle:
        """With this worker's share of cores and memory, unless the settings say how much there is to be."""
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
        slab = self._slab_of(self._orders[version][0])
        if not settings.enabled:
            return None
        kind = WorkerCardWatch if model.crosses else WorkerWatch
        return kind(version, model, bundle.profile, settings, slab)

    def _slab_of(self, key: int) -> Future[Any]:
        return self._slabs.setdefault(key, Future())

    def _has_left(self, served: Served) -> None:
        self._channel.tell("gone", self._let_go(served))

    def _let_go(self, served: Served) -> int:
        """Forget a version; its key."""
        (key,) = [key for key, held in self._held.items() if held is served]
        del self._held[key]
        self._slabs.pop(key, None)
        return key


class WorkerServer(Stoppable):
    """Stops on SIGTERM; what a terminal sends to all processes of its group is the supervisor's matter."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals while the server runs."""
        loop = asyncio.get_running_loop()
        ignored = (signal.SIGINT, signal.SIGHUP)
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        for number in ignored:
            loop.add_signal_handler(number, lambda: None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, *ignored):
                loop.remove_signal_handler(number)


async def work(control: int, listener: int, shared: int) -> None:
    """Serve until the supervisor says stop, or has gone."""
    begun: asyncio.Future[tuple[Server, ServerFile, int, int, bool]] = asyncio.Future()
    built = asyncio.Event()

    async def begin(*arguments: Any) -> None:
        begun.set_result(arguments)
        await built.wait()

    verbs: dict[str, Any] = {"begin": begin, "stop": lambda: leave(0)}
    channel = Channel(socket.socket(fileno=control), verbs)
    await channel.open()
    listening = asyncio.create_task(channel.run())
    listening.add_done_callback(lambda _: begun.cancel())
    with suppress(asyncio.CancelledError):
        await begun
    if begun.cancelled():
        return
    settings, file, number, workers, later = begun.result()
    logs.configure(settings.log_format, settings.log_level, settings.access_log)
    # What becomes of versions and of their monitors, the supervisor says once for all.
    logging.getLogger("driftline.host").setLevel(logging.WARNING)
    logging.getLogger("driftline.monitor").addFilter(lambda record: record.levelno < logging.ERROR)
    host = WorkerHost(file, number, workers, Arena(shared), channel, PayloadLog.of(settings))
    server = WorkerServer(SharedApp(host, settings, channel), host, settings)
    verbs |= {
        "load": host.load, "drop": host.drop, "flip": host.flip, "slabs": host.slabs,
        "capture": host.capture,
        "tell_totals": host.tell_totals, "ready": host.begin, "stop": server.stop,
    }  # fmt: skip
    built.set()
    listening.add_done_callback(lambda _: server.stop())
    await answer(host, server, channel, socket.socket(fileno=listener), later)


async def answer(
    host: WorkerHost, server: WorkerServer, channel: Channel, listener: socket.socket, later: bool
) -> None:
    """Answer on a socket until the server stops; if `later`, from when every model can answer."""
    following = asyncio.create_task(keep_following(host))
    if host.payloads is not None:
        host.payloads.start()
    try:
        while later and not (host.ready or server.should_exit):  # noqa: ASYNC110 - either ends it
            await asyncio.sleep(FOLLOW_SECONDS)
        await server.serve([listener])
    finally:
        following.cancel()
        await host.close()
        if host.payloads is not None:
            await host.payloads.close()
        host.tell_totals()
        await channel.finish()
    leave(server.code)  # see process.serve


async def keep_following(host: WorkerHost) -> None:
    """Tell the supervisor again and again what was done."""
    turn = 0
    while True:
        await asyncio.sleep(FOLLOW_SECONDS)
        turn += 1
        try:
            host.follow()
            if turn * FOLLOW_SECONDS >= TOTALS_SECONDS:
                turn = 0
                host.tell_totals()
        except Exception:  # the next turn may do better; requests are answered meanwhile
            log.exception("the supervisor can't be told what was done")


def main(*descriptors: int) -> None:
    """Work with what was inherited: the control channel, the listening socket, the shared memory."""
    memory.one_arena()
    compiling.interpret()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(work(*descriptors))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
