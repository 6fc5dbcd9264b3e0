"""The serving process: bind, load, serve, stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from threading import Thread
from time import sleep
from typing import TYPE_CHECKING, NoReturn

import uvicorn

from driftline import __version__, logs
from driftline.backoff import backoff
from driftline.config import Server, ServerFile
from driftline.http import Coming, configuration, loop_factory
from driftline.machine import available_memory
from driftline.protocols import numbers
from driftline.registry.source import Reference, Registry
from driftline.serving import memory
from driftline.serving.app import App
from driftline.serving.fastlane import fast_lane
from driftline.serving.holder import Holder
from driftline.serving.host import Host
from driftline.serving.listening import expect_grpc, grpc_reserved, listens_on
from driftline.serving.notifier import Notifier
from driftline.serving.payloads.log import PayloadLog
from driftline.serving.served import Served
from driftline.sockets import BACKLOG, allow_connections, bind
from driftline_kernels import compiling

if TYPE_CHECKING:
    from driftline.serving.grpc.server import GrpcServer

log = logging.getLogger("driftline.serving")

KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers keep idle connections, so that none is closed under a request."""

GARBAGE = 20_000
"""Objects made and not freed again before the garbage collector looks for cycles among them."""


def serve(registry: Registry, references: Sequence[Reference], settings: Server, file: ServerFile) -> None:
    """Serve models until SIGTERM or SIGINT, then answer what is in flight and end the process, with code 0.

    Code 1 ends it, with a line in the log, when a card can compute nothing any more in this process: whoever
    started it starts it anew.

    The port is open, live and not ready, while the models are being loaded. SIGHUP looks at the registry
    at once. A second SIGTERM or SIGINT ends the process without waiting.

    Raises ConfigError if an address can't be bound, and whatever keeps a model from being loaded.
    """
    if settings.grpc_port is not None:
        expect_grpc()
    allow_connections()
    if settings.workers > 1:
        from driftline.serving.fleet.supervisor import supervise

        supervise(registry, references, settings, file)
        return
    memory.one_arena()
    compiling.interpret()
    logs.configure(settings.log_format, settings.log_level, settings.access_log)
    with (
        bind(settings.host, settings.port) as listener,
        grpc_reserved(settings) as settings,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        runner.run(_serve(registry, references, settings, file, listener))


async def _serve(
    registry: Registry,
    references: Sequence[Reference],
    settings: Server,
    file: ServerFile,
    listener: socket.socket,
) -> None:
    notifier, payloads = Notifier(settings), PayloadLog.of(settings)
    host = Host(registry, references, file, settings.poll_seconds, notifier, payloads, settings.exit_on_error)
    server = StoppableServer(host, settings)
    told, addresses = listens_on(listener, settings)
    log.info("driftline %s listens on %s", __version__, told, extra=addresses)
    serving = asyncio.create_task(server.serve([listener]))
    starting = asyncio.create_task(host.start())
    if payloads is not None:
        payloads.start()
    await asyncio.wait((serving, starting), return_when=asyncio.FIRST_COMPLETED)
    try:
        if starting.done():
            starting.result()
            warm_in_background(list(host.served()))
            host.announce()
        await serving
    finally:
        starting.cancel()
        server.should_exit = True
        await serving
        await host.close()
        if payloads is not None:
            await payloads.close()
        await asyncio.to_thread(notifier.close)
    log.info("stopped")
    leave(server.code)  # Python would wait for threads that compute still, or read from a disk that has gone


def warm_in_background(served: Sequence[Served]) -> None:
    """All is loaded that was asked for: make what is to come fast."""
    calm_collector()
    Thread(target=compile_kernels, args=(served,), name="driftline-kernels", daemon=True).start()


def compile_kernels(served: Sequence[Served]) -> None:
    """Load Numba and what waits for it, beside the first requests; again, where there is no room for it.

    Until then Python makes the features of these versions, and orjson reads all numbers.
    """
    for failures in count(1):
        try:
            load_kernels(served)
            return
        except Exception as error:  # no more files or memory may be had: that passes
            wait = backoff(failures)
            log.error("kernels can't be loaded: %s; requests take longer; next try in %.0f s", error, wait)
            sleep(wait)


def load_kernels(served: Sequence[Served]) -> None:
    """Load Numba and what waits for it, as far as it is not there yet."""
    compiling.load()
    for each in served:
        if not each.model.warm:
            each.warm_up()
    numbers.load()
    calm_collector()  # all of Numba has come since
    memory.leave_compiler()
    memory.give_back()


def calm_collector() -> None:
    """Keep the garbage collector from searching what stays: modules, models, routes.

    Requests are freed by their reference counts, so it has little to find; by default it looks at all that
    lives every few hundred of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)


class Stoppable(uvicorn.Server):
    """uvicorn, stopped when we say so.

    app   answers
    host  that it answers from
    code  that the process is to end with

    For `stop_delay_seconds` it goes on, until load balancers know: not ready, taking connections, and closing
    each behind its next answer. A client that keeps one would find it closed under a request.
    """

    def __init__(self, app: App, host: Holder, settings: Server) -> None:
        self._lane = fast_lane(app)
        Coming.most = max(settings.max_body_bytes, available_memory() // 4 // settings.workers)
        super().__init__(
            configuration(
                app,
                self._lane,
                access_log=settings.access_log,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
            )
        )
        self.code = 0
        self._holder = host
        self._delay = settings.stop_delay_seconds
        self._grpc = grpc_server(app, host, settings)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        if self._grpc is not None:
            await self._grpc.start()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End when what was taken is answered, or its time is over."""
        if self._grpc is None:
            await super().shutdown(sockets)
        else:
            await asyncio.gather(super().shutdown(sockets), self._grpc.stop())

    def stop(self) -> int:
        """Take no more, after the delay, and end when what was taken is answered; how many that are now."""
        self._holder.stopping = True
        if self._delay and self._holder.ready:
            self._lane.keep_alive = False
            asyncio.get_running_loop().call_later(self._delay, self._end)
        else:
            self._end()
        return sum(served.batcher.pending for served in self._holder.served())

    async def on_tick(self, counter: int) -> bool:
        """What uvicorn does ten times a second; and end, when a device is lost to this process."""
        if not self.code and (lost := self._holder.lost):
            log.critical("%s; this process ends, for another to take its place", lost)
            self.code = 1
            self._end()
        return await super().on_tick(counter)

    def _end(self) -> None:
        self._holder.ready = False
        self.should_exit = True


class StoppableServer(Stoppable):
    """With our signals: it stops with exit code 0, and a second signal does not wait."""

    def __init__(self, host: Host, settings: Server) -> None:
        super().__init__(App(host, settings), host, settings)
        self._host = host
        self._refreshing: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals while the server runs."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._refresh)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _stop(self, number: int) -> None:
        if self._host.stopping:
            log.warning("stopping at once")
            leave(128 + number)
        pending = self.stop()
        log.info("stopping: %d requests to finish", pending, extra={"pending": pending})

    def _refresh(self) -> None:
        log.info("SIGHUP: looking at the registry")
        self._refreshing = asyncio.create_task(self._host.refresh())


def grpc_server(app: App, host: Holder, settings: Server) -> GrpcServer | None:
    """What answers gRPC, if that is set."""
    if settings.grpc_port is None:
        return None
    from driftline.serving.grpc.server import GrpcServer

    return GrpcServer(app, host, settings)


def leave(code: int) -> NoReturn:
    """End the process now, whatever its threads do."""
    logging.shutdown()
    os._exit(code)
