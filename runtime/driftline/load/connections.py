"""Keep-alive HTTP/1.1 connections that send one request repeatedly: driftline's own sender.

It uses sockets and epoll without an event loop, since it shares the machine with the measured server.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from errno import EINPROGRESS

import httptools

from driftline.load.pace import SECOND, Answer

_CHUNK = 2**18
_RETRY_NS = SECOND // 10
"""Wait before a failed connection is tried again."""
_READABLE = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
_NOT_CONNECTED = "not connected"
CLOSED = "connection closed"
TIMEOUT = "timeout"


class Connection:
    """One connection; its socket is opened with its first request.

    unsent              bytes of the request not written yet
    due, sent           when its request was due and was sent, by `Connections.now`
    status, keep_alive  of a complete response, else 0: its status, and whether the connection stays open
    """

    __slots__ = ("connecting", "due", "keep_alive", "parser", "sent", "socket", "status", "unsent")

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.parser: httptools.HttpResponseParser | None = None
        self.unsent = memoryview(b"")
        self.connecting = self.keep_alive = False
        self.due = self.sent = self.status = 0

    def on_message_complete(self) -> None:
        """Called by httptools when a response is complete; only now `should_keep_alive` is known."""
        assert self.parser is not None
        self.status, self.keep_alive = self.parser.get_status_code(), self.parser.should_keep_alive()


class Connections:
    """A bounded number of connections to one address.

    address  the socket family and the address of the server
    request  the bytes to send, head and body
    limit    connections at the same time
    timeout  seconds that a response may take after its request is sent
    """

    def __init__(
        self,
        address: tuple[socket.AddressFamily, tuple[str, int]],
        request: bytes,
        limit: int,
        timeout: float,
    ) -> None:
        self._family, self._address = address
        self._request = memoryview(request)
        self._timeout_ns = int(timeout * SECOND)
        self._epoll = select.epoll()
        self._open: dict[int, Connection] = {}
        self._free = [Connection() for _ in range(limit)]
        self._pending: dict[Connection, None] = {}  # in order of sending
        self._retrying: deque[tuple[int, Connection]] = deque()
        self._answers: list[Answer] = []

    @property
    def has_free(self) -> bool:
        """Whether a connection has no request."""
        return bool(self._free)

    @property
    def has_pending(self) -> bool:
        """Whether a connection waits for a response, or a response waits to be returned by `wait`."""
        return bool(self._pending or self._answers)

    def now(self) -> int:
        """Return the time, in nanoseconds."""
        return time.perf_counter_ns()

    def send(self, due: int) -> None:
        """Send a request that was due at `due`, on the most recently used free connection."""
        connection = self._free.pop()
        connection.due, connection.sent = due, self.now()
        connection.unsent, connection.status = self._request, 0
        self._pending[connection] = None
        if connection.socket is None:
            self._connect(connection)
        else:
            self._write(connection, watched=False)

    def wait(self, until: int) -> list[Answer]:
        """Wait for responses, at most until `until`; may return [] when something else is due."""
        if self._pending:
            until = min(until, next(iter(self._pending)).sent + self._timeout_ns)
        if self._retrying:
            until = min(until, self._retrying[0][0])
        remaining = until - self.now()
        if remaining > 0 and not self._answers:
            # select can wait for an epoll, and has a resolution of microseconds; epoll's is 1 ms.
            select.select([self._epoll], [], [], remaining / SECOND)
        for descriptor, event in self._epoll.poll(0):
            self._ready(self._open[descriptor], event)
        now = self.now()
        while self._pending and (oldest := next(iter(self._pending))).sent + self._timeout_ns <= now:
            self._fail(oldest, TIMEOUT)
        while self._retrying and self._retrying[0][0] <= now:
            self._free.insert(0, self._retrying.popleft()[1])
        answers, self._answers = self._answers, []
        return answers

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self._open.values()):
            self._disconnect(connection)
        self._epoll.close()

    def _connect(self, connection: Connection) -> None:
        try:
            connection.socket = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = connection.socket.connect_ex(self._address)
        except OSError as error:
            code = error.errno or 0
        if connection.socket is None or code not in (0, EINPROGRESS):
            self._fail(connection, f"{_NOT_CONNECTED}: {os.strerror(code)}")
            return
        connection.parser, connection.connecting = httptools.HttpResponseParser(connection), True
        self._open[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket, _READABLE | select.EPOLLOUT)

    def _ready(self, connection: Connection, event: int) -> None:
        assert connection.socket is not None
        if connection.connecting:
            if code := connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._fail(connection, f"{_NOT_CONNECTED}: {os.strerror(code)}")
                return
            connection.connecting = False
        if event & select.EPOLLOUT:
            self._write(connection, watched=True)
        if event & _READABLE and connection.socket is not None:
            self._read(connection)

    def _write(self, connection: Connection, watched: bool) -> None:
        """Write what the socket accepts; epoll reports when it accepts more.

        watched  whether epoll already watches for that
        """
        assert connection.socket is not None
        try:
            connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._fail(connection, CLOSED)
            return
        if watched != bool(connection.unsent):
            self._epoll.modify(connection.socket, _READABLE if watched else _READABLE | select.EPOLLOUT)

    def _read(self, connection: Connection) -> None:
        assert connection.socket is not None
        assert connection.parser is not None
        try:
            data = connection.socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or connection not in self._pending:  # data without a request, or the server has closed
            self._fail(connection, CLOSED)
            return
        try:
            connection.parser.feed_data(data)
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # raised in a callback of the parser
                raise error.__context__ from None
            self._fail(connection, f"no HTTP: {type(error).__name__}")
            return
        if status := connection.status:
            if connection.unsent or not connection.keep_alive:
                self._disconnect(connection)
            self._finish(connection, None if 200 <= status < 300 else str(status))

    def _fail(self, connection: Connection, reason: str) -> None:
        """Close a connection; if it waits for a response, count a failure."""
        self._disconnect(connection)
        if connection in self._pending:
            self._finish(connection, reason)

    def _finish(self, connection: Connection, failure: str | None) -> None:
        del self._pending[connection]
        now = self.now()
        self._answers.append(Answer(connection.due, now, failure))
        if failure is not None and failure.startswith(_NOT_CONNECTED):
            self._retrying.append((now + _RETRY_NS, connection))
        else:
            self._free.append(connection)

    def _disconnect(self, connection: Connection) -> None:
        if connection.socket is not None:
            self._open.pop(connection.socket.fileno(), None)
            connection.socket.close()  # which also removes it from the epoll
            connection.socket = None
