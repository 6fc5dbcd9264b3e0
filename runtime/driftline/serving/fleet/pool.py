"""Worker processes, from the outside: started, told and asked, replaced when they die, stopped."""

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
from driftline.serving.fleet.channel import Channel, Gone, Verbs

log = logging.getLogger("driftline.fleet")

STOP_SECONDS = 10.0
"""Seconds that a worker may take to end, beyond the delay and the time to drain."""

SILENT_SECONDS = 60
"""A process that has said nothing for so long hangs: one that is well does so twice a second."""


class Worker:
    """One place among the workers; the processes that take it come and go.

    number    from 0; of the listening socket and the slab that it has
    channel   to the process
    loaded    the keys of the versions that the process has
    live      whether it has all that it should have, and is told what is done
    """

    def __init__(self, number: int, listener: socket.socket) -> None:
        self.number = number
        self.listener = listener
        self.process: asyncio.subprocess.Process | None = None
        self.channel: Channel
        self.loaded: set[int] = set()
        self.live = False


class WorkerPool:
    """All workers, and their processes.

    listeners  a socket for each, which stays open here: who waits to be accepted waits for the next process
    settings   of the server, and what its file says of models
    prepare    gives a new process what it should have; it is live when that returns
    on_exit    is told of each process that has ended
    verbs      what is done about a worker's messages; each is called with the worker first
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        arena: Arena,
        settings: tuple[Server, ServerFile],
        prepare: Callable[[Worker], Awaitable[None]],
        on_exit: Callable[[Worker], None],
        verbs: Verbs,
    ) -> None:
        self.workers = [Worker(number, listener) for number, listener in enumerate(listeners)]
        self._arena = arena
        self._settings = settings
        self._prepare = prepare
        self._on_exit = on_exit
        self._verbs = verbs
        self._stopping = False
        self._starting: list[asyncio.Future[None]] = []
        self._lives: list[asyncio.Task[None]] = []

    @property
    def live(self) -> list[Worker]:
        """The workers that have all that they should have."""
        return [worker for worker in self.workers if worker.live]

    @property
    def processes(self) -> list[int]:
        """The process ids of those that run."""
        return [worker.process.pid for worker in self.workers if worker.process is not None]

    async def start(self) -> None:
        """Start all; DriftlineError if one ends before it is live."""
        loop = asyncio.get_running_loop()
        self._starting = [loop.create_future() for _ in self.workers]
        self._lives = [asyncio.create_task(self._keep(worker)) for worker in self.workers]
        await asyncio.gather(*self._starting)

    def tell(self, verb: str, *arguments: object) -> None:
        """Tell every live worker."""
        for worker in self.live:
            worker.channel.tell(verb, *arguments)

    async def ask(self, verb: str, *arguments: object) -> dict[Worker, Any]:
        """Ask every live worker; the answer, or the error, of each that has not died over it."""
        asked = self.live
        answers = await asyncio.gather(
            *(worker.channel.ask(verb, *arguments) for worker in asked), return_exceptions=True
        )
        return {
            worker: answer
            for worker, answer in zip(asked, answers, strict=True)
            if not isinstance(answer, Gone)
        }

    async def stop(self) -> None:
        """Let all finish what they have taken, and end."""
        self._stopping = True
        for worker, life in zip(self.workers, self._lives, strict=False):
            worker.listener.close()
            if worker.process is not None:
                worker.channel.tell("stop")
            else:
                life.cancel()  # it waits to try again
        if self._lives:
            server = self._settings[0]
            most = server.stop_delay_seconds + server.drain_seconds + STOP_SECONDS
            _, late = await asyncio.wait(self._lives, timeout=most)
            if late:
                log.error("%d workers do not end: they are killed", len(late))
                self.kill()
            await asyncio.gather(*late, return_exceptions=True)

    def kill(self) -> None:
        """End all, now."""
        for worker in self.workers:
            if worker.process is not None:
                with suppress(ProcessLookupError):
                    worker.process.kill()

    async def _keep(self, worker: Worker) -> None:
        """Have a process in a worker's place, one after the other."""
        failures = 0
        while not self._stopping:
            failures = 0 if await self._live(worker) else failures + 1
            if failures and not self._stopping:
                await asyncio.sleep(backoff(failures))

    async def _live(self, worker: Worker) -> bool:
        """The life of one process; whether it was live."""
        try:
            process = await self._spawn(worker)
        except OSError as error:
            self._has_ended(worker, None, f"can't be started: {error.strerror}")
            return False
        talking = asyncio.create_task(self._talk(worker))
        watching = asyncio.create_task(self._watch(worker, process))
        if self._stopping:
            worker.channel.tell("stop")
        code = await process.wait()
        watching.cancel()
        lived, worker.live, worker.process = worker.live, False, None
        with suppress(Exception):
            await talking
        try:
            self._on_exit(worker)
        except Exception:  # another takes its place all the same
            log.exception("what worker %d has done is lost", worker.number)
        worker.loaded.clear()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        self._has_ended(worker, process.pid, how, code)
        return lived

    async def _watch(self, worker: Worker, process: asyncio.subprocess.Process) -> None:
        """Kill a process that hangs, for which clients, pages and swaps would wait without end."""
        silent = heard = 0
        while silent < SILENT_SECONDS:
            await asyncio.sleep(1.0)  # counted, not measured: all processes may have stood still together
            silent = silent + 1 if heard and heard == worker.channel.heard else 0
            heard = worker.channel.heard
        log.error("worker %d has said nothing for %d s: it is killed", worker.number, SILENT_SECONDS)
        process.kill()

    def _has_ended(self, worker: Worker, pid: int | None, how: str, code: int | None = None) -> None:
        """Say that a worker has no process; at the start, that is the end of all."""
        if not (starting := self._starting[worker.number]).done():
            starting.set_exception(DriftlineError(f"worker {worker.number} {how} at the start"))
            self._stopping = True
        if not self._stopping:
            log.error(
                "worker %d %s; another takes its place", worker.number, how,
                extra={"worker": worker.number, "pid": pid, "code": code},
            )  # fmt: skip

    async def _spawn(self, worker: Worker) -> asyncio.subprocess.Process:
        """Start a process, and talk to it."""
        process, end = await child_process.spawn(
            "driftline.serving.fleet.worker", worker.listener.fileno(), self._arena.descriptor
        )
        verbs = {verb: partial(do, worker) for verb, do in self._verbs.items()}
        worker.channel = Channel(end, verbs)
        await worker.channel.open()
        worker.process = process
        return process

    async def _talk(self, worker: Worker) -> None:
        """Make a process live, and listen to it until it ends."""
        listening = asyncio.create_task(worker.channel.run())
        try:
            # The first ones answer that they are not ready; who comes later takes no one before it is.
            later = self._starting[worker.number].done()
            await worker.channel.ask("begin", *self._settings, worker.number, len(self.workers), later)
            await self._prepare(worker)
            worker.live = True
            if not (starting := self._starting[worker.number]).done():
                starting.set_result(None)
        except Gone:
            pass
        except Exception as error:
            log.error(
                "worker %d can't begin: %s", worker.number, error,
                exc_info=None if isinstance(error, DriftlineError) else error,
            )  # fmt: skip
            worker.channel.tell("stop")
        await listening
