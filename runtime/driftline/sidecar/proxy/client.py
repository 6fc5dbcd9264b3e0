"""A client's connection and its requests in progress."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, cast

import httptools
import orjson

from driftline.http import MAX_HEAD, framing, parser_after_head
from driftline.sidecar.proxy import headers
from driftline.sidecar.proxy.headers import Field
from driftline.sidecar.proxy.tap import Copy

if TYPE_CHECKING:
    from driftline.sidecar.proxy.proxy import Proxy
    from driftline.sidecar.proxy.upstream import Upstream

_REASONS = {400: b"Bad Request", 431: b"Request Header Fields Too Large", 502: b"Bad Gateway"}
_REASONS |= {501: b"Not Implemented", 503: b"Service Unavailable", 504: b"Gateway Timeout"}
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))


class ForwardedRequest:
    """One request to the upstream, until its response is forwarded.

    method, target  of the request
    is_http10       whether the client speaks HTTP/1.0
    keep_alive      whether the client's connection stays open after the response
    chunked         whether the request is sent in chunks
    unsent          data to be written to the upstream next
    complete        whether all of the request has arrived
    answered        whether a response has begun: another one can't be sent
    done            whether nothing more is to be done about it
    sent            the first write, of a request that may be retried; None after a second write
    copy            the request's body for the agent; None if it is not wanted
    upstream        its connection, once it has one
    started_at      by `monotonic`
    """

    __slots__ = (
        "answered", "chunked", "client", "complete", "copy", "done", "is_http10", "keep_alive", "method",
        "sent", "started_at", "target", "unsent", "upstream",
    )  # fmt: skip

    def __init__(self, client: Client) -> None:
        self.client = client
        self.method = b""
        self.target = b""
        self.is_http10 = False
        self.keep_alive = True
        self.chunked = False
        self.unsent: list[bytes] = []
        self.complete = False
        self.answered = False
        self.done = False
        self.sent: bytes | None = b""
        self.copy: Copy | None = None
        self.upstream: Upstream | None = None
        self.started_at = monotonic()

    @property
    def is_retryable(self) -> bool:
        """Whether it may be retried if its connection was being closed while it was written."""
        return self.method in IDEMPOTENT and self.complete and bool(self.sent)


class Client(asyncio.Protocol):
    """Reads requests and hands each to the proxy once those before it are finished."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._parser = httptools.HttpRequestParser(self)
        self._incoming: ForwardedRequest | None = None
        self._waiting: deque[ForwardedRequest] = deque()
        self._url = b""
        self._fields: list[Field] = []
        self._connection = b""
        self._head_bytes = 0
        self._unparsed_bytes = 0  # bytes received since the last part of a body or end of a head
        self._framing = b""
        self._peer = b""
        self._forwarded = b""
        self.transport: asyncio.Transport
        self.request: ForwardedRequest | None = None
        self.closing = False
        self.idle_since = monotonic()
        self.slow = False
        self.parsing = False
        self.has_progressed = True  # data has arrived, or could not, since this was last checked

    # -- asyncio --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection."""
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]).encode() if isinstance(peer, tuple) else b"unknown"
        self._proxy.clients.add(self)
        self._proxy.shared.add("clients")

    def connection_lost(self, error: Exception | None) -> None:
        """Abort the request of a client that has disconnected."""
        self._proxy.clients.discard(self)
        self._proxy.shared.add("clients", -1)
        request, self.request = self.request, None
        self._waiting.clear()
        if request is not None and not request.done:
            self._proxy.client_gone(request)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request, or several requests."""
        if self.closing and self._incoming is None:
            return  # no further request is handled
        self.parsing = self.has_progressed = True
        self._unparsed_bytes += len(data)
        try:
            self._feed(data)
            if self._unparsed_bytes > MAX_HEAD:
                self._refuse()
        except httptools.HttpParserError:
            self._refuse()
        finally:
            self.parsing = False
        request = self.request
        if request is not None and request.unsent and request.upstream is not None:
            request.upstream.flush()

    def _feed(self, data: bytes) -> None:
        remaining = memoryview(data)
        while True:
            try:
                self._parser.feed_data(remaining)
            except httptools.HttpParserUpgrade as upgrade:
                remaining = remaining[upgrade.args[0] :]
                self._parser = parser_after_head(self)
                self._parser.feed_data(self._framing)
            else:
                return

    def pause_writing(self) -> None:
        """Stop reading from the upstream: the client reads too slowly."""
        self.slow = True
        if self.request is not None and self.request.upstream is not None:
            self.request.upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read from the upstream again: the client has caught up."""
        self.slow = False
        if self.request is not None and self.request.upstream is not None:
            self.request.upstream.transport.resume_reading()

    def resume(self) -> None:
        """Continue reading, unless requests are waiting."""
        if not self._waiting and not self.transport.is_closing():
            self.transport.resume_reading()
            self.has_progressed = True  # data that arrived meanwhile is read only now

    # -- the parser -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Start a request."""
        self._incoming = ForwardedRequest(self)
        self._url, self._connection, self._forwarded, self._head_bytes = b"", b"", b"", 0
        self._fields = []

    def on_url(self, part: bytes) -> None:
        """Add a part of the target."""
        self._url += part
        self._count_head_bytes(len(part))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; drop trailers, which follow the body."""
        request = self._incoming
        assert request is not None
        self._count_head_bytes(len(name) + len(value))
        if request.target:
            return
        if b"\r" in value or b"\n" in value:
            raise ValueError("a header of several lines")
        key = name.lower()
        if key == b"connection":
            self._connection += b"," + value
        elif key == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise ValueError("an unsupported transfer coding")
            request.chunked = True
        elif key == b"x-forwarded-for":
            self._forwarded += value + b", "
        elif key not in headers.HOP_BY_HOP:
            self._fields.append((key, name, value))

    def on_headers_complete(self) -> None:
        """Send the request's head, or queue the request."""
        request, parser = self._incoming, self._parser
        assert request is not None
        request.method, request.target = parser.get_method(), self._url or b"/"
        request.is_http10 = parser.get_http_version() == "1.0"
        request.keep_alive = parser.should_keep_alive() and not self.closing
        self._unparsed_bytes = 0
        if parser.should_upgrade():
            length = [(key, value) for key, _, value in self._fields if key == b"content-length"]
            self._framing = framing([(b"transfer-encoding", b"chunked")] if request.chunked else length)
        excluded = headers.named(self._connection) if self._connection else frozenset()
        request.unsent = [
            request.method, b" ", request.target, b" HTTP/1.1\r\n",
            *headers.lines(self._fields, excluded),
            b"Via: 1.1 driftline\r\nX-Forwarded-For: ", self._forwarded, self._peer,
            b"\r\nTransfer-Encoding: chunked\r\n\r\n" if request.chunked else b"\r\n\r\n",
        ]  # fmt: skip
        if request.is_http10 and not any(field[0] == b"host" for field in self._fields):
            request.unsent.insert(4, b"Host: " + self._proxy.authority + b"\r\n")
        if request.method == b"POST" and self._proxy.is_watched(request.target):
            request.copy = Copy.of(self._fields, self._proxy.copy_body_bytes)
        if self.request is None:
            self._begin(request)
        else:
            self._waiting.append(request)
            self.transport.pause_reading()

    def on_body(self, part: bytes) -> None:
        """Add a part of the body."""
        request = self._incoming
        assert request is not None
        self._unparsed_bytes = 0
        if request.done:
            return
        request.unsent += (b"%x\r\n" % len(part), part, b"\r\n") if request.chunked else (part,)
        if request.copy is not None:
            request.copy.add(part)

    def on_message_complete(self) -> None:
        """End a request; for one that requests another protocol, this is only its head."""
        self._unparsed_bytes = 0
        if self._parser.should_upgrade():
            return
        request, self._incoming = self._incoming, None
        assert request is not None
        request.complete = True
        if request.chunked and not request.done:
            request.unsent.append(b"0\r\n\r\n")
        if request.done and self.closing:
            self.transport.close()  # its response was sent before it was complete

    # -- requests in order ----------------------------------------------------------------------------

    def finished(self, request: ForwardedRequest) -> None:
        """Continue with the next request, or close the connection."""
        request.done = True
        if not request.keep_alive or self.closing or not request.complete:
            self.closing = True
            if request.complete:
                self.transport.close()
            else:  # the rest is discarded: after a close, the client might not read its response
                self.resume()
            return
        self.request = None
        self.idle_since = monotonic()
        if self._waiting:
            self._begin(self._waiting.popleft())
        self.resume()

    def fail(self, request: ForwardedRequest, status: int, message: str) -> None:
        """Send an error response, or abort if a response has begun, so that it is not taken as complete."""
        if request.answered:
            request.done = True
            self.transport.abort()
            return
        request.answered = True
        keep_alive = request.keep_alive and request.complete
        request.keep_alive = keep_alive
        self._proxy.shared.add(f"answers_{status // 100}xx")
        body = orjson.dumps({"error": message})
        content = b"" if request.method == b"HEAD" else body
        self.transport.write(_answer(status, content, len(body), keep_alive))
        self.finished(request)

    def _begin(self, request: ForwardedRequest) -> None:
        self.request = request
        request.started_at = monotonic()
        if request.method == b"CONNECT":
            self.fail(request, 501, "CONNECT: this is no proxy for other servers")
        else:
            self._proxy.begin(request)

    def _count_head_bytes(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD:
            raise ValueError("a head of too many bytes")

    def _refuse(self) -> None:
        """Reject data that is not HTTP, or a head that is too large."""
        self._proxy.shared.add("malformed")
        self.closing = True
        self._incoming = None
        if self.request is not None:
            self.transport.abort()
            return
        status = 431 if max(self._head_bytes, self._unparsed_bytes) > MAX_HEAD else 400
        self._proxy.shared.add("answers_4xx")
        body = orjson.dumps({"error": _REASONS[status].decode()})
        self.transport.write(_answer(status, body, len(body), keep_alive=False))
        self.transport.close()


def _answer(status: int, body: bytes, length: int, keep_alive: bool) -> bytes:
    return b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n%b" % (
        status,
        _REASONS[status],
        length,
        b"" if keep_alive else b"Connection: close\r\n",
        body,
    )
