"""The agent's process: load, restore the checkpoint, observe, serve pages, stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from driftline import __version__, logs
from driftline.config import Monitoring, Sidecar
from driftline.errors import ConfigError
from driftline.http import HttpConnection, configuration, loop_factory
from driftline.monitor import checkpoint
from driftline.monitor.observer import TICK_SECONDS
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reporting.webhook import Webhook
from driftline.sidecar.agent import Agent, Checkpoints, Source
from driftline.sidecar.logs import posts
from driftline.sidecar.logs.events import Events
from driftline.sidecar.pages import Pages
from driftline.sockets import BACKLOG, address_of, allow_connections, bind

log = logging.getLogger("driftline.sidecar")


def monitor(settings: Sidecar, monitoring: Monitoring) -> None:
    """Watch the configured sources until SIGTERM or SIGINT, then count what was received, and return.

    Raises ConfigError if the address can't be bound, BadRequest if the profile can't be read, or if the
    checkpoint is some other file or can't be written.
    """
    logs.configure(settings.log_format, settings.log_level, access_log=False)
    configured = sources(settings)
    if not configured:
        raise ConfigError("expected a source: --upstream URL, --listen or --files GLOB")
    agent = make_agent(settings, monitoring)
    allow_connections()
    with bind(settings.host, settings.port) as listener:
        address = address_of(listener)
        log.info("driftline %s shows drift on %s", __version__, address, extra={"address": address})
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_run_alone(agent, configured, settings, listener))


def sources(settings: Sidecar) -> list[Source]:
    """Return the sources that the settings name."""
    configured: list[Source] = []
    if settings.listen:
        configured.append(Events(settings.event_queue_bytes, settings.join_bytes, settings.join_seconds))
    if settings.files:
        from driftline.sidecar.logs.files import Files  # Parquet takes 0.3 s to import

        configured.append(Files(settings.files, settings.join_bytes, settings.join_seconds))
    return configured


def make_agent(settings: Sidecar, monitoring: Monitoring) -> Agent:
    """Make the agent of these settings; BadRequest if its files are not what they should be."""
    if settings.checkpoint:
        checkpoint.check(Path(settings.checkpoint))
    profile = Profile.load(settings.profile)
    webhook = Webhook(settings.alarm_webhook) if settings.alarm_webhook else None
    return Agent(profile, settings.name, monitoring, webhook, only=bool(settings.model))


async def _run_alone(
    agent: Agent, sources: Sequence[Source], settings: Sidecar, listener: socket.socket
) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await run(agent, sources, settings, listener, stopping)


async def run(
    agent: Agent,
    sources: Sequence[Source],
    settings: Sidecar,
    listener: socket.socket,
    stopping: asyncio.Event,
) -> None:
    """Run an agent until it is told to stop; DriftlineError if it can't start."""
    server = Server(Pages(agent, sources), protocol_of(sources))
    serving = asyncio.create_task(server.serve([listener]))
    checkpoints = ticking = None
    started: list[Source] = []
    try:
        await agent.load()
        states: Mapping[str, Any] = {}
        if settings.checkpoint:
            path, seconds = Path(settings.checkpoint), settings.checkpoint_seconds
            checkpoints = Checkpoints(path, seconds, agent, sources)
            states = checkpoints.load()
            checkpoints.start()
        ticking = asyncio.create_task(_keep_time(agent))
        for source in sources:
            await source.start(agent, states.get(source.name))
            started.append(source)
        log.info("ready: watching %s", agent.model)
        await asyncio.wait(
            (serving, asyncio.create_task(stopping.wait())), return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        for source in started:
            await source.close()
        if ticking is not None:
            ticking.cancel()
        if checkpoints is not None:
            await asyncio.to_thread(checkpoints.close)
        server.should_exit = True
        await serving
        await asyncio.to_thread(agent.close, finish=checkpoints is None)
    log.info("stopped")


async def _keep_time(agent: Agent) -> None:
    """Do what is due by the clock in a thread, since observing threads may make it wait."""
    while True:
        await asyncio.sleep(TICK_SECONDS)
        await asyncio.to_thread(agent.observer.keep_time)


def protocol_of(sources: Sequence[Source]) -> type[HttpConnection]:
    """Return the protocol class for these sources."""
    for source in sources:
        if isinstance(source, Events):
            return posts.connection(source)
    return HttpConnection


class Server(uvicorn.Server):
    """uvicorn without its signal handlers."""

    def __init__(self, app: Pages, protocol: type[HttpConnection]) -> None:
        super().__init__(
            configuration(app, protocol, access_log=False, backlog=BACKLOG, timeout_graceful_shutdown=5)
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle none."""
        yield
