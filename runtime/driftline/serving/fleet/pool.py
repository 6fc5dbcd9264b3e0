"""The supervisor's worker processes: starts, replaces and stops them, and exchanges messages with them."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from driftline import child_process
from driftline.backoff import backoff
from driftline.config import Server, ServerFile
from driftline.errors import DriftlineError
from driftline.serving.fleet.arena import Arena
from driftline.serving.fleet.channel import Channel, Handlers, PeerGone

log = logging.getLogger("driftline.fleet")

STOP_SECONDS = 10.0
"""Seconds that a worker may take to end, beyond the stop delay and the drain time."""

HANG_SECONDS = 60
"""A process that sends nothing for so long hangs: a healthy one reports twice a second."""

UNRESPONSIVE_SECONDS = 3
"""For one that has said nothing for so long, others accept connections meanwhile."""


class Worker:
    """One of the workers; when its process ends, another one replaces it.

    number        from 0; selects its listening socket and its slab
    process       its current process, if one runs
    channel       to that process
    loaded        the keys of the versions that the process has loaded
    live          whether the process has loaded all versions and gets every message
    unresponsive  whether the process has said nothing for UNRESPONSIVE_SECONDS
    covers        the numbers of workers for which the process accepts connections, besides its own
    """

    def __init__(self, number: int, listener: socket.socket) -> None:
        self.number = number
        self.listener = listener
        self.process: asyncio.subprocess.Process | None = None
        self.channel: Channel
        self.loaded: set[int] = set()
        self.live = False
        self.unresponsive = False
        self.covers: list[int] = []


class WorkerPool:
    """All workers, and their processes.

    The system spreads connections over the listening sockets, whether or not anybody accepts there. So while
    a worker has no process that can, another one accepts on its socket.

    listeners  a socket for each, kept open here: connections not yet accepted wait for the next process
    settings   of the server, and of models in its file
    prepare    has a new process load what the others have; the process is live when that returns
    on_exit    called with the worker when its process has ended
    handlers   called for a worker's messages, with the worker as the first argument
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        arena: Arena,
        settings: tuple[Server, ServerFile],
        prepare: Callable[[Worker], Awaitable[None]],
        on_exit: Callable[[Worker], None],
        handlers: Handlers,
    ) -> None:
        self.workers = [Worker(number, listener) for number, listener in enumerate(listeners)]
        self._arena = arena
        self._settings = settings
        self._prepare = prepare
        self._on_exit = on_exit
        self._handlers = handlers
        self._stopping = False
        self._starting: list[asyncio.Future[None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def live(self) -> list[Worker]:
        """The workers whose process has loaded all versions."""
        return [worker for worker in self.workers if worker.live]

    @property
    def processes(self) -> list[int]:
        """The ids of the processes that run."""
        return [worker.process.pid for worker in self.workers if worker.process is not None]

    async def start(self) -> None:
        """Start a process for each worker; DriftlineError if one ends before it is live."""
        loop = asyncio.get_running_loop()
        self._starting = [loop.create_future() for _ in self.workers]
        self._tasks = [asyncio.create_task(self._keep_running(worker)) for worker in self.workers]
        await asyncio.gather(*self._starting)

    def tell(self, name: str, *arguments: object) -> None:
        """Send a message to every live worker."""
        for worker in self.live:
            worker.channel.tell(name, *arguments)

    async def ask(self, name: str, *arguments: object) -> dict[Worker, Any]:
        """Send a request to every live worker; return the response or error of each that has not ended."""
        workers = self.live
        responses = await asyncio.gather(
            *(worker.channel.ask(name, *arguments) for worker in workers), return_exceptions=True
        )
        return {
            worker: response
            for worker, response in zip(workers, responses, strict=True)
            if not isinstance(response, PeerGone)
        }

    async def stop(self) -> None:
        """Let every process finish its requests and end; kill those that are late."""
        self._stopping = True
        self._cover()
        for worker, task in zip(self.workers, self._tasks, strict=False):
            if worker.process is not None:
                worker.channel.tell("stop")
            else:
                task.cancel()  # it waits before a retry
        if self._tasks:
            server = self._settings[0]
            limit = server.stop_delay_seconds + server.drain_seconds + STOP_SECONDS
            _, late = await asyncio.wait(self._tasks, timeout=limit)
            if late:
                log.error("%d workers have not ended within %g s: they are killed", len(late), limit)
                self.kill()
                await asyncio.wait(late, timeout=STOP_SECONDS)  # one may wait for a dead disk or GPU

    def kill(self) -> None:
        """Kill all processes."""
        for worker in self.workers:
            if worker.process is not None:
                with suppress(ProcessLookupError):
                    worker.process.kill()

    def _cover(self) -> None:
        """Share the sockets of workers that can't accept among those that can.

        When the server stops, end the sockets on which nobody accepts: connections would wait there until the
        worker is killed.
        """
        if self._stopping:
            covered = {number for worker in self.workers for number in worker.covers}
            for worker in self.workers:
                if worker.unresponsive and worker.number not in covered:
                    with suppress(OSError):
                        worker.listener.shutdown(socket.SHUT_RDWR)
            return
        accepting = [worker for worker in self.live if not worker.unresponsive]
        started = [worker for worker in self.workers if self._starting[worker.number].done()]
        vacant = [worker.number for worker in started if worker not in accepting]
        for index, worker in enumerate(accepting):
            share = vacant[index :: len(accepting)]
            if worker.covers != share:
                worker.covers = share
                worker.channel.tell("cover", share)

    async def _keep_running(self, worker: Worker) -> None:
        """Run one process after the other for a worker, until the pool stops."""
        failures = 0
        try:
            while not self._stopping:
                try:
                    was_live = await self._run_process(worker)
                except Exception:  # the worker is needed all the same
                    log.exception("the process of worker %d is no longer followed", worker.number)
                    was_live = False
                failures = 0 if was_live else failures + 1
                if failures and not self._stopping:
                    await asyncio.sleep(backoff(failures))
        finally:
            worker.listener.close()

    async def _run_process(self, worker: Worker) -> bool:
        """Run one process for a worker until it ends; return whether it was ever live."""
        try:
            process = await self._spawn(worker)
        except OSError as error:
            self._report_end(worker, None, f"can't be started: {error.strerror}")
            return False
        communication = asyncio.create_task(self._communicate(worker))
        hang_watch = asyncio.create_task(self._kill_if_hung(worker, process))
        if self._stopping:
            worker.channel.tell("stop")
        code = await process.wait()
        hang_watch.cancel()
        was_live, worker.live, worker.process = worker.live, False, None
        worker.unresponsive, worker.covers = False, []
        self._cover()
        with suppress(Exception):
            await communication
        try:
            self._on_exit(worker)
        except Exception:  # it is replaced all the same
            log.exception("what worker %d has done is lost", worker.number)
        worker.loaded.clear()
        ending = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        self._report_end(worker, process.pid, ending, code)
        return was_live

    async def _kill_if_hung(self, worker: Worker, process: asyncio.subprocess.Process) -> None:
        """Kill a process that hangs: clients, pages and swaps would wait for it forever."""
        silent_seconds = received = 0
        while silent_seconds < HANG_SECONDS:
            await asyncio.sleep(1.0)  # counted, not measured: the whole machine may have been suspended
            silent_seconds = silent_seconds + 1 if received and received == worker.channel.received else 0
            received = worker.channel.received
            if worker.unresponsive != (silent_seconds >= UNRESPONSIVE_SECONDS):
                worker.unresponsive = not worker.unresponsive
                if worker.unresponsive:
                    log.warning("worker %d has said nothing for %d s", worker.number, silent_seconds)
                self._cover()
        log.error("worker %d has said nothing for %d s: it is killed", worker.number, HANG_SECONDS)
        process.kill()

    def _report_end(self, worker: Worker, pid: int | None, ending: str, code: int | None = None) -> None:
        """Log that a process has ended or can't be started; during the server's start, also stop the pool."""
        if not (starting := self._starting[worker.number]).done():
            starting.set_exception(DriftlineError(f"worker {worker.number} {ending} at the start"))
            self._stopping = True
        if not self._stopping:
            log.error(
                "worker %d %s; another takes its place", worker.number, ending,
                extra={"worker": worker.number, "pid": pid, "code": code},
            )  # fmt: skip

    async def _spawn(self, worker: Worker) -> asyncio.subprocess.Process:
        """Start a process, with a channel to it."""
        process, end = await child_process.spawn(
            "driftline.serving.fleet.worker",
            self._arena.descriptor,
            *(other.listener.fileno() for other in self.workers),
        )
        handlers = {name: partial(handler, worker) for name, handler in self._handlers.items()}
        worker.channel = Channel(end, handlers)
        await worker.channel.open()
        worker.process = process
        return process

    async def _communicate(self, worker: Worker) -> None:
        """Make a process live and handle its messages until it ends."""
        channel_task = asyncio.create_task(worker.channel.run())
        try:
            # During the server's start, workers respond that they are not ready. A replacement accepts no
            # request before it is ready, since the other workers are.
            wait_ready = self._starting[worker.number].done()
            await worker.channel.ask("begin", *self._settings, worker.number, len(self.workers), wait_ready)
            await self._prepare(worker)
            worker.live = True
            if not (starting := self._starting[worker.number]).done():
                starting.set_result(None)
            self._cover()
        except PeerGone:
            pass
        except Exception as error:
            log.error(
                "worker %d can't begin: %s", worker.number, error,
                exc_info=None if isinstance(error, DriftlineError) else error,
            )  # fmt: skip
            worker.channel.tell("stop")
        await channel_task
