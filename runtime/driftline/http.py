"""uvicorn as we run it, and its HTTP protocol: with limits where it has none, and without upgrades to other
protocols."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence, Sized
from http import HTTPStatus
from typing import Any

import httptools
import orjson
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from driftline.errors import Cancelled, TooLarge

MAX_HEAD = 64 * 2**10
"""The most bytes of a request's line and headers; those that arrive at once may be more."""

STALLED_SECONDS = 5.0
"""At a stop, the server does not wait for a request of which nothing more has arrived for this long."""

TOO_LARGE = "the request's line and headers have too many bytes"
INVALID_HTTP = "the request is not valid HTTP"
TOO_MANY_INCOMPLETE = "too many bytes of incomplete requests have arrived"
STALLED = "the server is stopping, and the rest of the request has not arrived"
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the event loop factory that uvicorn would choose: uvloop's where it is installed."""
    return uvicorn.Config(app="", log_config=None).get_loop_factory()


def configuration(app: Any, protocol: type[HttpToolsProtocol], **more: Any) -> uvicorn.Config:
    """Return uvicorn's configuration for an application that answers plain HTTP and logs as we configure."""
    return uvicorn.Config(
        app,
        http=protocol,
        lifespan="off",
        ws="none",
        log_config=None,
        server_header=False,
        proxy_headers=False,
        **more,
    )


async def read_body(receive: Receive, max_bytes: int, received: bytes = b"") -> bytes:
    """Read the rest of a request's body, of which `received` has arrived, and return all of it.

    Raises TooLarge for more than `max_bytes` bytes, Cancelled if the client disconnects before its end.
    """
    chunks, size, more = [received], len(received), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Cancelled("the client has gone")
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size > max_bytes:
            raise TooLarge(f"the body: expected at most {max_bytes} bytes, got more")
        chunks.append(chunk)
    return b"".join(chunks)


async def call_app(app: ASGIApp, scope: Scope, body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return the status, headers and body of an application's response to a complete request."""
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, send)
    start, *chunks = messages
    return start["status"], start["headers"], b"".join(chunk.get("body", b"") for chunk in chunks)


def parser_after_head(reader: Any) -> httptools.HttpRequestParser:
    """Return a parser for the body of a request whose head another one has read, and for all that follows;
    feed it `framing` first.

    httptools ends a request for a protocol upgrade with its head, and treats what follows as that protocol.
    The upgrade is ignored here, and the request is handled like any other: RFC 9110, 7.8.

    reader  has the methods that httptools calls
    """
    parser = httptools.HttpRequestParser(AfterHead(reader))
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as in uvicorn
    return parser


def framing(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a head that says only where the body ends."""
    lines = [b"%b: %b\r\n" % header for header in headers if header[0] in _FRAMING]
    return b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(lines)


class AfterHead:
    """Passes a parser's events to a reader, except for the first head, which it has seen. See httptools."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._head_is_over = False
        self.on_body = reader.on_body
        self.on_message_complete = reader.on_message_complete

    def on_message_begin(self) -> None:  # noqa: D102
        if self._head_is_over:
            self._reader.on_message_begin()

    def on_url(self, url: bytes) -> None:  # noqa: D102
        if self._head_is_over:
            self._reader.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        if self._head_is_over:
            self._reader.on_header(name, value)

    def on_headers_complete(self) -> None:  # noqa: D102
        if self._head_is_over:
            self._reader.on_headers_complete()
        self._head_is_over = True


class Flow(FlowControl):
    """uvicorn's flow control, but nothing is read while requests wait for their turn.

    uvicorn resumes reading after each response and for each body, and may then read a thousand requests: a
    client that keeps sending requests and reads no response would take all memory.

    pipeline  the requests of a connection that wait
    """

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        """Resume reading, unless a request waits: then the one before it is complete."""
        if self.read_paused and not self._pipeline:
            super().resume_reading()


class Refused(Exception):
    """The data received is not a valid request; the message says why."""


def check_host(headers: Sequence[tuple[bytes, bytes]], version: str) -> None:
    """Raise Refused unless a request has one Host, or none before HTTP/1.1: RFC 9112, 3.2."""
    count = sum(name == b"host" for name, _ in headers)
    if count > 1 or (count == 0 and version == "1.1"):
        raise Refused(f"expected one Host header, got {count or 'none'}")


class Refusal:
    """The response to an invalid request, in place of uvicorn's cycle: it may have to wait for its turn."""

    keep_alive = more_body = disconnected = response_started = response_complete = False

    def __init__(self, transport: asyncio.Transport, status: int, reason: str) -> None:
        self.message_event = asyncio.Event()
        self._transport = transport
        content, retry = orjson.dumps({"error": reason}), b"retry-after: 1\r\n" if status == 503 else b""
        self._response = (
            b"HTTP/1.1 %d %b\r\n%bcontent-type: application/json\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, HTTPStatus(status).phrase.encode(), retry, len(content), content)
        )

    async def run_asgi(self, app: Any) -> None:
        """Answer, when its turn has come."""
        self.write()

    def write(self) -> None:
        """Answer and close."""
        self._transport.write(self._response)
        self._transport.close()


class IncompleteRequests:
    """The bytes of incomplete requests on all connections of a process, and the most that they may be."""

    size = 0
    limit = 2**30


class HttpConnection(HttpToolsProtocol):
    """A client's connection."""

    _incomplete_bytes = 0  # bytes of an incomplete request
    _between_requests = True  # the parser is between two requests
    _current_cycle: RequestResponseCycle | None = None  # uvicorn's, of the request that is being answered
    _refused = False  # nothing more is read
    _has_progressed = False  # something has arrived since the last check
    _unparsed_bytes = 0  # bytes that have arrived since the last body, or part of one, or end of a head

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection."""
        super().connection_made(transport)
        self.flow = Flow(transport, self.pipeline)

    def data_received(self, data: bytes) -> None:
        """Parse received data."""
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._has_progressed = True
        self._unparsed_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(400, str(cause) if isinstance(cause, Refused) else INVALID_HTTP)
            return
        if self._unparsed_bytes > MAX_HEAD and not self.transport.is_closing():
            self._refuse(431, TOO_LARGE)
        self._count(len(data))

    def _count(self, size: int) -> None:
        """Update the size of incomplete requests, and refuse this one if it is too much."""
        cycle = self.cycle
        is_incomplete = (
            not self._refused and cycle is not None and cycle.more_body and not cycle.response_complete
        )
        size_now = self._incomplete_bytes + size if is_incomplete else 0
        IncompleteRequests.size += size_now - self._incomplete_bytes
        self._incomplete_bytes = size_now
        if IncompleteRequests.size > IncompleteRequests.limit and is_incomplete:
            self._refuse(503, TOO_MANY_INCOMPLETE)
            self._count(0)

    def _feed(self, data: bytes) -> None:
        remaining = memoryview(data)
        while True:
            try:
                self.parser.feed_data(remaining)
            except httptools.HttpParserUpgrade as upgrade:
                remaining = remaining[upgrade.args[0] :]
                self.parser = parser_after_head(self)
                self.parser.feed_data(framing(self.headers))
            else:
                return

    def _refuse(self, status: int, reason: str) -> None:
        """Answer an invalid request once all before it are answered, and close; nothing more is read."""
        self.logger.warning("A request of %s was refused: %s.", ":".join(map(str, self.client or ())), reason)
        self._refused, self._between_requests = True, False
        refusal: Any = Refusal(self.transport, status, reason)
        cycle = self.cycle
        if cycle is None or cycle.response_complete or (cycle.more_body and not self.pipeline):
            if cycle is not None and cycle.response_started and not cycle.response_complete:
                self.transport.close()  # another response has been sent in part
            else:
                refusal.write()
            return
        if cycle.more_body:  # it is the one that is refused, and the last in the pipeline
            self.pipeline.popleft()
        self.flow.pause_reading()
        self.pipeline.appendleft((refusal, self.app))
        self.cycle = refusal

    def shutdown(self) -> None:
        """The server stops: answer complete requests, and wait for the rest of incomplete ones."""
        super().shutdown()
        self._schedule_stall_check()

    def _schedule_stall_check(self) -> None:
        self._has_progressed = self.flow.read_paused  # a connection that is not read has not stalled
        self.loop.call_later(STALLED_SECONDS, self._end_if_stalled)

    def _end_if_stalled(self) -> None:
        cycle = self.cycle
        if self.transport.is_closing() or cycle is None or cycle.response_complete or not cycle.more_body:
            return
        if self._has_progressed or self.flow.read_paused:
            self._schedule_stall_check()
        else:
            self._refuse(503, STALLED)

    def on_message_begin(self) -> None:
        """A request has begun."""
        self._between_requests = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self._unparsed_bytes = 0
        check_host(self.headers, self.parser.get_http_version())
        super().on_headers_complete()
        if not self.pipeline:
            self._current_cycle = self.cycle

    def on_body(self, body: bytes) -> None:
        """A part of a body has arrived."""
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete; of one that asks for an upgrade, only the head is."""
        self._unparsed_bytes = 0
        if self._incomplete_bytes:  # bytes of the next one that arrived with its end are counted after this
            IncompleteRequests.size -= self._incomplete_bytes
            self._incomplete_bytes = 0
        if not self.parser.should_upgrade():
            self._between_requests = True
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """A response has been written: the next request has its turn, or more can be read."""
        if self.pipeline:
            self._current_cycle = self.pipeline[-1][0]
        super().on_response_complete()
        self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has disconnected; uvicorn notifies its last request, which may not have had its turn."""
        super().connection_lost(exc)
        self._refused = True
        self._count(0)
        if self._current_cycle is not None and not self._current_cycle.response_complete:
            self._current_cycle.disconnected = True
            self._current_cycle.message_event.set()
