"""Exchanges on their way from the event loop to the threads that log them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event, Lock
from time import monotonic, sleep
from uuid import uuid4

from driftline.protocols.payloads import REQUEST, RESPONSE, Payload
from driftline.registry.source import Version

NAP_SECONDS = 0.01
"""Who had nothing to do lets so much pass before it looks again: to wake it for each would cost the loop."""

RECORD_BYTES = 700
"""What an exchange takes in memory besides its bodies, about."""

_JSON_LENGTH = re.compile(rb"inference-header-content-length: (\d+)\r\n")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the head of a request says that goes into its payloads.

    name          the model that is asked; None for the default
    content_type  empty if there is none
    id            of the exchange, the header `ce-id`; empty if one is to be made
    json_length   where the body's JSON ends; None if that is not said
    """

    name: str | None
    content_type: bytes
    id: bytes
    json_length: int | None

    @classmethod
    def of(cls, name: str | None, headers: dict[bytes, bytes], json_length: int | None) -> Asked:
        """Of a request's headers."""
        return cls(name, headers.get(b"content-type", b""), headers.get(b"ce-id", b""), json_length)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer, or one of them, as they went over the wire.

    time              of the answer, in seconds since 1970
    request, response their bodies; None for what is not to be logged
    fields            the lines of the answer's headers
    version           that has answered; None if none has
    """

    time: float
    asked: Asked
    request: bytes | None
    status: int
    fields: bytes
    response: bytes | None
    version: Version | None

    @property
    def halves(self) -> int:
        """How many payloads it has."""
        return (self.request is not None) + (self.response is not None)

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, about."""
        return len(self.request or b"") + len(self.response or b"") + RECORD_BYTES

    def payloads(self) -> Iterator[Payload]:
        """The request, then the answer."""
        asked, version = self.asked, self.version
        name = asked.id.decode("latin-1") or str(uuid4())
        model = version.name if version is not None else asked.name or ""
        number = str(version.number) if version is not None else ""
        about = (self.time, model, number)
        content_type = asked.content_type.decode("latin-1")
        if self.request is not None:
            yield Payload(name, REQUEST, *about, content_type, asked.json_length, self.status, self.request)
        if self.response is not None:
            length = _JSON_LENGTH.search(self.fields)
            json_length = int(length[1]) if length is not None else None
            yield Payload(name, RESPONSE, *about, content_type, json_length, self.status, self.response)


@dataclass(slots=True)
class Counts:
    """Payloads by what became of them; `queued` and `queued_bytes` are of this moment."""

    sent: int = 0
    dropped: int = 0
    queued: int = 0
    queued_bytes: int = 0

    def add(self, other: Counts) -> None:
        """Add another process's."""
        self.sent += other.sent
        self.dropped += other.dropped
        self.queued += other.queued
        self.queued_bytes += other.queued_bytes

    def bury(self) -> None:
        """Their process has gone, and with it what was queued."""
        self.dropped += self.queued
        self.queued = self.queued_bytes = 0


class Queue:
    """A bounded queue: for more than it may hold, the oldest go.

    One thread puts, the event loop's, and never waits for the others, who take.

    most_bytes  that may wait
    """

    def __init__(self, most_bytes: int) -> None:
        self._waiting: deque[Exchange] = deque()
        self._most_bytes = most_bytes
        self._came = Event()
        self._closed = False
        self._until = 0.0
        # Each of these is written by one side only: the first by who puts, the others under the lock.
        self._put = self._put_bytes = self._overflown = self._overflown_bytes = 0
        self._taken_bytes = self._sent = self._given_up = 0
        self._lock = Lock()

    def put(self, exchange: Exchange) -> None:
        """Leave an exchange to be logged."""
        self._put += exchange.halves
        self._put_bytes += exchange.size
        self._waiting.append(exchange)
        while self._put_bytes - self._overflown_bytes - self._taken_bytes > self._most_bytes:
            try:
                oldest = self._waiting.popleft()
            except IndexError:  # somebody has taken it and is about to say so
                break
            self._overflown += oldest.halves
            self._overflown_bytes += oldest.size
        if not self._came.is_set():
            self._came.set()

    def take(self, seconds: float) -> Exchange | None:
        """The oldest; None if none comes in so many seconds, or if the queue is closed and empty."""
        if (found := self._pop()) is not None:
            return found
        until = monotonic() + seconds
        while not self._closed and (left := until - monotonic()) > 0:
            self._came.clear()
            if not self._waiting:
                self._came.wait(left)
                sleep(NAP_SECONDS)
            if (found := self._pop()) is not None:
                return found
        return self._pop()

    def _pop(self) -> Exchange | None:
        if self.late:
            return None
        try:
            found = self._waiting.popleft()
        except IndexError:
            return None
        with self._lock:
            self._taken_bytes += found.size
        return found

    def done(self, sent: int = 0, given_up: int = 0) -> None:
        """Say what became of payloads that were taken."""
        with self._lock:
            self._sent += sent
            self._given_up += given_up

    def close(self, seconds: float) -> None:
        """What waits has so long to be logged; nothing more comes."""
        self._until = monotonic() + seconds
        self._closed = True
        self._came.set()

    @property
    def closed(self) -> bool:
        """Whether nothing more comes."""
        return self._closed

    @property
    def late(self) -> bool:
        """Whether what still waits is not to be logged any more."""
        return self._closed and monotonic() >= self._until

    @property
    def counts(self) -> Counts:
        """What became of all until now."""
        dropped = self._overflown + self._given_up
        waiting = self._put_bytes - self._overflown_bytes - self._taken_bytes
        return Counts(self._sent, dropped, max(0, self._put - dropped - self._sent), max(0, waiting))
