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
    body_late,
    coded,
    fields_in,
    lines,
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
    asked: RequestHead
    exchange: type[Exchange]
    coding: bytes | None


class Exchange:
    """One request and its response, in place of uvicorn's RequestResponseCycle.

    uvicorn sets `more_body` and `disconnected`, then calls `message_event.set()` to signal the change; it
    reads `response_complete` to know whether another request may begin.

    parts  parts of the body received so far, until it is complete
    """

    response_started = False  # it starts and completes in one write

    __slots__ = (
        "_call", "_head", "_protocol", "_timer", "begin",
        "body", "disconnected", "keep_alive", "more_body", "parts", "response_complete",
    )  # fmt: skip

    def __init__(self, protocol: FastLane, head: Head) -> None:
        self.begin = perf_counter_ns()
        self._protocol = protocol
        self._head = head
        self._call: Call | None = None
        self._timer: asyncio.TimerHandle | None = None
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
            self._stop_waiting()
            if self._call is not None and isinstance(self._call.request, Request):
                self._call.request.cancel()
        elif not self.more_body and self._call is None and not self.response_complete:
            self._stop_waiting()
            self.body = b"".join(self.parts)
            self.parts.clear()
            self._protocol.app.joiner.add(self._head.target, self)

    def wait(self) -> None:
        """Start the client's time limit for the rest of the body."""
        if self._timer is None and not self.response_complete:
            self._timer = self._protocol.loop.call_later(BODY_SECONDS, self._late)

    def _late(self) -> None:
        self._fail(body_late())
        self._protocol.wire.close()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def start(self, alone: bool = False) -> None:
        """Put the request in the queue, or run it at once if it is alone and short."""
        if self._gone():
            return
        head = self._head
        try:
            call = self._call = head.infer.call(head.target, self.body, self.begin, alone)
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
        if call is None or self._gone():
            return
        try:
            fields, content = call.answer()
        except Exception as error:
            self._fail(error)
        else:
            self._respond(200, lines(fields), content, call.served.version)

    def send(self, fields: bytes, content: bytes) -> None:
        """Send the response; see Member."""
        if not self._gone():
            self._write(200, fields, content)

    def after_send(self, fields: bytes, content: bytes, version: Version) -> None:
        """Log the response and continue reading; see Member."""
        if self.response_complete:
            self._after_write(200, fields, content, version)

    def _gone(self) -> bool:
        return self.disconnected or self._protocol.wire.is_closing()

    def _fail(self, error: Exception) -> None:
        response = self._head.infer.failure(error)
        self._respond(response.status_code, lines(response.raw_headers), bytes(response.body))

    def _respond(self, status: int, fields: bytes, content: bytes, version: Version | None = None) -> None:
        self._write(status, fields, content)
        self._after_write(status, fields, content, version)

    def _write(self, status: int, fields: bytes, content: bytes) -> None:
        protocol = self._protocol
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        protocol.wire.write(b"".join((_STATUS[status], protocol.default_lines(), fields, end, content)))
        self.response_complete = True

    def _after_write(self, status: int, fields: bytes, content: bytes, version: Version | None) -> None:
        protocol = self._protocol
        if protocol.access_log:
            self._log(status)
        if not self.keep_alive:
            protocol.wire.close()
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
            payloads.record(self._head.asked, self.body, status, fields, content, version)


class Compressing(Exchange):
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
        elif not self._gone():
            self._respond(200, fields, content, version)

    def _respond(self, status: int, fields: bytes, content: bytes, version: Version | None = None) -> None:
        coding = self._head.coding
        if coding is None or status != 200 or len(content) < SHORT:
            super()._respond(status, fields, content, version)
            return

        def go_on(packed: bytes | None) -> None:
            if self._gone():
                return
            if packed is None:
                self._write(200, fields, content)
            else:
                self._write(200, lines(coded(fields_in(fields), coding, packed)), packed)
            self._after_write(200, fields, content, version)

        if len(content) < LONG:
            go_on(_packed(content, coding))
            return
        try:
            packing = self._protocol.loop.run_in_executor(None, _packed, content, coding)
        except RuntimeError:  # no thread can be started
            log.exception(_NOT_COMPRESSED)
            go_on(None)
        else:
            packing.add_done_callback(lambda packing: go_on(packing.result()))


class LoggedCompressing(Compressing, LoggedExchange):
    """An exchange that logs payloads, the response as it was before compression."""

    __slots__ = ()


_NOT_COMPRESSED = "a response can't be compressed and is sent as it is"


def _packed(content: bytes, coding: bytes) -> bytes | None:
    """Compress a response's body; None if that fails."""
    try:
        return compress(content, coding)
    except Exception:  # out of memory, say
        log.exception(_NOT_COMPRESSED)
        return None
