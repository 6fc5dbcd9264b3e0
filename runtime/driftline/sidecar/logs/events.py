"""The source for loggers: a receiver of CloudEvents, each of which is a request or a response.

A post gets its response as soon as its events are in a bounded queue; a thread joins, reads and counts them.
KServe's logger never resends, so while the queue is full the response is 503 at once: a logger that waited
for its response would make its model's clients wait, too.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from threading import Event as Flag
from threading import Thread
from time import monotonic, sleep
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from driftline.answers import failure
from driftline.errors import DriftlineError, Unavailable, WrongMethod
from driftline.http import read_body
from driftline.protocols.cloudevents import from_http
from driftline.protocols.payloads import Payload, of_event
from driftline.sidecar.agent import Agent
from driftline.sidecar.exchange import Exchange
from driftline.sidecar.logs.halves import Halves, Pair, size_of
from driftline.sidecar.logs.payloads import exchange_of

log = logging.getLogger("driftline.sidecar")

PATHS = ("/", "/events")

MAX_BODY_BYTES = 64 * 2**20

NAP_SECONDS = 0.05
"""Events that arrive meanwhile are processed together."""

MAX_BATCH_EVENTS = 1024
"""Most events to process in one batch."""

INFERENCE_LENGTH = b"inference-header-content-length"

ACCEPTED = Response()
"""The response if all is well."""


class Events:
    """The source; see agent.Source.

    queue_bytes   of events that may wait to be processed
    join_bytes    of halves that may wait for the others
    join_seconds  that a half waits
    """

    name = "events"

    def __init__(self, queue_bytes: int, join_bytes: int, join_seconds: float) -> None:
        self.endpoints: Mapping[str, ASGIApp] = dict.fromkeys(PATHS, self.receive)
        self.halves = Halves(join_bytes, join_seconds)
        self.counts: Counter[str] = Counter(dict.fromkeys(("taken", "refused", "malformed"), 0))
        self._queue_bytes = queue_bytes
        self._queue: deque[tuple[str, Payload]] = deque()
        self._put_bytes = self._removed_bytes = 0  # each is written by one thread only
        self._arrived = Flag()
        self._closed = False
        self._agent: Agent | None = None
        self._thread = Thread(target=self._run, name="driftline-events", daemon=True)

    # -- on the event loop --------------------------------------------------------------------------

    async def receive(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Receive the events of one post."""
        try:
            if scope["method"] != "POST":
                raise WrongMethod(f"Method Not Allowed: {scope['method']} {scope['path']}")
            body = await read_body(receive, MAX_BODY_BYTES)
            self._accept(scope["headers"], body)
        except DriftlineError as error:
            await failure(error)(scope, receive, send)
            return
        await ACCEPTED(scope, receive, send)

    def _accept(self, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Put the events of a post in the queue; raises as `put`, and BadRequest for other events."""
        try:
            events = from_http(headers, body)
            length = dict(headers).get(INFERENCE_LENGTH, b"") if len(events) == 1 else b""
            json_length = int(length) if length.isdigit() and int(length) <= len(body) else None
            payloads = [(f"{event.source} {event.id}", of_event(event, json_length)) for event in events]
        except DriftlineError:
            self.counts["malformed"] += 1
            raise
        self.put(payloads)

    def put(self, payloads: list[tuple[str, Payload]]) -> None:
        """Put events in the queue, with their sources and ids; Unavailable if it is full."""
        if self._agent is None:
            raise Unavailable("the monitor is being loaded")
        size = sum(size_of(key, payload) for key, payload in payloads)
        if self._put_bytes - self._removed_bytes + size > self._queue_bytes:
            self.counts["refused"] += len(payloads)
            raise Unavailable(f"{self.queued} events wait already")
        self._queue.extend(payloads)
        self._put_bytes += size
        self.counts["taken"] += len(payloads)
        if not self._arrived.is_set():
            self._arrived.set()

    @property
    def queued(self) -> int:
        """Events that wait to be processed."""
        return len(self._queue)

    # -- in the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while not (self._closed and not self._queue):
            self._arrived.clear()
            if not self._queue:
                self._arrived.wait(1.0)
                sleep(NAP_SECONDS)
            try:
                self._process_queue()
            except Exception:  # whatever was posted, later events must be counted
                log.exception("events can't be counted")
        assert self._agent is not None
        hand_in(self._agent, self.halves.expire(math.inf))

    def _process_queue(self) -> None:
        """Join and hand in waiting events."""
        pairs: list[Pair] = []
        now = monotonic()
        for _ in range(min(MAX_BATCH_EVENTS, len(self._queue))):
            key, payload = self._queue.popleft()
            self._removed_bytes += size_of(key, payload)
            if (pair := self.halves.add(key, payload, now)) is not None:
                pairs.append(pair)
        pairs += self.halves.expire(now)
        assert self._agent is not None
        hand_in(self._agent, pairs)

    # -- the source ---------------------------------------------------------------------------------

    async def start(self, agent: Agent, state: Any) -> None:
        """See Source."""
        self._agent = agent
        if state is not None:
            self.halves.counts["lost"] += state["waiting"]
        self._thread.start()

    async def close(self) -> None:
        """See Source."""
        self._closed = True
        self._arrived.set()
        await asyncio.to_thread(self._thread.join)

    def state(self) -> Any:
        """See Source: what a kill would lose. After `close` nothing waits any more."""
        return {"waiting": self.queued + self.halves.unpaired}

    def metrics(self) -> Iterator[Metric]:
        """See Source."""
        yield from halves_metrics("events", self.halves)
        events = CounterMetricFamily("driftline_events", "Posted events, by outcome", labels=["outcome"])
        for outcome, count in self.counts.items():
            events.add_metric([outcome], count)
        yield events
        yield GaugeMetricFamily("driftline_events_queued", "Events that wait to be joined", value=self.queued)


def hand_in(agent: Agent, pairs: list[Pair]) -> None:
    """Have an agent observe exchanges; a pair that can't be read is counted as failed."""
    exchanges: list[Exchange] = []
    for pair in pairs:
        try:
            exchanges.append(exchange_of(pair))
        except Exception as error:  # anything may have been posted
            agent.fail(str(error))
    agent.observe_all(exchanges)


def halves_metrics(source: str, halves: Halves) -> Iterator[Metric]:
    """Yield the metrics of a table of halves."""
    counts = CounterMetricFamily(
        "driftline_halves", "Requests and responses to join, by outcome", labels=["source", "outcome"]
    )
    for outcome, count in halves.counts.items():
        counts.add_metric([source, outcome], count)
    yield counts
    for name, text, value in (
        ("known", "Ids that wait for their other half, or have had it", halves.known_ids),
        ("bytes", "Approximate bytes of ids and waiting halves", halves.bytes),
    ):
        gauge = GaugeMetricFamily(f"driftline_halves_{name}", text, labels=["source"])
        gauge.add_metric([source], value)
        yield gauge
