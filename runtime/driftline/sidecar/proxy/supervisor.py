"""The proxy's process, with the agent as a process beside it.

Two processes, since decoding a body holds Python's lock for its whole duration, and statistics for longer: no
request waits for that. An agent that dies is replaced while requests pass, and the next one continues from
its checkpoint.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from contextlib import suppress
from itertools import count
from time import monotonic

from driftline import __version__, child_process, logs
from driftline.backoff import backoff
from driftline.child_process import SharedCounts
from driftline.config import Monitoring, Sidecar
from driftline.errors import ConfigError
from driftline.http import loop_factory
from driftline.sidecar.proxy.proxy import Proxy
from driftline.sidecar.proxy.tap import COUNTERS, Tap
from driftline.sockets import address_of, allow_connections, bind

log = logging.getLogger("driftline.sidecar")

END_SECONDS = 30.0
"""Time limit for an agent to count what still waits at the end."""


def supervise(settings: Sidecar, monitoring: Monitoring) -> None:
    """Forward requests to the upstream and watch them, until SIGTERM or SIGINT.

    Raises ConfigError if an address can't be bound, or if the agent can't start.
    """
    logs.configure(settings.log_format, settings.log_level, access_log=False)
    allow_connections()
    with (
        bind(settings.host, settings.proxy_port) as traffic,
        bind(settings.host, settings.port) as pages,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        runner.run(Supervisor(settings, monitoring, traffic, pages).run())


class Supervisor:
    """The proxy, and one agent after another.

    traffic  the socket that clients connect to
    pages    the agent's socket, which it inherits
    """

    def __init__(
        self, settings: Sidecar, monitoring: Monitoring, traffic: socket.socket, pages: socket.socket
    ) -> None:
        self._settings = settings
        self._monitoring = monitoring
        self._traffic = traffic
        self._pages = pages
        self._shared = SharedCounts.new(COUNTERS)
        self._tap = Tap(settings.copy_queue_bytes, self._shared)
        self._proxy = Proxy(settings.upstream, self._tap, self._shared, settings.copy_body_bytes)
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Run the proxy and the agent until a signal."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        self._pages.listen()
        await self._proxy.start(self._traffic)
        log.info(
            "driftline %s passes %s to %s, and shows drift on %s", __version__,
            address_of(self._traffic), self._settings.upstream, address_of(self._pages),
            extra={"address": address_of(self._pages), "traffic": address_of(self._traffic)},
        )  # fmt: skip
        keeper = asyncio.create_task(self._keep_agent())
        stop_requested = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((keeper, stop_requested), return_when=asyncio.FIRST_COMPLETED)
        self._stopping.set()
        if not keeper.done():
            self._proxy.stopping = True  # a kept connection might be closed during a request
            await asyncio.sleep(self._settings.stop_delay_seconds)
        await self._proxy.stop(0 if keeper.done() else self._settings.drain_seconds)
        self._tap.close()
        await keeper
        log.info("stopped")

    def _stop(self, number: int) -> None:
        if self._stopping.is_set():
            log.warning("stopping at once")
            os._exit(128 + number)
        self._stopping.set()

    async def _keep_agent(self) -> None:
        """Keep an agent running; ConfigError if the first one can't start."""
        deaths = 0
        for number in count():
            started = monotonic()
            try:
                code = await self._run_agent()
                reason = "can't begin: its log says why" if code == 2 else f"has ended with code {code}"
            except OSError as error:
                code, reason = None, f"can't be started: {error.strerror}"
            if self._stopping.is_set():
                return
            if number == 0 and code in (2, None):
                raise ConfigError(f"the agent {reason}")
            deaths = child_process.deaths_in_a_row(deaths, started)
            wait_seconds = backoff(deaths - 1)
            log.error("the agent %s; another starts in %g s", reason, wait_seconds)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_seconds or 0.01)
                return

    async def _run_agent(self) -> int:
        """Run an agent until it ends; return its exit code."""
        process = await self._spawn()
        ended = asyncio.create_task(process.wait())
        stop_requested = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((ended, stop_requested), return_when=asyncio.FIRST_COMPLETED)
        if self._stopping.is_set():
            await self._end_agent(process, ended)
        stop_requested.cancel()
        return await ended

    async def _end_agent(self, process: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> None:
        """Let the agent count what still waits."""
        drain_seconds = self._settings.stop_delay_seconds + self._settings.drain_seconds
        _, pending = await asyncio.wait((ended,), timeout=drain_seconds + END_SECONDS)
        if pending:
            log.error("the agent does not end: it is killed")
            process.kill()
            await ended

    async def _spawn(self) -> asyncio.subprocess.Process:
        """Start an agent, which shares two sockets and a page of memory."""
        settings = (self._settings, self._monitoring)
        descriptors = (self._shared.descriptor, self._pages.fileno())
        process, end = await child_process.start("driftline.sidecar.proxy.child", settings, *descriptors)
        await self._tap.open(end)
        return process
