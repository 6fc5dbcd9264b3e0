"""Logs the payloads of a server in a separate process.

No request waits for the log. Exchanges (a request and its response) go to the logging process over a socket,
several at once. That process counts in shared memory what it has logged, and is sent at most WINDOW_BYTES
beyond that; more exchanges wait in a queue here, which drops the oldest when it is full. Exchanges are
skipped when handing them over would take too much time from requests: a busy server logs a sample.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import random
import struct
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from math import log1p
from time import monotonic, perf_counter, time

from driftline import child_process
from driftline.backoff import backoff
from driftline.child_process import SharedCounts
from driftline.config import Server
from driftline.errors import ConfigError
from driftline.machine import available_cores, has_cpu_quota
from driftline.registry.source import Version
from driftline.serving.payloads.budget import Budget, make_spare_time, no_spare_time
from driftline.serving.payloads.exchange import Exchange, RequestHead
from driftline.serving.payloads.sink import open_sink

log = logging.getLogger("driftline.payloads")

CLOSE_SECONDS = 5.0
"""Time limit for logging what still waits when the server stops."""

FLUSH_SECONDS = 0.1
"""How long exchanges wait to be handed over together, unless they fill a frame earlier. Each frame wakes the
logging process, which cools the caches if both share a core."""

POLL_SECONDS = 0.005
"""Seconds between two checks whether the logging process has room again."""

FRAME_BYTES = 2**18
"""Approximate bytes of exchanges to hand over at once; between two frames, requests run."""

WINDOW_BYTES = 4 * 2**20
"""Most bytes of exchanges handed over and not logged yet."""

SILENCE_SECONDS = 60.0
"""Least seconds between two log lines about skipped payloads."""

MAX_SKIPPED_TOGETHER = 16
"""With an exchange skipped for lack of time, a random number up to this of the next ones is skipped, too."""

LENGTH = struct.Struct("=Q")
"""The length of a frame, sent before it; a frame is a pickled list of exchanges as tuples. An empty one
says that the server stops: what is left follows."""

COUNT_NAMES = ("taken_bytes", "done_bytes", "sent", "given_up")
"""What the logging process counts.

taken_bytes  bytes of exchanges that its threads have taken from its queue
done_bytes   bytes of those that were logged or given up
sent         payloads that were logged
given_up     payloads that could not be logged
"""


@dataclass(slots=True)
class Counts:
    """How many payloads were logged, and how many were not.

    sent     logged
    dropped  not logged: the queue was full, or the sink failed
    skipped  not logged: there was no time
    queued, queued_bytes  waiting now
    """

    sent: int = 0
    dropped: int = 0
    skipped: int = 0
    queued: int = 0
    queued_bytes: int = 0

    def add(self, other: Counts) -> None:
        """Add another process's counts."""
        self.sent += other.sent
        self.dropped += other.dropped
        self.skipped += other.skipped
        self.queued += other.queued
        self.queued_bytes += other.queued_bytes

    def end(self) -> None:
        """Count what is queued as dropped, since the process has ended."""
        self.dropped += self.queued
        self.queued = self.queued_bytes = 0


class PayloadLog:
    """Hands requests and responses to a logging process, which is replaced if it ends.

    Used on the event loop only.

    settings    which payloads to log: requests, responses or both (`log_payloads`), what part of all
                exchanges (`log_sample`), how many bytes may wait (`log_queue_bytes`), and the sink
    spare_time  measures the spare time of this thread; None if this machine can't tell
    """

    def __init__(self, settings: Server) -> None:
        self._settings = settings
        self._requests = settings.log_payloads != "response"
        self._responses = settings.log_payloads != "request"
        self._sample = settings.log_sample
        self._until_sampled = draw_gap(settings.log_sample)  # exchanges until the next one in the sample
        self.spare_time = make_spare_time(available_cores() / settings.workers, has_cpu_quota())
        spare_fraction = self.spare_time.fraction if self.spare_time is not None else no_spare_time
        self._budget = Budget(settings.log_cpu, spare_fraction)
        self._max_bytes = settings.log_queue_bytes
        self._window = min(WINDOW_BYTES, settings.log_queue_bytes // 2)
        self._recorded: list[tuple[RequestHead, bytes, int, bytes, bytes, Version | None]] = []
        self._queue: deque[Exchange] = deque()
        self._queue_bytes = self._handed_bytes = 0
        self._in_flight_bytes = 0  # when last read; it can only be less now
        self._lost_bytes = 0  # taken by processes that ended before they were done
        self._enqueued = self._handed = self._dropped = 0
        self._skipped = self._skips_logged = self._skip_next = 0
        self._next_warning = 0.0
        self._shared = SharedCounts.new(COUNT_NAMES)
        self._transport: asyncio.WriteTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_seconds = 0.0
        self._runner: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._deadline = 0.0

    @classmethod
    def of(cls, settings: Server) -> PayloadLog | None:
        """Return the log for these settings, None if logging is off; ConfigError if they are wrong."""
        if settings.log_payloads == "none":
            if settings.log_sink:
                raise ConfigError("--log-sink: expected --log-payloads all, request or response with it")
            return None
        open_sink(settings)  # reports wrong settings at the start
        return cls(settings)

    def start(self) -> None:
        """Start the logging process."""
        self._runner = asyncio.create_task(self._keep_running())

    def record(
        self,
        request_head: RequestHead,
        request: bytes,
        status: int,
        fields: bytes,
        response: bytes,
        version: Version | None,
    ) -> None:
        """Take an exchange to be logged, if it is in the sample; only responses of status 200 are logged.

        The rest is done in the next turn of the event loop, not between the responses of a batch: a client
        that waits meanwhile goes to sleep, and waking it costs more than all that is done here.

        request, response  their bodies
        fields             the lines of the response's headers
        version            that responded; None if none did
        """
        if self._until_sampled > 0:
            self._until_sampled -= 1
            return
        if self._sample < 1.0:
            self._until_sampled = draw_gap(self._sample)
        if not self._recorded:
            asyncio.get_running_loop().call_soon(self._enqueue_recorded)
        self._recorded.append((request_head, request, status, fields, response, version))

    def _enqueue_recorded(self) -> None:
        """Put new exchanges into the queue, as far as the budget allows."""
        recorded, self._recorded = self._recorded, []
        for head, request_body, status, fields, response_body, version in recorded:
            request = request_body if self._requests else None
            response = response_body if self._responses and status == 200 else None
            halves = (request is not None) + (response is not None)
            if not halves:
                continue
            if self._skip_next > 0:
                self._skip_next -= 1
                self._skipped += halves
            elif self._budget.allows(begin := perf_counter()):
                name, number = (version.name, str(version.number)) if version else (head.name or "", "")
                self._enqueue(Exchange.of(head, time(), name, number, request, status, fields, response))
                self._budget.spend(begin, perf_counter())
            else:
                self._skip(halves, begin)

    def _skip(self, halves: int, now: float) -> None:
        """Count payloads skipped for lack of time, and log that at intervals.

        Some of the next exchanges are skipped, too: checking the budget for each takes time as well.
        """
        self._skip_next = int(random.random() * MAX_SKIPPED_TOGETHER)  # noqa: S311
        self._skipped += halves
        if now >= self._next_warning:
            log.warning(
                "%d payloads are not logged: that would take more than log_cpu = %g of a core from requests",
                self._skipped - self._skips_logged, self._settings.log_cpu,
            )  # fmt: skip
            self._skips_logged, self._next_warning = self._skipped, now + SILENCE_SECONDS

    def _enqueue(self, exchange: Exchange) -> None:
        """Put an exchange into the queue."""
        self._queue.append(exchange)
        self._enqueued += exchange.halves
        self._queue_bytes += exchange.size
        if self._queue_bytes + self._in_flight_bytes > self._max_bytes:
            self._make_room()
        self._hand_over_in(FLUSH_SECONDS if self._queue_bytes < FRAME_BYTES else POLL_SECONDS)

    def _make_room(self) -> None:
        """Drop the oldest exchanges while the queue is too full."""
        self._in_flight_bytes = self._handed_bytes - self._shared["taken_bytes"]
        while self._queue and self._queue_bytes + self._in_flight_bytes > self._max_bytes:
            oldest = self._queue.popleft()
            self._queue_bytes -= oldest.size
            self._dropped += oldest.halves

    def _hand_over_in(self, seconds: float) -> None:
        """Schedule `_hand_over` in so many seconds, unless it is due earlier."""
        if self._timer is not None:
            if seconds >= self._timer_seconds:
                return
            self._timer.cancel()
        self._timer_seconds = seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._hand_over)

    def _hand_over(self) -> None:
        """Write one frame of the queue to the logging process, as far as its window allows."""
        self._timer = None
        if self._transport is None or self._transport.is_closing():
            return  # called again when there is a process
        begin = perf_counter()
        frame: list[tuple[object, ...]] = []
        size, in_flight_bytes = 0, self._handed_bytes - self._shared["taken_bytes"]
        while self._queue and size < FRAME_BYTES:
            exchange = self._queue[0]
            if in_flight_bytes + size + exchange.size > self._window and in_flight_bytes + size:
                break
            self._queue.popleft()
            size += exchange.size
            self._handed += exchange.halves
            frame.append(tuple(exchange))
        if frame:
            self._queue_bytes -= size
            self._handed_bytes += size
            self._in_flight_bytes = in_flight_bytes + size
            content = pickle.dumps(frame)
            self._transport.writelines((LENGTH.pack(len(content)), content))
        if self._queue:
            self._hand_over_in(0.0 if size >= FRAME_BYTES else POLL_SECONDS)
        self._budget.spend(begin, perf_counter())

    @property
    def counts(self) -> Counts:
        """How many payloads were logged and how many were not, so far."""
        sent, dropped = self._shared["sent"], self._dropped + self._shared["given_up"]
        done_bytes = self._shared["done_bytes"] + self._lost_bytes
        queued_bytes = self._queue_bytes + self._handed_bytes - done_bytes
        queued = max(0, self._enqueued - dropped - sent)
        return Counts(sent, dropped, self._skipped, queued, max(0, queued_bytes))

    async def close(self) -> None:
        """Log what still waits, within CLOSE_SECONDS, and stop the logging process."""
        self._enqueue_recorded()
        self._deadline = monotonic() + CLOSE_SECONDS
        self._closing.set()
        if self._runner is not None:
            dropped_before = self._dropped
            await self._runner
            if unlogged := self.counts.queued + self._dropped - dropped_before:
                log.error("%d payloads were not logged", unlogged)
        if self._timer is not None:
            self._timer.cancel()
        if self.spare_time is not None:
            self.spare_time.close()
            self.spare_time = None
            self._budget = Budget(self._settings.log_cpu)
        self._shared.close()

    async def _keep_running(self) -> None:
        """Run one logging process after the other, until the log is closed."""
        deaths = 0
        while True:
            started = monotonic()
            try:
                ending = f"has ended with code {await self._run_process()}"
            except OSError as error:
                ending = f"can't be started: {error.strerror}"
            self._transport = None
            lost = self._count_lost()
            if self._closing.is_set():
                return
            deaths = child_process.deaths_in_a_row(deaths, started)
            delay = backoff(deaths - 1)
            log.error(
                "the process that logs payloads %s; %d payloads were lost with it; another starts in %g s",
                ending, lost, delay,
            )  # fmt: skip
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), delay)

    async def _run_process(self) -> int:
        """Run one logging process until it ends; return its exit code."""
        process, end = await child_process.start(
            "driftline.serving.payloads.child", (self._settings, CLOSE_SECONDS), self._shared.descriptor
        )
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_unix_connection(asyncio.Protocol, sock=end)
        if self._timer is None:
            self._hand_over()
        ended = asyncio.create_task(process.wait())
        closing = asyncio.create_task(self._closing.wait())
        await asyncio.wait((ended, closing), return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        if self._closing.is_set():
            await self._drain(self._transport, process, ended)
        return await ended

    async def _drain(
        self, transport: asyncio.WriteTransport, process: asyncio.subprocess.Process, ended: asyncio.Task[int]
    ) -> None:
        """Hand over what still waits, close the connection, and wait for the process, until the deadline."""
        if not transport.is_closing():
            transport.write(LENGTH.pack(0))
        while self._queue and not ended.done() and monotonic() < self._deadline:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        transport.close()
        _, late = await asyncio.wait((ended,), timeout=self._deadline - monotonic() + 1.0)
        if late:
            process.kill()

    def _count_lost(self) -> int:
        """Count as dropped what an ended process has not logged; return the number of these payloads."""
        lost = self._handed - self._shared["sent"] - self._shared["given_up"]
        self._handed -= lost
        self._dropped += lost
        self._handed_bytes = self._shared["taken_bytes"]
        self._lost_bytes = self._handed_bytes - self._shared["done_bytes"]
        self._in_flight_bytes = 0
        return lost


def draw_gap(sample: float) -> int:
    """Draw the number of exchanges between two in a sample of rate `sample` (geometric distribution)."""
    if sample <= 0.0:
        return sys.maxsize
    if sample >= 1.0:
        return 0
    return int(min(log1p(-random.random()) / log1p(-sample), sys.maxsize))  # noqa: S311
