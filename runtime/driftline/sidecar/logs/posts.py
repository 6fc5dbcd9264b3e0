"""Handles posts of single events without ASGI: from the socket to the queue.

uvicorn makes a task, a scope and a handful of messages for every request, which takes several times as long
as an event. A logger's posts differ only in their ids, times, lengths and bodies: a head that was parsed
before, except for these, is not parsed again. All other requests go through uvicorn and `Events.receive`,
and get the same response.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import ClassVar

from starlette.responses import Response

from driftline.answers import failure
from driftline.errors import DriftlineError
from driftline.http import HttpConnection
from driftline.protocols.cloudevents import from_http
from driftline.protocols.payloads import JSON_LENGTH, Payload, of_event
from driftline.sidecar.logs.events import ACCEPTED, INFERENCE_LENGTH, PATHS, Events

MAX_HEADS = 1_000
"""Parsed heads to cache."""

MAX_HEAD_BYTES = 4_000

_HEAD_END = b"\r\n\r\n"
_ID, _TIME, _LENGTH = b"ce-id", b"ce-time", b"content-length"
_VARYING = re.compile(rb"(\r\n(?:[Cc]e-(?:[Ii]d|[Tt]ime)|[Cc]ontent-[Ll]ength): )([!#$&-~]+)(?=\r\n)")
"""A varying header, group 1, and its value, group 2, if that has no quotes and no escapes."""

_UNUSUAL_HEADERS = {
    b"expect",
    b"transfer-encoding",
    b"upgrade",
    INFERENCE_LENGTH,
    b"ce-" + JSON_LENGTH.encode(),
}
_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Head:
    """A parsed head without its varying values.

    payload  without id, time and body
    varying  names of the headers that vary, in their order
    """

    source: str
    payload: Payload
    varying: tuple[bytes, ...]


def connection(events: Events) -> type[Connection]:
    """Return the uvicorn protocol class for an agent that receives these events."""
    return type("Connection", (Connection,), {"events": events, "heads": {}})


class Connection(HttpConnection):
    """A client's connection.

    heads  parsed heads, by their bytes without the varying values
    """

    events: ClassVar[Events]
    heads: ClassVar[dict[bytes, Head]]
    _received = b""  # the data being parsed, from the beginning of a request on
    _idle_since = 0.0

    def data_received(self, data: bytes) -> None:
        """Parse the data received."""
        if self._between_requests and (self.cycle is None or self.cycle.response_complete):
            if not self.flow.write_paused and self._accept(data):
                return
            self._received = data
        super().data_received(data)
        self._received = b""

    def _accept(self, data: bytes) -> bool:
        """Queue the event of a post with a known head, and respond; False for any other data."""
        end = data.find(_HEAD_END) + len(_HEAD_END)
        text, values = _split(data[:end])
        head = self.heads.get(text)
        if head is None or len(values) != len(head.varying):
            return False
        varying = dict(zip(head.varying, values, strict=True))
        time = _seconds(varying[_TIME]) if _TIME in varying else 0.0
        if time is None or varying[_LENGTH] != b"%d" % (len(data) - end):
            return False
        event_id, template = varying[_ID].decode("ascii"), head.payload
        payload = Payload(
            event_id, template.type, time, template.model, template.version, template.content_type,
            None, None, data[end:],
        )  # fmt: skip
        try:
            self.events.put([(f"{head.source} {event_id}", payload)])
        except DriftlineError as error:
            self._answer(failure(error))
        else:
            self._answer(ACCEPTED)
        return True

    def _answer(self, response: Response) -> None:
        fields = [*self.server_state.default_headers, *response.raw_headers]
        lines = [b"%b: %b\r\n" % field for field in fields]
        self.transport.write(b"".join((_STATUS[response.status_code], *lines, b"\r\n", response.body)))
        self.server_state.total_requests += 1
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._schedule_idle_check(self.timeout_keep_alive)

    # -- what uvicorn calls -------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        """Let uvicorn handle a request, and cache its head."""
        super().on_headers_complete()
        if self._received:
            self._cache_head(self._received[: self._received.find(_HEAD_END) + len(_HEAD_END)])
            self._received = b""

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle for long enough; a timer per event would cost more."""
        remaining = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if remaining > 0:
            self._schedule_idle_check(remaining)
        else:
            super().timeout_keep_alive_handler()

    def _schedule_idle_check(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _cache_head(self, text: bytes) -> None:
        """Cache a head if it is a plain one of a logger's event in binary mode."""
        scope, fields = self.scope, dict(self.headers)
        if (
            scope["method"] != "POST" or scope["path"] not in PATHS or scope["http_version"] != "1.1"
            or not self.parser.should_keep_alive() or not _UNUSUAL_HEADERS.isdisjoint(fields)
            or fields.get(b"content-type", b"")[:23].lower() == b"application/cloudevents"
        ):  # fmt: skip
            return
        # The lines are the request line, the headers and an empty one: none folded, none before or after.
        lines = len(self.headers) + 2
        if not text.startswith(b"POST /") or not text.count(b"\n") == text.count(b"\r\n") == lines:
            return
        text, values = _split(text)
        varying = tuple(name for name, _ in self.headers if name in (_ID, _TIME, _LENGTH))
        if len(values) != len(varying) or sorted(varying) not in ([_ID, _TIME, _LENGTH], [_ID, _LENGTH]):
            return
        try:
            (event,) = from_http(self.headers, b"")
            head = Head(event.source, of_event(event), varying)
        except DriftlineError:
            return
        if len(self.heads) >= MAX_HEADS:
            self.heads.clear()
        if len(text) <= MAX_HEAD_BYTES:
            self.heads[text] = head


def _split(head: bytes) -> tuple[bytes, list[bytes]]:
    """Return a head without its varying values, and these values."""
    parts = _VARYING.split(head)
    values = parts[2::3]
    del parts[2::3]
    return b"".join(parts), values


def _seconds(time: bytes) -> float | None:
    """Seconds since 1970; None if it is not a valid time."""
    try:
        parsed = datetime.fromisoformat(time.decode("ascii"))
    except ValueError:
        return None
    return parsed.timestamp() if parsed.tzinfo is not None else None
