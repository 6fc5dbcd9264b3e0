"""An open loop: requests at a fixed rate, latency from when each should have been sent.

A closed loop waits for a server that stands still and so leaves out just the requests that would have had to
wait longest (Gil Tene's coordinated omission). Here they count: what can't be sent since every connection is
busy waits in the sender, and its clock runs.

Run as `python -m bench.servers.open_loop PORT FILE RATE SECONDS CONNECTIONS`; FILE holds a whole request. It
takes a core of its own, since it never sleeps.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import sys
from collections import deque
from pathlib import Path
from time import perf_counter
from typing import Any

import httptools

from bench.common import HOST, Request

GRACE_SECONDS = 10.0
"""How long to wait for answers after the last request was to be sent."""


class Connection:
    """One keep-alive connection, with at most one request on its way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self.free_since = perf_counter()
        self.busy = self.complete = self.stays = False
        self.parser: Any = httptools.HttpResponseParser(self)

    def on_message_complete(self) -> None:
        """An answer is whole; only now does the parser know whether the connection stays."""
        self.complete, self.stays = True, self.parser.should_keep_alive()


class Sender:
    """Sends until all is sent, and waits until all is answered or the grace is over."""

    def __init__(self, port: int, content: bytes, connections: int) -> None:
        self._port, self._content = port, content
        self._poll = select.epoll()
        self._open: dict[int, Connection] = {}
        self._free: deque[Connection] = deque()
        for _ in range(connections):
            self._connect()
        self.latencies: list[float] = []
        self.lags: list[float] = []
        self.failures = 0

    def run(self, rate: float, seconds: float) -> None:
        """Send `rate` requests a second."""
        total, sent, begin = max(1, int(rate * seconds)), 0, perf_counter()
        while len(self.latencies) < total:
            now = perf_counter()
            while self._free and sent < total and begin + sent / rate <= now:
                self._send(begin + sent / rate)
                sent += 1
            for number, _ in self._poll.poll(0):
                self._receive(self._open[number])
            if now > begin + seconds + GRACE_SECONDS:
                break
        # What has no answer yet has waited so long at least.
        dues = [one.due for one in self._open.values() if one.busy]
        dues += [begin + number / rate for number in range(sent, total)]
        self.latencies += [perf_counter() - due for due in dues]
        self.failures += len(dues)

    def close(self) -> None:
        """Hang up."""
        for connection in self._open.values():
            connection.socket.close()
        self._poll.close()

    def _connect(self) -> None:
        connection = Connection(self._port)
        self._open[connection.socket.fileno()] = connection
        self._poll.register(connection.socket, select.EPOLLIN)
        self._free.append(connection)

    def _send(self, due: float) -> None:
        connection = self._free.popleft()
        connection.due, connection.busy, connection.complete = due, True, False
        # The sender's own part of the latency: the rest of the wait was for a connection.
        self.lags.append(perf_counter() - max(due, connection.free_since))
        connection.socket.sendall(self._content)

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(65536)
            connection.parser.feed_data(data)
        except (OSError, httptools.HttpParserError):
            data = b""
        if data and not connection.complete:
            return
        if connection.busy:
            self.latencies.append(perf_counter() - connection.due)
            self.failures += not (connection.complete and connection.parser.get_status_code() == 200)
            connection.busy = False
            self._free.append(connection)
        if data and connection.stays:
            connection.free_since = perf_counter()
        else:
            self._replace(connection)

    def _replace(self, connection: Connection) -> None:
        """A connection that the server has closed, or will, makes place for a new one."""
        self._poll.unregister(connection.socket)
        del self._open[connection.socket.fileno()]
        self._free.remove(connection)
        connection.socket.close()
        self._connect()


def content_of(request: Request, port: int) -> bytes:
    """A request as it goes over the wire."""
    headers = {"Host": f"{HOST}:{port}", "Content-Length": str(len(request.body)), **request.headers}
    lines = [f"POST {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + request.body


def percentile(values: list[float], percent: float) -> float:
    """The least value that so many percent of all are not above."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__trunc__() - 1)]


def main(port: int, content: bytes, rate: float, seconds: float, connections: int) -> dict[str, float]:
    """Send, and say what was seen; times in milliseconds."""
    sender = Sender(port, content, connections)
    gc.disable()
    try:
        sender.run(rate, seconds)
    finally:
        gc.enable()
        sender.close()
    return {
        "rate": rate,
        "p50_ms": percentile(sender.latencies, 50) * 1e3,
        "p99_ms": percentile(sender.latencies, 99) * 1e3,
        "sender_p99_ms": percentile(sender.lags, 99) * 1e3,
        "failed": sender.failures / len(sender.latencies),
    }


if __name__ == "__main__":
    _port, _file, _rate, _seconds, _connections = sys.argv[1:]
    _seen = main(int(_port), Path(_file).read_bytes(), float(_rate), float(_seconds), int(_connections))
    print(json.dumps(_seen))
