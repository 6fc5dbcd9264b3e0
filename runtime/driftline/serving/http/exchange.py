"""One request of the fast lane and its response, from the body to the socket."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter_ns
from typing import TYPE_CHECKING

from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string

from driftline.batching.request import Request
from driftline.protocols.encoding import LONG, SHORT, compress
from driftline.registry.source import Version
from driftline.serving.http.infer import (
    BODY_SECONDS,
    Call,
    Completed,
    Infer,
    Target,
    body_timeout,
    compressed_fields,
    header_lines,
    parse_header_lines,
)
from driftline.serving.payloads.exchange import RequestHead

if TYPE_CHECKING:
    from driftline.serving.http.fastlane import FastLane

log = logging.getLogger("driftline.serving")

_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Head:
    """The parsed head of a request: its target, the body's length, what payload logging needs of it, and the
    coding of the response, if any."""

    infer: Infer
    target: Target
    path: str
    length: int
    request_head: RequestHead
    exchange_class: type[Exchange]
    coding: bytes | None


class Exchange:
    """One request and its response, in place of uvicorn's RequestResponseCycle.

    uvicorn sets `more_body` and `disconnected`, then calls `message_event.set()` to signal the change; it
    reads `response_complete` to know whether another request may begin.

    parts  parts of the body received so far, until it is complete
    """

    response_started = False  # it starts and completes in one write

    __slots__ = (
        "_body_timer", "_call", "_head", "_protocol", "arrived_ns",
        "body", "disconnected", "keep_alive", "more_body", "parts", "response_complete",
    )  # fmt: skip

    def __init__(self, protocol: FastLane, head: Head) -> None:
        self.arrived_ns = perf_counter_ns()
        self._protocol = protocol
        self._head = head
        self._call: Call | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self.body = b""
        self.parts: list[bytes] = []
        self.more_body = True
        self.disconnected = False
        self.keep_alive = protocol.keep_alive
        self.response_complete = False

    @property
    def message_event(self) -> Exchange:
        """Return itself; an attribute would be a reference cycle for the garbage collector."""
        return self

    def set(self) -> None:
        """React to a change: more of the body, its end, or a disconnect."""
        if self.disconnected:
            self._cancel_body_timer()
            if self._call is not None and isinstance(self._call.request, Request):
                self._call.request.cancel()
        elif not self.more_body and self._call is None and not self.response_complete:
            self._cancel_body_timer()
            self.body = b"".join(self.parts)
            self.parts.clear()
            self._protocol.app.joiner.add(self._head.target, self)

    def start_body_timer(self) -> None:
        """Start the client's time limit for the rest of the body."""
        if self._body_timer is None and not self.response_complete:
            self._body_timer = self._protocol.loop.call_later(BODY_SECONDS, self._body_timed_out)

    def _body_timed_out(self) -> None:
        self._fail(body_timeout())
        self._protocol.raw_transport.close()

    def _cancel_body_timer(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()

    def start(self, alone: bool = False) -> None:
        """Put the request in the queue, or run it at once if it is alone and short."""
        if self._is_gone():
            return
        head = self._head
        try:
            call = self._call = head.infer.submit(head.target, self.body, self.arrived_ns, alone)
        except Exception as error:
            self._fail(error)
            return
        if isinstance(call.request, Completed):
            self._finish()
        else:
            call.request.on_done = self._finish

    def _finish(self) -> None:
        """Write the response after the batch has run."""
        call, self._call = self._call, None
        if call is None or self._is_gone():
            return
        try:
            fields, content = call.response()
        except Exception as error:
            self._fail(error)
        else:
            self._respond(200, header_lines(fields), content, call.served.version)

    def send(self, fields: bytes, content: bytes) -> None:
        """Send the response; see Member."""
        if not self._is_gone():
            self._write(200, fields, content)

    def after_send(self, fields: bytes, content: bytes, version: Version) -> None:
        """Log the response and continue reading; see Member."""
        if self.response_complete:
            self._after_write(200, fields, content, version)

    def _is_gone(self) -> bool:
        return self.disconnected or self._protocol.raw_transport.is_closing()

    def _fail(self, error: Exception) -> None:
        response = self._head.infer.failure(error)
        self._respond(response.status_code, header_lines(response.raw_headers), bytes(response.body))

    def _respond(self, status: int, fields: bytes, content: bytes, version: Version | None = None) -> None:
        self._write(status, fields, content)
        self._after_write(status, fields, content, version)

    def _write(self, status: int, fields: bytes, content: bytes) -> None:
        protocol = self._protocol
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        protocol.raw_transport.write(
            b"".join((_STATUS[status], protocol.default_lines(), fields, end, content))
        )
        self.response_complete = True

    def _after_write(self, status: int, fields: bytes, content: bytes, version: Version | None) -> None:
        protocol = self._protocol
        if protocol.access_log:
            self._log(status)
        if not self.keep_alive:
            protocol.raw_transport.close()
        protocol.on_response_complete()

    def _log(self, status: int) -> None:
        protocol = self._protocol
        scope = {"client": protocol.client, "path": self._head.path, "query_string": b""}
        protocol.access_logger.info(
            '%s - "%s %s HTTP/%s" %d',
            get_client_addr(scope), "POST", get_path_with_query_string(scope), "1.1", status,  # type: ignore[arg-type]
        )  # fmt: skip


class LoggedExchange(Exchange):
    """An exchange that logs payloads."""

    __slots__ = ()

    def _after_write(self, status: int, fields: bytes, content: bytes, version: Version | None) -> None:
        Exchange._after_write(self, status, fields, content, version)
        if (payloads := self._protocol.app.payloads) is not None:
            payloads.record(self._head.request_head, self.body, status, fields, content, version)


class CompressingExchange(Exchange):
    """An exchange that compresses its response if that is worth it."""

    __slots__ = ()

    def send(self, fields: bytes, content: bytes) -> None:
        """Send the response if it is not to be compressed, so that others don't wait for that; see Member."""
        if len(content) < SHORT:
            super().send(fields, content)

    def after_send(self, fields: bytes, content: bytes, version: Version) -> None:
        """Continue if the response is sent, else compress and send it; see Member."""
        if self.response_complete:
            super().after_send(fields, content, version)
        elif not self._is_gone():
            self._respond(200, fields, content, version)

    def _respond(self, status: int, fields: bytes, content: bytes, version: Version | None = None) -> None:
        coding = self._head.coding
        if coding is None or status != 200 or len(content) < SHORT:
            super()._respond(status, fields, content, version)
            return

        def finish(compressed: bytes | None) -> None:
            if self._is_gone():
                return
            if compressed is None:
                self._write(200, fields, content)
            else:
                changed = compressed_fields(parse_header_lines(fields), coding, compressed)
                self._write(200, header_lines(changed), compressed)
            self._after_write(200, fields, content, version)

        if len(content) < LONG:
            finish(_try_compress(content, coding))
            return
        try:
            compression = self._protocol.loop.run_in_executor(None, _try_compress, content, coding)
        except RuntimeError:  # no thread can be started
            log.exception(_NOT_COMPRESSED)
            finish(None)
        else:
            compression.add_done_callback(lambda compression: finish(compression.result()))


class LoggedCompressingExchange(CompressingExchange, LoggedExchange):
    """An exchange that logs payloads, the response as it was before compression."""

    __slots__ = ()


_NOT_COMPRESSED = "a response can't be compressed and is sent as it is"


def _try_compress(content: bytes, coding: bytes) -> bytes | None:
    """Compress a response's body; None if that fails."""
    try:
        return compress(content, coding)
    except Exception:  # out of memory, say
        log.exception(_NOT_COMPRESSED)
        return None
