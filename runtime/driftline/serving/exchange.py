"""One request of the fast lane and its answer, from the body to the socket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter_ns
from typing import TYPE_CHECKING

from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string

from driftline.batching.request import Request
from driftline.protocols.encoding import LONG, SHORT, compress
from driftline.registry.source import Version
from driftline.serving.infer import BODY_SECONDS, Call, Infer, Ran, Target, body_late, coded, fields_in, lines
from driftline.serving.payloads.exchange import Asked

if TYPE_CHECKING:
    from driftline.serving.fastlane import FastLane

_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of a request says: who is asked for what, how long the body is, what is logged of it, and
    which coding its answer is to have, if any."""

    infer: Infer
    target: Target
    path: str
    length: int
    asked: Asked
    exchange: type[Exchange]
    coding: bytes | None


class Exchange:
    """One request and its answer, in the place of uvicorn's RequestResponseCycle.

    uvicorn says in `more_body` and `disconnected` how things are, and sets `message_event` when there is
    news; it asks `response_complete` whether another request may begin.

    parts  of the body that have come, until all have
    """

    response_started = False  # before it is complete

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
        """Itself; kept as an attribute, it would be a cycle for the garbage collector to find."""
        return self

    def set(self) -> None:
        """There is news: more of the body, all of it, or the client has gone."""
        if self.disconnected:
            self._stop_waiting()
            if self._call is not None and isinstance(self._call.request, Request):
                self._call.request.cancel()
        elif not self.more_body and self._call is None and not self.response_complete:
            self._stop_waiting()
            self.body = b"".join(self.parts)
            self.parts.clear()
            self._protocol.app.together.add(self._head.target, self)

    def wait(self) -> None:
        """Give the client its time to send the rest of the body."""
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
        if isinstance(call.request, Ran):
            self._finish()
        else:
            call.request.on_done = self._finish

    def _finish(self) -> None:
        """The batch has run: write the answer."""
        call, self._call = self._call, None
        if call is None or self._gone():
            return
        try:
            fields, content = call.answer()
        except Exception as error:
            self._fail(error)
        else:
            self._write(200, lines(fields), content, call.served.version)

    def answer(self, fields: bytes, content: bytes) -> None:
        """Write an answer; see Member."""
        if not self._gone():
            self._send(200, fields, content)

    def answered(self, fields: bytes, content: bytes, version: Version) -> None:
        """Go on behind an answer; see Member."""
        if self.response_complete:
            self._sent(200, fields, content, version)

    def _gone(self) -> bool:
        return self.disconnected or self._protocol.wire.is_closing()

    def _fail(self, error: Exception) -> None:
        response = self._head.infer.failure(error)
        self._write(response.status_code, lines(response.raw_headers), bytes(response.body))

    def _write(self, status: int, fields: bytes, content: bytes, version: Version | None = None) -> None:
        self._send(status, fields, content)
        self._sent(status, fields, content, version)

    def _send(self, status: int, fields: bytes, content: bytes) -> None:
        protocol = self._protocol
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        protocol.wire.write(b"".join((_STATUS[status], protocol.default_lines(), fields, end, content)))
        self.response_complete = True

    def _sent(self, status: int, fields: bytes, content: bytes, version: Version | None) -> None:
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
    """One whose payloads are logged."""

    __slots__ = ()

    def _sent(self, status: int, fields: bytes, content: bytes, version: Version | None) -> None:
        Exchange._sent(self, status, fields, content, version)
        if (payloads := self._protocol.app.payloads) is not None:
            payloads.record(self._head.asked, self.body, status, fields, content, version)


class Compressing(Exchange):
    """One whose answer is to be compressed, if that is worth it."""

    __slots__ = ()

    def answer(self, fields: bytes, content: bytes) -> None:
        """Write an answer, unless that is done behind all others; see Member."""
        if len(content) < SHORT:
            super().answer(fields, content)

    def answered(self, fields: bytes, content: bytes, version: Version) -> None:
        """Go on behind an answer, or write it now; see Member."""
        if self.response_complete:
            super().answered(fields, content, version)
        elif not self._gone():
            self._write(200, fields, content, version)

    def _write(self, status: int, fields: bytes, content: bytes, version: Version | None = None) -> None:
        coding = self._head.coding
        if coding is None or status != 200 or len(content) < SHORT:
            super()._write(status, fields, content, version)
            return

        def go_on(packed: bytes) -> None:
            if not self._gone():
                self._send(200, lines(coded(fields_in(fields), coding, packed)), packed)
                self._sent(200, fields, content, version)

        if len(content) < LONG:
            go_on(compress(content, coding))
        else:
            packing = self._protocol.loop.run_in_executor(None, compress, content, coding)
            packing.add_done_callback(lambda packed: go_on(packed.result()))


class LoggedCompressing(Compressing, LoggedExchange):
    """One whose payloads are logged as they were before."""

    __slots__ = ()
