"""The process of a worker: serves the versions that the supervisor loads into it, on its own socket."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from driftline import logs
from driftline.config import Server, ServerFile
from driftline.http import loop_factory
from driftline.serving import memory
from driftline.serving.fleet.arena import Arena
from driftline.serving.fleet.channel import Channel
from driftline.serving.fleet.pages import SharedApp
from driftline.serving.fleet.worker_host import WorkerHost
from driftline.serving.payloads.log import PayloadLog
from driftline.serving.process import exit_process
from driftline.serving.server import GracefulServer
from driftline_kernels import compiling

log = logging.getLogger("driftline.fleet")

FOLLOW_SECONDS = 0.05
"""Seconds between two checks for requests of the supervisor's monitors."""

TOTALS_SECONDS = 0.5
"""Seconds between two reports of totals: a killed worker's totals since its last one are lost."""

RETRY_SECONDS = 1.0
"""Seconds between two attempts to accept connections for other workers."""


class WorkerServer(GracefulServer):
    """Stops on SIGTERM, to be replaced, or with the whole server, see `stop_for_good`.

    Ignores signals of a terminal to all processes, which the supervisor handles.

    listeners  the sockets of all workers
    number     of this worker: which of them is its own
    """

    def __init__(
        self,
        app: SharedApp,
        host: WorkerHost,
        settings: Server,
        listeners: Sequence[socket.socket],
        number: int,
    ) -> None:
        super().__init__(app, host, settings)
        self._listeners = listeners
        self._number = number
        self._covering: dict[int, asyncio.Server] = {}
        self._to_cover: set[int] = set()
        self._for_good = False
        self._cover_lock = asyncio.Lock()

    async def serve_own_socket(self) -> None:
        """Accept connections on its own socket, and serve until it stops."""
        await self.serve([self._listeners[self._number]])

    async def cover(self, numbers: Sequence[int]) -> None:
        """Accept connections on the sockets of these other workers, and on those of no others.

        Tried again while it fails, for lack of open files, say.
        """
        self._to_cover = set(numbers)
        async with self._cover_lock:
            while not (self.started or self.should_exit):  # noqa: ASYNC110 - either ends it
                await asyncio.sleep(FOLLOW_SECONDS)
            warned = False
            while not (self._host.stopping or self.should_exit) and self._covering.keys() != self._to_cover:
                try:
                    await self._cover()
                except OSError as error:
                    if not warned:
                        log.warning("connections can't be accepted for other workers: %s", error.strerror)
                    warned = True
                    await asyncio.sleep(RETRY_SECONDS)

    async def _cover(self) -> None:
        """Stop and begin to accept on others' sockets, as `_to_cover` says."""
        for number in self._covering.keys() - self._to_cover:
            server = self._covering.pop(number)
            self.servers.remove(server)
            server.close()
        config, loop = self.config, asyncio.get_running_loop()
        protocol: Callable[[], asyncio.Protocol] = partial(
            config.http_protocol_class,  # type: ignore[call-arg]
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        for number in self._to_cover - self._covering.keys():
            # A duplicate, since a server closes its socket.
            listener = self._listeners[number].dup()
            try:
                server = await loop.create_server(protocol, sock=listener, backlog=config.backlog)
            except BaseException:
                listener.close()
                raise
            self._covering[number] = server
            self.servers.append(server)

    def stop(self) -> int:
        """See GracefulServer. Open here, another worker's socket would queue connections after its end."""
        for number, listener in enumerate(self._listeners):
            if number != self._number and number not in self._covering:
                listener.close()
        return super().stop()

    def stop_for_good(self) -> int:
        """Stop, and end the sockets for all processes: one that hangs would keep them open."""
        self._for_good = True
        return self.stop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See GracefulServer. Unless for good, connections wait in the sockets for the next who accepts."""
        if self._for_good:
            for listener in (*(sockets or ()), *(self._listeners[number] for number in self._covering)):
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
        for server in self.servers:  # at once: it must not try to accept
            server.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while the server runs."""
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


async def work(control: int, shared: int, *listeners: int) -> None:
    """Serve until the supervisor sends stop, or ends.

    control    file descriptor of the socket to the supervisor
    shared     of the shared memory
    listeners  of the sockets that clients connect to, one for each worker
    """
    sockets = [socket.socket(fileno=listener) for listener in listeners]
    setup: asyncio.Future[tuple[WorkerHost, WorkerServer, bool]] = asyncio.Future()

    async def begin(settings: Server, file: ServerFile, number: int, workers: int, wait_ready: bool) -> None:
        configure_logs(settings)
        host = WorkerHost(file, number, workers, Arena(shared), channel, PayloadLog.of(settings))
        server = WorkerServer(SharedApp(host, settings, channel), host, settings, sockets, number)
        handlers.update(
            load=host.load,
            drop=host.drop,
            flip=host.flip,
            slabs=host.set_slabs,
            capture=host.capture,
            tell_totals=host.tell_totals,
            ready=host.begin,
            cover=server.cover,
            stop=server.stop_for_good,
        )
        setup.set_result((host, server, wait_ready))

    handlers: dict[str, Any] = {"begin": begin, "stop": lambda: exit_process(0)}
    channel = Channel(socket.socket(fileno=control), handlers)
    await channel.open()
    channel_task = asyncio.create_task(channel.run())
    channel_task.add_done_callback(lambda _: setup.cancel())
    with suppress(asyncio.CancelledError):
        await setup
    if setup.cancelled():
        return
    host, server, wait_ready = setup.result()
    channel_task.add_done_callback(lambda _: server.stop_for_good())
    await serve(host, server, channel, wait_ready)


def configure_logs(settings: Server) -> None:
    """Log as the supervisor does, except for what it logs once for all workers: versions and monitors."""
    logs.configure(settings.log_format, settings.log_level, settings.access_log)
    logging.getLogger("driftline.host").setLevel(logging.WARNING)
    logging.getLogger("driftline.monitor").addFilter(lambda record: record.levelno < logging.ERROR)


async def serve(host: WorkerHost, server: WorkerServer, channel: Channel, wait_ready: bool) -> None:
    """Serve until the server stops; if `wait_ready`, start once all models are loaded."""
    follower = asyncio.create_task(keep_following(host))
    if host.payloads is not None:
        host.payloads.start()
    try:
        while wait_ready and not (host.ready or server.should_exit):  # noqa: ASYNC110 - either ends it
            await asyncio.sleep(FOLLOW_SECONDS)
        await server.serve_own_socket()
    finally:
        follower.cancel()
        await host.close()
        if host.payloads is not None:
            await host.payloads.close()
        host.tell_totals()
        await channel.finish()
    exit_process(server.exit_code)  # see process.serve


async def keep_following(host: WorkerHost) -> None:
    """Hand over counts and totals to the supervisor at intervals."""
    turns = 0
    while True:
        await asyncio.sleep(FOLLOW_SECONDS)
        turns += 1
        try:
            host.follow()
            if turns * FOLLOW_SECONDS >= TOTALS_SECONDS:
                turns = 0
                host.tell_totals()
        except Exception:  # the next turn may succeed; requests are served meanwhile
            log.exception("counts can't be handed to the supervisor")


def main(*descriptors: int) -> None:
    """Run a worker; see `work` for the inherited file descriptors."""
    memory.share_one_arena()
    compiling.interpret()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(work(*descriptors))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
