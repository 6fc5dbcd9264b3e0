"""A connection to the upstream and the responses on it."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, cast

import httptools

from driftline.sidecar.proxy import headers
from driftline.sidecar.proxy.headers import Field
from driftline.sidecar.proxy.tap import Copy

if TYPE_CHECKING:
    from driftline.sidecar.proxy.client import ForwardedRequest
    from driftline.sidecar.proxy.proxy import Proxy


class Upstream(asyncio.Protocol):
    """Writes requests, one after another, and forwards the responses."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._parser = httptools.HttpResponseParser(self)
        self._reason = b""
        self._fields: list[Field] = []
        self._connection = b""
        self._has_length = False
        self._chunked = False
        self._interim = False
        self._reading = False
        self._unsent: list[bytes] = []
        self._copy: Copy | None = None
        self.transport: asyncio.Transport
        self.request: ForwardedRequest | None = None
        self.was_used = False
        self.idle_since = 0.0

    # -- asyncio --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection."""
        self.transport = cast(asyncio.Transport, transport)
        self._proxy.shared.add("upstreams")

    def connection_lost(self, error: Exception | None) -> None:
        """Handle that the upstream has closed: that may be the end of its response."""
        self._proxy.shared.add("upstreams", -1)
        self._proxy.forget(self)
        request = self.request
        if request is None or request.done:
            return
        if self._reading and not self._has_length and error is None:
            self.on_message_complete()
        else:
            self.request = None
            retry = self.was_used and request.is_retryable and not request.answered
            self._proxy.connection_broken(request, retry)

    def data_received(self, data: bytes) -> None:
        """Parse a part of a response."""
        request = self.request
        if request is None:
            self.transport.close()  # no request is in progress
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError:
            if self.request is request:
                self.request = None
                self.transport.abort()
                self._proxy.connection_broken(request, retry=False)
            return
        if self._unsent:
            self._write(request)

    def pause_writing(self) -> None:
        """Stop reading from the client: the upstream reads too slowly."""
        if self.request is not None:
            self.request.client.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read from the client again: the upstream has caught up."""
        if self.request is not None:
            self.request.client.resume()

    # -- requests ---------------------------------------------------------------------------------------

    def take(self, request: ForwardedRequest) -> None:
        """Send a request, as far as it has arrived."""
        self.request = request
        request.upstream = self
        if request.client.slow:
            self.transport.pause_reading()
        if not request.client.parsing:  # otherwise more may follow in a moment
            self.flush()

    def flush(self) -> None:
        """Send what has arrived of the request since."""
        request = self.request
        if request is not None and request.unsent:
            data = b"".join(request.unsent)
            request.unsent.clear()
            request.sent = data if request.sent == b"" else None
            self.transport.write(data)

    # -- the parser ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Start a response."""
        self._reason, self._connection = b"", b""
        self._fields = []
        self._has_length = self._chunked = self._reading = False

    def on_status(self, reason: bytes) -> None:
        """Add a part of the reason phrase."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; drop trailers, which follow the body."""
        if self._reading:
            return
        key = name.lower()
        if key == b"connection":
            self._connection += b"," + value
        elif key == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise ValueError("an unsupported transfer coding")
            self._has_length = self._chunked = True
        elif key not in headers.HOP_BY_HOP:
            self._has_length = self._has_length or key == b"content-length"
            self._fields.append((key, name, value))

    def on_headers_complete(self) -> None:
        """Forward the response's head."""
        request = self.request
        if request is None:
            raise ValueError("a response without a request")
        status = self._parser.get_status_code()
        excluded = headers.named(self._connection) if self._connection else frozenset()
        head = [b"HTTP/1.1 %d %b\r\n" % (status, self._reason), *headers.lines(self._fields, excluded)]
        self._interim = status < 200
        if self._interim:
            if not request.is_http10 and status != 101:
                self._unsent += (*head, b"\r\n")
            return
        self._reading = request.answered = True
        bodiless = request.method == b"HEAD" or status in (204, 304)
        self._has_length = self._has_length or bodiless
        # A body that ends with its connection is sent in chunks if the client supports them: ours stays open.
        self._chunked = (self._chunked or not self._has_length) and not bodiless
        if self._chunked and request.is_http10:
            self._chunked = request.keep_alive = False
        elif self._chunked:
            head.append(b"Transfer-Encoding: chunked\r\n")
        if not request.complete or self._proxy.stopping:
            request.keep_alive = False
        if not request.keep_alive:
            head.append(b"Connection: close\r\n")
        elif request.is_http10:
            head.append(b"Connection: keep-alive\r\n")
        self._unsent += (*head, b"\r\n")
        self._proxy.shared.add(_RESPONSE_COUNTERS[status // 100])
        self._copy = None
        if request.copy is not None:
            if status == 200:
                self._copy = Copy.of(self._fields, self._proxy.copy_body_bytes)
            else:
                self._proxy.shared.add("dropped_status")
        if request.method == b"HEAD":
            self._parser = httptools.HttpResponseParser(self)  # this one would wait for a body
            self._end(request, keep_alive=not self._connection.lower().count(b"close"))

    def on_body(self, part: bytes) -> None:
        """Forward a part of the body."""
        self._unsent += (b"%x\r\n" % len(part), part, b"\r\n") if self._chunked else (part,)
        if self._copy is not None:
            self._copy.add(part)

    def on_message_complete(self) -> None:
        """End a response, unless it is an interim one."""
        request = self.request
        if self._interim:
            self._interim = False
            return
        if request is not None:
            self._end(request, self._parser.should_keep_alive())

    def _end(self, request: ForwardedRequest, keep_alive: bool) -> None:
        if self._chunked:
            self._unsent.append(b"0\r\n\r\n")
        self._write(request)
        self._reading = False
        self.request = request.upstream = None
        if self._copy is not None and request.copy is not None:
            self._proxy.tap.put(request.target, request.copy, self._copy)
            self._copy = None
        if keep_alive and request.complete and not self.transport.is_closing():
            if request.client.slow:
                self.transport.resume_reading()
            self.was_used = True
            self.idle_since = monotonic()
            self._proxy.idle.append(self)
        else:
            self.transport.close()
        request.client.finished(request)

    def _write(self, request: ForwardedRequest) -> None:
        if self._unsent:
            request.client.transport.write(b"".join(self._unsent))
            self._unsent.clear()


_RESPONSE_COUNTERS = tuple(f"answers_{digit}xx" for digit in "0123456789")
