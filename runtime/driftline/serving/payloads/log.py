"""The payloads of a server, logged.

No request waits for the log: what is to be logged goes to a process of its own, over a socket, several
exchanges at once. That process says in shared memory how far it is, and gets no more than a window; others
wait here, and for more than may wait the oldest go. What it would take too much of the requests' time to hand
over is not logged: of a busy server, a sample is.
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
from driftline.machine import available_cores, limited_cores
from driftline.registry.source import Version
from driftline.serving.payloads.budget import Budget, no_time, spare_time
from driftline.serving.payloads.exchange import Asked, Exchange
from driftline.serving.payloads.sink import open_sink

log = logging.getLogger("driftline.payloads")

CLOSE_SECONDS = 5.0
"""Seconds that it may take to log what waits when the server stops."""

FLUSH_SECONDS = 0.1
"""Seconds that exchanges wait for others, to be handed over with them, unless they make a frame before: the
process that logs is woken each time, which cools the caches of a core that both share."""

POLL_SECONDS = 0.005
"""Seconds between two looks whether the process that logs has room again."""

FRAME_BYTES = 2**18
"""Bytes of exchanges that are handed over at once, about: between two frames, requests have their turn."""

WINDOW_BYTES = 4 * 2**20
"""At most so many bytes in exchanges that wait at the process that logs, or on the way there."""

SILENCE_SECONDS = 60.0
"""Seconds between two log lines about what there was no time for, at the least."""

MOST_PASSING = 16
"""Exchanges that are skipped with one that there was no time for: so many at the most, by chance."""

LENGTH = struct.Struct("=Q")
"""The length of a frame, which stands before it; a frame is a pickled list of exchanges as tuples."""

COUNTED = ("taken_bytes", "sent", "given_up")
"""What the process that logs counts.

taken_bytes  of exchanges that wait no more
sent         payloads that were logged; given_up: that were not
"""


@dataclass(slots=True)
class Counts:
    """Payloads by what became of them: dropped for want of room or by the sink, skipped for want of time.
    `queued` and `queued_bytes` are of this moment."""

    sent: int = 0
    dropped: int = 0
    skipped: int = 0
    queued: int = 0
    queued_bytes: int = 0

    def add(self, other: Counts) -> None:
        """Add another process's."""
        self.sent += other.sent
        self.dropped += other.dropped
        self.skipped += other.skipped
        self.queued += other.queued
        self.queued_bytes += other.queued_bytes

    def end(self) -> None:
        """Their process has gone, and with it what was queued."""
        self.dropped += self.queued
        self.queued = self.queued_bytes = 0


class PayloadLog:
    """Takes what was asked and answered, and has it logged by another process, which is replaced if it ends.

    settings  say which halves are logged (`log_payloads`), of what part of all exchanges (`log_sample`; both
              halves are or none), how many bytes may wait (`log_queue_bytes`), and where they go

    spare     the time in which it takes nothing from the requests; None if nobody can say

    Used on the event loop only.
    """

    def __init__(self, settings: Server) -> None:
        self._settings = settings
        self._requests = settings.log_payloads != "response"
        self._responses = settings.log_payloads != "request"
        self._sample = settings.log_sample
        self._unsampled = gap(settings.log_sample)  # so many come before the next one of the sample
        self.spare = spare_time(available_cores() / settings.workers, limited_cores())
        self._budget = Budget(settings.log_cpu, self.spare.part if self.spare is not None else no_time)
        self._most_bytes = settings.log_queue_bytes
        self._window = min(WINDOW_BYTES, settings.log_queue_bytes // 2)
        self._new: list[tuple[Asked, bytes, int, bytes, bytes, Version | None]] = []
        self._waiting: deque[Exchange] = deque()
        self._waiting_bytes = self._handed_bytes = 0
        self._under_way = 0  # of what was handed over, at the last look: it can only be less by now
        self._put = self._handed = self._dropped = 0
        self._skipped = self._told = self._passing = 0
        self._next_line = 0.0
        self._shared = SharedCounts.new(COUNTED)
        self._transport: asyncio.WriteTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rest = 0.0
        self._keeping: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._until = 0.0

    @classmethod
    def of(cls, settings: Server) -> PayloadLog | None:
        """As the settings say; None if nothing is to be logged. ConfigError if that is not possible."""
        if settings.log_payloads == "none":
            if settings.log_sink:
                raise ConfigError("log_sink: expected log_payloads = 'all', 'request' or 'response' with it")
            return None
        open_sink(settings)  # what is plainly wrong with it is said at the start
        return cls(settings)

    def start(self) -> None:
        """Have a process that logs, from now on."""
        self._keeping = asyncio.create_task(self._keep())

    def record(
        self,
        asked: Asked,
        body: bytes,
        status: int,
        fields: bytes,
        content: bytes,
        version: Version | None,
    ) -> None:
        """Leave an exchange to be logged, if it is of the sample; of answers, only those of status 200.

        All else about it is done in the loop's next turn, not between the answers of a batch: the client's
        thread would block meanwhile, and waking it costs more than all that is done here.
        """
        if self._unsampled > 0:
            self._unsampled -= 1
            return
        if self._sample < 1.0:
            self._unsampled = gap(self._sample)
        if not self._new:
            asyncio.get_running_loop().call_soon(self._take)
        self._new.append((asked, body, status, fields, content, version))

    def _take(self) -> None:
        """Have what is new wait to be handed over, as far as there is time for that."""
        new, self._new = self._new, []
        for asked, body, status, fields, content, version in new:
            request = body if self._requests else None
            response = content if self._responses and status == 200 else None
            halves = (request is not None) + (response is not None)
            if not halves:
                continue
            if self._passing > 0:
                self._passing -= 1
                self._skipped += halves
            elif self._budget.allows(begin := perf_counter()):
                name, number = (version.name, str(version.number)) if version else (asked.name or "", "")
                self._leave(Exchange.of(asked, time(), name, number, request, status, fields, response))
                self._budget.spend(begin, perf_counter())
            else:
                self._skip(halves, begin)

    def _skip(self, halves: int, now: float) -> None:
        """Count what there is no time for, and say so now and then. Some that follow are skipped, too: to
        reckon for each would take a part of what is to be saved."""
        self._passing = int(random.random() * MOST_PASSING)  # noqa: S311
        self._skipped += halves
        if now >= self._next_line:
            log.warning(
                "%d payloads are not logged: that would take more than log_cpu = %g of a core from requests",
                self._skipped - self._told, self._settings.log_cpu,
            )  # fmt: skip
            self._told, self._next_line = self._skipped, now + SILENCE_SECONDS

    def _leave(self, exchange: Exchange) -> None:
        """Have an exchange wait to be handed over."""
        self._waiting.append(exchange)
        self._put += exchange.halves
        self._waiting_bytes += exchange.size
        if self._waiting_bytes + self._under_way > self._most_bytes:
            self._make_room()
        self._hand_over_in(FLUSH_SECONDS if self._waiting_bytes < FRAME_BYTES else POLL_SECONDS)

    def _make_room(self) -> None:
        """Let the oldest go while too much waits."""
        self._under_way = self._handed_bytes - self._shared["taken_bytes"]
        while self._waiting and self._waiting_bytes + self._under_way > self._most_bytes:
            oldest = self._waiting.popleft()
            self._waiting_bytes -= oldest.size
            self._dropped += oldest.halves

    def _hand_over_in(self, seconds: float) -> None:
        """See to it that what waits is handed over in so many seconds at the latest."""
        if self._timer is not None:
            if seconds >= self._rest:
                return
            self._timer.cancel()
        self._rest = seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._hand_over)

    def _hand_over(self) -> None:
        """Write what waits and has room in the window, a frame now and the next one soon."""
        self._timer = None
        if self._transport is None:
            return  # called again when there is one
        begin = perf_counter()
        frame: list[tuple[object, ...]] = []
        size, under_way = 0, self._handed_bytes - self._shared["taken_bytes"]
        while self._waiting and size < FRAME_BYTES:
            exchange = self._waiting[0]
            if under_way + size + exchange.size > self._window and under_way + size:
                break
            self._waiting.popleft()
            size += exchange.size
            self._handed += exchange.halves
            frame.append(tuple(exchange))
        if frame:
            self._waiting_bytes -= size
            self._handed_bytes += size
            self._under_way = under_way + size
            content = pickle.dumps(frame)
            self._transport.writelines((LENGTH.pack(len(content)), content))
        if self._waiting:
            self._hand_over_in(0.0 if size >= FRAME_BYTES else POLL_SECONDS)
        self._budget.spend(begin, perf_counter())

    @property
    def counts(self) -> Counts:
        """Payloads by what became of them."""
        sent, dropped = self._shared["sent"], self._dropped + self._shared["given_up"]
        queued_bytes = self._waiting_bytes + self._handed_bytes - self._shared["taken_bytes"]
        queued = max(0, self._put - dropped - sent)
        return Counts(sent, dropped, self._skipped, queued, max(0, queued_bytes))

    async def close(self) -> None:
        """Log what waits, for some seconds at most."""
        self._take()
        self._until = monotonic() + CLOSE_SECONDS
        self._closing.set()
        if self._keeping is not None:
            before = self._dropped
            await self._keeping
            if left := self.counts.queued + self._dropped - before:
                log.error("%d payloads were not logged", left)
        if self._timer is not None:
            self._timer.cancel()
        if self.spare is not None:
            self.spare.close()
            self.spare = None
            self._budget = Budget(self._settings.log_cpu)
        self._shared.close()

    async def _keep(self) -> None:
        """Have a process that logs, until all is closed."""
        deaths = 0
        while True:
            begun = monotonic()
            try:
                how = f"has ended with code {await self._live()}"
            except OSError as error:
                how = f"can't be started: {error.strerror}"
            self._transport = None
            lost = self._count_lost()
            if self._closing.is_set():
                return
            deaths = child_process.deaths_in_a_row(deaths, begun)
            rest = backoff(deaths - 1)
            log.error(
                "the process that logs payloads %s; %d payloads were lost with it; another starts in %g s",
                how, lost, rest,
            )  # fmt: skip
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), rest)

    async def _live(self) -> int:
        """The life of a process that logs; its exit code."""
        process, end = await child_process.start(
            "driftline.serving.payloads.child", self._settings, self._shared.descriptor
        )
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_unix_connection(asyncio.Protocol, sock=end)
        if self._timer is None:
            self._hand_over()
        ended = asyncio.create_task(process.wait())
        told = asyncio.create_task(self._closing.wait())
        await asyncio.wait((ended, told), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if self._closing.is_set():
            await self._drain(self._transport, process, ended)
        return await ended

    async def _drain(
        self, transport: asyncio.WriteTransport, process: asyncio.subprocess.Process, ended: asyncio.Task[int]
    ) -> None:
        """Hand over what waits, say that this was all, and let it be logged; not for longer than was said."""
        while self._waiting and not ended.done() and monotonic() < self._until:  # noqa: ASYNC110 - any of these
            await asyncio.sleep(POLL_SECONDS)
        transport.close()
        _, late = await asyncio.wait((ended,), timeout=self._until - monotonic() + 1.0)
        if late:
            process.kill()

    def _count_lost(self) -> int:
        """Count as dropped what was handed to a process that has ended; how many payloads that are."""
        lost = self._handed - self._shared["sent"] - self._shared["given_up"]
        self._handed -= lost
        self._dropped += lost
        self._handed_bytes = self._shared["taken_bytes"]
        self._under_way = 0
        return lost


def gap(sample: float) -> int:
    """How many exchanges come between two of a sample that has so large a part of them, by chance."""
    if sample <= 0.0:
        return sys.maxsize
    if sample >= 1.0:
        return 0
    return int(min(log1p(-random.random()) / log1p(-sample), sys.maxsize))  # noqa: S311
