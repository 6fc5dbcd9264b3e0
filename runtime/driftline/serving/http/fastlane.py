"""The hot path without ASGI: from the socket to the batcher, from the batch to the socket.

uvicorn makes a task, a scope and a dozen messages for every request, which takes longer than all the other
work of a small one. Here an `Exchange` replaces uvicorn's RequestResponseCycle, so uvicorn still does the
pipelining, losing and closing of connections. Whatever is not a plain POST to an inference path goes through
uvicorn and the ASGI application, and gets the same response.

Clients repeat the same head. One that was parsed before, byte for byte, is not parsed again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import ClassVar

import uvicorn
from uvicorn.server import ServerState

from driftline.errors import DriftlineError
from driftline.http import check_host, configuration
from driftline.protocols.encoding import response_coding
from driftline.serving.http.app import App
from driftline.serving.http.connection import Connection
from driftline.serving.http.exchange import (
    CompressingExchange,
    Exchange,
    Head,
    LoggedCompressingExchange,
    LoggedExchange,
)
from driftline.serving.http.infer import BODY_SECONDS, header_lines
from driftline.serving.payloads.exchange import RequestHead

log = logging.getLogger("driftline.serving")

MAX_HEADS = 1_000
"""Parsed heads to cache."""

MAX_HEAD_BYTES = 2_000

_HEAD_END = b"\r\n\r\n"
_UNUSUAL_HEADERS = frozenset((b"expect", b"transfer-encoding", b"content-encoding", b"upgrade"))


def fast_lane(app: App) -> type[Connection]:
    """Return the protocol class for an application: the fast lane if it works with this uvicorn."""
    lane = type("FastLane", (FastLane,), {"heads": {}})
    try:
        rehearse(lane, app)
    except Exception as error:
        log.warning(
            "uvicorn %s is not as expected (%s: %s): inference takes the slower way through ASGI",
            uvicorn.__version__, type(error).__name__, error,
        )  # fmt: skip
        return Connection
    if app.payloads is not None:
        classes = {"exchange_class": LoggedExchange, "compressing_class": LoggedCompressingExchange}
        lane = type("FastLane", (lane,), classes)
    return lane


def rehearse(lane: type[FastLane], app: App) -> None:
    """Request a model that does not exist over a connection in memory; raise if that does not work."""
    config = configuration(app, lane)
    config.load()
    state = ServerState()
    protocol, transport = lane(config, state, {}), MemoryTransport()
    protocol.access_log = False
    protocol.connection_made(transport)
    request = b"POST /v2/models/-/infer HTTP/1.1\r\nhost: -\r\ncontent-length: 2\r\n\r\n{}"
    for part in (request[:9], request[9:-1], request[-1:], request, request):
        protocol.data_received(part)
        app.joiner.start()
    responses = transport.written.count(b"HTTP/1.1 ")
    if responses != 3 or not lane.heads:
        raise RuntimeError(f"expected 3 answers, got {responses}")
    protocol.connection_lost(None)
    lane.heads.clear()


class FastLane(Connection):
    """A client's connection that handles inference itself and leaves everything else to uvicorn.

    heads              parsed heads, by their bytes
    exchange_class     of a request and its response
    compressing_class  the same where the response is to be compressed
    """

    app: App
    heads: ClassVar[dict[bytes, Head]]
    exchange_class: ClassVar[type[Exchange]] = Exchange
    compressing_class: ClassVar[type[Exchange]] = CompressingExchange
    _cached_defaults: ClassVar[tuple[object, bytes]] = (None, b"")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection."""
        super().connection_made(transport)
        self.raw_transport = transport
        self._received = b""  # what is being parsed, up to the end of the first request in it
        self._idle_since = self.loop.time()
        self._schedule_idle_check(self.timeout_keep_alive)  # uvicorn waits for ever for the first head to end

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after a disconnect."""
        super().connection_lost(exc)
        super()._unset_keepalive_if_required()
        self.cycle = None  # type: ignore[assignment]  # a reference cycle: both, and a body, would stay

    # -- in -----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse the data received."""
        if self._between_requests and (self.cycle is None or self.cycle.response_complete):
            end = data.find(_HEAD_END) + len(_HEAD_END)
            head = self.heads.get(data[:end])
            if head is not None and len(data) - end == head.length and not self.flow.write_paused:
                exchange = self.cycle = head.exchange_class(self, head)  # type: ignore[assignment]
                exchange.body = data[end:]
                exchange.more_body = False
                self.app.joiner.add(head.target, exchange)
                return
            self._received = data
        super().data_received(data)
        self._received = b""
        cycle: object = self.cycle
        if isinstance(cycle, Exchange) and cycle.more_body:
            cycle.start_body_timer()

    def on_headers_complete(self) -> None:
        """Choose the fast lane or uvicorn for a request whose head is complete."""
        head = self._parse_head()
        if head is None:
            super().on_headers_complete()
            return
        self._unparsed_bytes = 0
        self.cycle = head.exchange_class(self, head)  # type: ignore[assignment]
        raw = self._received[: self._received.find(_HEAD_END) + len(_HEAD_END)]
        # The lines are the request line, the headers and an empty one: none folded, none before or after.
        if raw.startswith(b"POST /") and raw.count(b"\n") == raw.count(b"\r\n") == len(self.headers) + 2:
            if len(self.heads) >= MAX_HEADS:
                self.heads.clear()
            if len(raw) <= MAX_HEAD_BYTES:
                self.heads[raw] = head

    def on_body(self, body: bytes) -> None:
        """Keep a part of a body; its length was checked with the head, so reading is never paused."""
        exchange: object = self.cycle
        if not isinstance(exchange, Exchange):
            super().on_body(body)
        else:
            self._unparsed_bytes = 0
            if not exchange.response_complete:
                exchange.parts.append(body)

    def on_message_complete(self) -> None:
        """End a request that is complete."""
        self._received = b""
        super().on_message_complete()

    def _parse_head(self) -> Head | None:
        """Return the parsed head of a plain inference request; None if uvicorn has to handle the request."""
        parser, cycle, headers = self.parser, self.cycle, dict(self.headers)
        if (
            b"%" in self.url or b"?" in self.url
            or parser.get_method() != b"POST" or parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
            or not _UNUSUAL_HEADERS.isdisjoint(headers) or b"host" not in headers
            or self.flow.write_paused or not (cycle is None or cycle.response_complete)
        ):  # fmt: skip
            return None
        if len(headers) < len(self.headers):  # a header is repeated
            check_host(self.headers, "1.1")
        path = self.url.decode("latin-1")
        endpoint = self.app.endpoint(path)
        length = headers.get(b"content-length", b"")
        if endpoint is None or not length.isdigit():
            return None
        infer, name, version = endpoint
        if int(length) > infer.max_body_bytes:
            return None
        try:
            target = infer.target(headers, name, version)
        except DriftlineError:
            return None
        coding = response_coding(self.headers)
        exchange_class = self.exchange_class if coding is None else self.compressing_class
        request_head = RequestHead.of(name, headers, target.json_length)
        return Head(infer, target, path, int(length), request_head, exchange_class, coding)

    def default_lines(self) -> bytes:
        """Return the headers of every response, which uvicorn renews about every second."""
        headers = self.server_state.default_headers
        if headers is not self._cached_defaults[0]:
            type(self)._cached_defaults = (headers, header_lines(headers))
        return self._cached_defaults[1]

    # -- idle -----------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Handle what the client has sent meanwhile, or wait for more."""
        self._idle_since = self.loop.time()
        if self.pipeline or self.timeout_keep_alive_task is None:
            super().on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.flow.resume_reading()

    def _unset_keepalive_if_required(self) -> None:
        """Keep the timer running: a new one for every request would cost more than an occasional check."""
        if self.transport.is_closing():
            super()._unset_keepalive_if_required()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle for long enough; otherwise check again later."""
        self.timeout_keep_alive_task = None
        if self.cycle is not None and not self.cycle.response_complete:
            return  # the response will set a timer
        # A client that has begun another request, or still sends a refused one, has BODY_SECONDS more.
        grace = BODY_SECONDS if self.cycle is None or not self._between_requests else 0.0
        remaining = self._idle_since + self.timeout_keep_alive + grace - self.loop.time()
        if remaining > 0:
            self._schedule_idle_check(min(remaining, self.timeout_keep_alive))  # it may be idle before that
        else:
            super().timeout_keep_alive_handler()

    def _schedule_idle_check(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)


class MemoryTransport(asyncio.Transport):
    """A connection in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep the data."""
        self.written += data

    def is_closing(self) -> bool:
        """Return False: it stays open."""
        return False

    def resume_reading(self) -> None:
        """Do nothing: reading is never paused."""

    def close(self) -> None:
        """Do nothing."""
