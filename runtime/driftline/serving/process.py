"""The serving process: bind, load, serve, stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from driftline import __version__, logs
from driftline.config import Server, ServerFile
from driftline.http import loop_factory
from driftline.registry.source import Reference, Registry
from driftline.serving import memory
from driftline.serving.host import Host
from driftline.serving.http.app import App
from driftline.serving.kernels import warm_in_background
from driftline.serving.listening import listening_addresses, require_grpc, reserve_grpc_port
from driftline.serving.monitoring.notifier import Notifier
from driftline.serving.payloads.log import PayloadLog
from driftline.serving.server import GracefulServer
from driftline.sockets import allow_connections, bind
from driftline_kernels import compiling

log = logging.getLogger("driftline.serving")


def serve(registry: Registry, references: Sequence[Reference], settings: Server, file: ServerFile) -> None:
    """Serve models until SIGTERM or SIGINT, then finish the requests in flight and exit with code 0.

    Exits with code 1, and logs it, when a GPU can no longer be used from this process: its supervisor is
    expected to restart it.

    The port is open, live and not ready, while the models are being loaded. SIGHUP checks the registry at
    once. A second SIGTERM or SIGINT ends the process without waiting.

    Raises ConfigError if an address can't be bound, and the error of a model that can't be loaded.
    """
    if settings.grpc_port is not None:
        require_grpc()
    allow_connections()
    if settings.workers > 1:
        from driftline.serving.fleet.supervisor import supervise

        supervise(registry, references, settings, file)
        return
    memory.share_one_arena()
    compiling.interpret()
    logs.configure(settings.log_format, settings.log_level, settings.access_log)
    with (
        bind(settings.host, settings.port) as listener,
        reserve_grpc_port(settings) as settings,
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
    server = StandaloneServer(host, settings)
    text, addresses = listening_addresses(listener, settings)
    log.info("driftline %s listens on %s", __version__, text, extra=addresses)
    serving = asyncio.create_task(server.serve([listener]))
    loading = asyncio.create_task(host.start())
    if payloads is not None:
        payloads.start()
    await asyncio.wait((serving, loading), return_when=asyncio.FIRST_COMPLETED)
    try:
        if loading.done():
            loading.result()
            warm_in_background(list(host.served()))
            host.announce()
        await serving
    finally:
        loading.cancel()
        server.should_exit = True
        await serving
        await host.close()
        if payloads is not None:
            await payloads.close()
        await asyncio.to_thread(notifier.close)
    log.info("stopped")
    # Python's own exit would wait for threads that still compute, or that read from an unresponsive disk.
    exit_process(server.exit_code)


class StandaloneServer(GracefulServer):
    """The server of a process without workers: it handles the signals itself.

    SIGTERM and SIGINT stop it, a second one ends the process at once, SIGHUP checks the registry.
    """

    _host: Host

    def __init__(self, host: Host, settings: Server) -> None:
        super().__init__(App(host, settings), host, settings)
        self._refresh_task: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while the server runs."""
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
            exit_process(128 + number)
        pending = self.stop()
        log.info("stopping: %d requests to finish", pending, extra={"pending": pending})

    def _refresh(self) -> None:
        log.info("SIGHUP: looking at the registry")
        self._refresh_task = asyncio.create_task(self._host.refresh())


def exit_process(code: int) -> NoReturn:
    """End the process now, without waiting for its threads."""
    logging.shutdown()
    os._exit(code)
