"""Sends copies of exchanges from the proxy to the agent's process over a socket pair.

The proxy never waits for the agent: frames are written in the background, several at once, and when too many
bytes wait, the next copies are dropped and counted. The agent reads one frame after another, in a thread.

A frame is a head of lengths, then the data of these lengths.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Thread
from typing import TYPE_CHECKING, Any

from driftline.child_process import SharedCounts
from driftline.sidecar.proxy.headers import Field

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from starlette.types import ASGIApp

    from driftline.sidecar.agent import Agent
    from driftline.sidecar.exchange import Body

log = logging.getLogger("driftline.sidecar")

FLUSH_SECONDS = 0.005
"""How long copies wait to be written with others."""

FLUSH_BYTES = 2**16
"""So many bytes of copies are written at once."""

COUNTERS = (
    "answers_1xx", "answers_2xx", "answers_3xx", "answers_4xx", "answers_5xx",
    "unreachable", "timeout", "broken", "gone", "malformed",
    "clients", "upstreams",
    "copied", "dropped_queue", "dropped_large", "dropped_status", "dropped_away", "dropped_lost",
    "taken",
)  # fmt: skip
"""What the proxy counts, in memory that the agent's process reads.

answers_*    responses to clients, by status
unreachable  requests for which no connection could be opened
timeout      requests without a response in time
broken       requests whose connection broke before the response was complete
gone         requests whose client disconnected first
malformed    requests that were not HTTP
clients      connections open now; upstreams: likewise
copied       exchanges handed to the agent
dropped_*    exchanges not handed over: queue full, a body too large, a status other than 200, no agent; lost:
             those on their way to an agent that has ended
taken        copied exchanges that an agent has read: the agent adds to this, the proxy to all others
"""

_HEAD = struct.Struct("=H 2q HHI HHI")
"""The path's length; both bodies' json_length, -1 for None; media type, encoding and content of each."""


class Copy:
    """The copy of a body that passes; given up if it is too large."""

    __slots__ = ("encoding", "json_length", "media_type", "parts", "remaining")

    def __init__(self, max_bytes: int) -> None:
        self.remaining = max_bytes
        self.parts: list[bytes] = []
        self.media_type = b""
        self.encoding = b""
        self.json_length = -1

    @classmethod
    def of(cls, fields: Iterable[Field], max_bytes: int) -> Copy:
        """Make one for a body with these headers."""
        copy = cls(max_bytes)
        for key, _, value in fields:
            if key in BODY_HEADERS:
                copy.set_header(key, value)
        return copy

    def add(self, part: bytes) -> None:
        """Keep a part, if there is room for all of it."""
        self.remaining -= len(part)
        if self.remaining >= 0:
            self.parts.append(part)
        else:
            self.parts.clear()

    def set_header(self, name: bytes, value: bytes) -> None:
        """Record a header that describes the body; `name` in lower case."""
        if name == b"content-type":
            self.media_type = value
        elif name == b"content-encoding":
            self.encoding = value.lower()
        elif name == b"inference-header-content-length" and value.isdigit() and len(value) < 18:
            self.json_length = int(value)


BODY_HEADERS = frozenset((b"content-type", b"content-encoding", b"inference-header-content-length"))
"""The headers that say how to read a body."""


class Tap:
    """The proxy's end.

    max_bytes  bytes of copies that may wait
    shared     counts what was copied and dropped
    """

    def __init__(self, max_bytes: int, shared: SharedCounts) -> None:
        self._max_bytes = max_bytes
        self._shared = shared
        self._transport: asyncio.WriteTransport | None = None
        self._frames: list[bytes] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    async def open(self, end: socket.socket) -> None:
        """Write to this socket from now on; the tap owns it."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_unix_connection(lambda: _End(self), sock=end)
        self._transport = transport

    def lost(self) -> None:
        """Count as lost the copies on their way to an agent that has ended."""
        self._transport = None
        self._shared.add("dropped_lost", in_transit(self._shared))
        self._frames.clear()
        self._bytes = 0

    def close(self) -> None:
        """Send what still waits, and close the connection."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def put(self, path: bytes, request: Copy, answer: Copy) -> None:
        """Hand an exchange over, or drop it."""
        if self._transport is None:
            return self._shared.add("dropped_away")
        if request.remaining < 0 or answer.remaining < 0:
            return self._shared.add("dropped_large")
        lengths = [sum(map(len, copy.parts)) for copy in (request, answer)]
        size = _HEAD.size + len(path) + sum(lengths)
        if self._bytes + size + self._transport.get_write_buffer_size() > self._max_bytes:
            return self._shared.add("dropped_queue")
        self._shared.add("copied")
        self._frames += (
            _HEAD.pack(
                len(path), request.json_length, answer.json_length,
                len(request.media_type), len(request.encoding), lengths[0],
                len(answer.media_type), len(answer.encoding), lengths[1],
            ),
            path, request.media_type, request.encoding, *request.parts,
            answer.media_type, answer.encoding, *answer.parts,
        )  # fmt: skip
        self._bytes += size
        if self._bytes >= FLUSH_BYTES:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)
        return None

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._frames and self._transport is not None:
            self._transport.write(b"".join(self._frames))
        self._frames.clear()
        self._bytes = 0


def in_transit(shared: SharedCounts) -> int:
    """Return the number of copies not yet read by an agent."""
    return shared["copied"] - shared["taken"] - shared["dropped_lost"]


class _End(asyncio.Protocol):
    """Notices that the agent has ended."""

    def __init__(self, tap: Tap) -> None:
        self._tap = tap

    def connection_lost(self, error: Exception | None) -> None:
        self._tap.lost()


class TapSource:
    """The agent's end, a Source.

    end     the socket
    shared  the proxy's counts
    on_end  called, in a thread, when the proxy has ended
    """

    name = "proxy"
    endpoints: Mapping[str, ASGIApp] = {}

    def __init__(self, end: socket.socket, shared: SharedCounts, on_end: Callable[[], object]) -> None:
        self._end = end
        self._shared = shared
        self._on_end = on_end
        self._thread: Thread | None = None

    async def start(self, agent: Agent, state: Any) -> None:
        """Start reading."""
        self._thread = Thread(target=self._run, args=(agent,), name="driftline-tap", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Count what has arrived, and end."""
        self._end.shutdown(socket.SHUT_RD)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self._end.close()

    def state(self) -> None:
        """Return None: nothing has to be restored."""

    def metrics(self) -> Iterator[Metric]:
        """Yield the proxy's metrics, and how far behind the agent is."""
        from driftline.sidecar.metrics import proxy_metrics

        yield from proxy_metrics(self._shared, max(0, in_transit(self._shared)))

    def _run(self, agent: Agent) -> None:
        from driftline.sidecar.exchange import Exchange

        try:
            with self._end.makefile("rb", buffering=2**18) as file:
                while len(head := file.read(_HEAD.size)) == _HEAD.size:
                    path_length, *rest = _HEAD.unpack(head)
                    json_lengths, lengths = rest[:2], rest[2:]
                    target = file.read(path_length).decode("latin-1")
                    request = _body(file.read, lengths[:3], json_lengths[0])
                    agent.observe(Exchange(target, request, _body(file.read, lengths[3:], json_lengths[1])))
                    self._shared.add("taken")
        except (OSError, ValueError) as error:
            log.error("the proxy's copies can't be read: %s", error)
        finally:
            self._on_end()


def _body(read: Callable[[int], bytes], lengths: list[int], json_length: int) -> Body:
    from driftline.sidecar.exchange import Body

    media_type, encoding, content = map(read, lengths)
    return Body(content, media_type, encoding, json_length if json_length >= 0 else None)
