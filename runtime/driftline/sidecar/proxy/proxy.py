"""The observing reverse proxy: forwards requests and responses with unchanged bodies.

Nothing here waits for the agent. A Client's request, a ForwardedRequest, gets an Upstream, idle or new; after
the response, the copies of both bodies go to the Tap.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from functools import lru_cache
from time import monotonic
from urllib.parse import urlsplit

from driftline.child_process import SharedCounts
from driftline.http import STALLED, STALLED_SECONDS
from driftline.sidecar.proxy.client import Client, ForwardedRequest
from driftline.sidecar.proxy.tap import Tap
from driftline.sidecar.proxy.upstream import Upstream
from driftline.sockets import BACKLOG

log = logging.getLogger("driftline.sidecar")

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 600.0
"""Time limit for the upstream to begin its response."""

IDLE_SECONDS = 4.0
"""How long an idle connection to the upstream may be reused: servers keep theirs for at least 5 s."""

CLIENT_SECONDS = 75.0
"""How long an idle client's connection stays open: longer than load balancers keep theirs."""

SWEEP_SECONDS = 1.0
MAX_PATHS = 1_000

_INFERENCE = re.compile(
    rb"(?:/v2/models/[^/?]+(?:/versions/[^/?]+)?/infer"
    rb"|/v1/models/[^/?]+:predict|(?:/models/[^/?]+)?/invocations)(?:\?.*)?"
)


class Proxy:
    """Everything between the clients and one upstream.

    url              of the upstream, http://HOST[:PORT]
    tap              takes the copies
    shared           counts
    copy_body_bytes  larger bodies are not copied

    clients          the open connections
    idle             idle connections to the upstream, the one used last at the end
    stopping         whether connections are to be closed after their responses
    """

    def __init__(self, url: str, tap: Tap, shared: SharedCounts, copy_body_bytes: int) -> None:
        parts = urlsplit(url)
        self.authority = parts.netloc.encode()
        self.tap = tap
        self.shared = shared
        self.copy_body_bytes = copy_body_bytes
        self.clients: set[Client] = set()
        self.idle: list[Upstream] = []
        self.stopping = False
        self.is_watched = lru_cache(MAX_PATHS)(_is_inference)
        self._url = url
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._connecting: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self._sweeper: asyncio.TimerHandle
        self._logged_at = 0.0

    async def start(self, listener: socket.socket) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Client(self), sock=listener, backlog=BACKLOG)
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)

    async def stop(self, seconds: float) -> None:
        """Accept no more connections, and let requests finish for at most so many seconds."""
        self.stopping = True
        self._server.close()
        deadline = monotonic() + seconds
        next_stall_check = monotonic()
        while self.clients and monotonic() < deadline:
            for client in list(self.clients):
                if client.request is None:
                    client.transport.close()
            if monotonic() >= next_stall_check:
                self._end_stalled()
                next_stall_check += STALLED_SECONDS
            await asyncio.sleep(0.02)
        if self.clients:
            log.warning("%d requests have not finished in %g s", len(self.clients), seconds)
        for client in list(self.clients):
            client.transport.abort()
        for upstream in list(self.idle):
            upstream.transport.abort()
        self._sweeper.cancel()

    def _end_stalled(self) -> None:
        """End incomplete requests of which nothing has arrived since the last call, although it would have
        been read."""
        for client in list(self.clients):
            request, has_progressed, client.has_progressed = client.request, client.has_progressed, False
            if request is None or request.complete or has_progressed or not client.transport.is_reading():
                continue
            if not request.done:
                self._give_up(request, 503, STALLED)
            client.transport.close()

    # -- requests ---------------------------------------------------------------------------------------

    def begin(self, request: ForwardedRequest) -> None:
        """Send a request to the upstream."""
        while self.idle:
            upstream = self.idle.pop()
            if not upstream.transport.is_closing():
                upstream.take(request)
                return
        self._connect(request)

    def client_gone(self, request: ForwardedRequest) -> None:
        """Abort the connection to the upstream: the request's client has disconnected."""
        self.shared.add("gone")
        request.done = True
        if request.upstream is not None:
            request.upstream.request = None
            request.upstream.transport.abort()

    def connection_broken(self, request: ForwardedRequest, retry: bool) -> None:
        """Retry or fail a request: the upstream closed the connection before its response was complete."""
        request.upstream = None
        if retry and request.sent:
            request.unsent, request.sent = [request.sent], None
            self._connect(request)
            return
        self.shared.add("broken")
        request.client.fail(request, 502, f"{self._url} closed the connection without an answer")

    def forget(self, upstream: Upstream) -> None:
        """Forget a connection that was closed."""
        if upstream in self.idle:
            self.idle.remove(upstream)

    def _connect(self, request: ForwardedRequest) -> None:
        request.client.transport.pause_reading()
        task = asyncio.get_running_loop().create_task(self._open(request))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _open(self, request: ForwardedRequest) -> None:
        """Open a connection for a request; if that fails, its client gets an error."""
        loop, client = asyncio.get_running_loop(), request.client
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, upstream = await loop.create_connection(lambda: Upstream(self), self._host, self._port)
        except TimeoutError:
            self.shared.add("timeout")
            self._log_unreachable(f"no connection within {CONNECT_SECONDS:g} s")
            if not request.done:
                client.fail(request, 504, f"{self._url}: no connection within {CONNECT_SECONDS:g} s")
        except (OSError, UnicodeError) as error:
            self.shared.add("unreachable")
            self._log_unreachable(_reason(error))
            if not request.done:
                client.fail(request, 502, f"{self._url} can't be reached: {_reason(error)}")
        else:
            if request.done:  # the client has disconnected meanwhile
                upstream.idle_since = monotonic()
                self.idle.append(upstream)
            else:
                upstream.take(request)
        client.resume()

    def _give_up(self, request: ForwardedRequest, status: int, reason: str) -> None:
        """Stop waiting for a request or its response, and send its client an error."""
        upstream, request.upstream = request.upstream, None
        if upstream is not None:
            upstream.request = None
            upstream.transport.abort()
        request.client.fail(request, status, reason)

    def _log_unreachable(self, what: str) -> None:
        """Log that the upstream can't be reached, but not for every request."""
        if monotonic() - self._logged_at > 10:
            self._logged_at = monotonic()
            log.warning("%s: %s", self._url, what)

    def _sweep(self) -> None:
        """Close idle connections, and give up requests without a response."""
        now = monotonic()
        while self.idle and now - self.idle[0].idle_since > IDLE_SECONDS:
            self.idle.pop(0).transport.close()
        for client in list(self.clients):
            request = client.request
            if request is None or request.done:
                since = client.idle_since if request is None else request.started_at
                if now - since > CLIENT_SECONDS:
                    client.transport.close()
            elif not request.answered and now - request.started_at > ANSWER_SECONDS:
                self.shared.add("timeout")
                self._give_up(request, 504, f"{self._url} has not answered within {ANSWER_SECONDS:g} s")
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)


def _reason(error: OSError | UnicodeError) -> str:
    """Return the system's error text; asyncio's own has addresses in it."""
    if isinstance(error, UnicodeError):  # Python's, for a name that can't be looked up
        return str(error)
    number = error.errno or 0
    return os.strerror(number) if number > 0 else str(error.strerror or error)


def _is_inference(target: bytes) -> bool:
    return _INFERENCE.fullmatch(target) is not None
