"""The supervisor's process: bind, start workers, follow the registry, stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from driftline import __version__, logs
from driftline.config import Server, ServerFile
from driftline.http import loop_factory
from driftline.registry.source import Reference, Registry
from driftline.serving import memory
from driftline.serving.fleet.host import FleetHost
from driftline.serving.kernels import tune_garbage_collector
from driftline.serving.listening import listening_addresses, reserve_grpc_port
from driftline.serving.monitoring.notifier import Notifier
from driftline.serving.payloads.log import PayloadLog
from driftline.serving.process import exit_process
from driftline.sockets import BACKLOG, bind_shared

log = logging.getLogger("driftline.serving")


def supervise(
    registry: Registry, references: Sequence[Reference], settings: Server, file: ServerFile
) -> None:
    """Serve as `process.serve` does, with `settings.workers` processes."""
    memory.share_one_arena()
    logs.configure(settings.log_format, settings.log_level, settings.access_log)
    with ExitStack() as listeners:
        sockets = bind_together(settings.host, settings.port, settings.workers)
        for listener in sockets:
            listeners.enter_context(listener)
        settings = listeners.enter_context(reserve_grpc_port(settings))
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_supervise(registry, references, settings, file, sockets))


async def _supervise(
    registry: Registry,
    references: Sequence[Reference],
    settings: Server,
    file: ServerFile,
    listeners: Sequence[socket.socket],
) -> None:
    notifier = Notifier(settings)
    PayloadLog.of(settings)  # each worker opens its own; here, wrong settings are reported once
    host = FleetHost(registry, references, file, settings, listeners, notifier)
    stopping = asyncio.Event()
    _handle_signals(host, stopping)
    text, addresses = listening_addresses(listeners[0], settings)
    log.info(
        "driftline %s listens on %s, %d workers", __version__, text, settings.workers,
        extra={**addresses, "workers": settings.workers},
    )  # fmt: skip
    start_task = asyncio.create_task(host.start())
    stop_task = asyncio.create_task(stopping.wait())
    await asyncio.wait((start_task, stop_task), return_when=asyncio.FIRST_COMPLETED)
    try:
        if start_task.done():
            start_task.result()
            tune_garbage_collector()
            host.announce()
        await stop_task
    finally:
        start_task.cancel()
        stop_task.cancel()
        await host.stop()
        await host.close()
        await asyncio.to_thread(notifier.close)
    log.info("stopped")
    exit_process(0)  # see process.serve


def _handle_signals(host: FleetHost, stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    refreshing: set[asyncio.Task[None]] = set()

    def stop(number: int) -> None:
        if stopping.is_set():
            log.warning("stopping at once")
            host.pool.kill()
            exit_process(128 + number)
        log.info("stopping: %d requests to finish", host.pending, extra={"pending": host.pending})
        stopping.set()

    def refresh() -> None:
        log.info("SIGHUP: looking at the registry")
        refreshing.add(task := asyncio.create_task(host.refresh()))
        task.add_done_callback(refreshing.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(signal.SIGHUP, refresh)


def bind_together(host: str, port: int, number: int) -> list[socket.socket]:
    """Return `number` sockets listening on one address; the system spreads connections among them.

    Raises ConfigError if the address can't be bound.
    """
    sockets = bind_shared(host, port, number)
    for listener in sockets:
        listener.listen(BACKLOG)
    return sockets
