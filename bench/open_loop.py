"""An open loop: requests at a fixed rate, latency from when each should have been sent.

A closed loop waits for a server that stalls, and so omits just the requests that would have waited longest
(Gil Tene's coordinated omission). Here they count: a request that can't be sent because every connection is
busy waits in the sender, and its clock runs.

Run as `python -m bench.open_loop PORT RATE SECONDS CONNECTIONS FILE...`; each FILE contains a whole request,
and they are sent in turn. NUMBER in it is replaced by the number of the turn, so that all differ. It needs a
core of its own, since it never sleeps.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import httptools

from bench.common import CLIENT_CORE, HOST, ROOT, pinned
from bench.requests import Request

NUMBER = b"@number@"
"""Eight bytes that are replaced by eight digits."""

GRACE_SECONDS = 10.0
"""How long to wait for responses after the last request was due."""


class Connection:
    """One keep-alive connection, with at most one request in flight."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self.free_since = perf_counter()
        self.busy = self.complete = self.keep_alive = False
        self.parser: Any = httptools.HttpResponseParser(self)

    def on_message_complete(self) -> None:
        """A response is complete; only now does the parser know whether the connection stays open."""
        self.complete, self.keep_alive = True, self.parser.should_keep_alive()


class Sender:
    """Sends all requests, and waits until all are answered or the grace period is over."""

    def __init__(self, port: int, contents: Sequence[bytes], connections: int) -> None:
        self._port, self._contents = port, contents
        self._numbered = any(NUMBER in content for content in contents)
        self._poll = select.epoll()
        self._open: dict[int, Connection] = {}
        self._free: deque[Connection] = deque()
        for _ in range(connections):
            self._connect()
        self.latencies: list[float] = []
        self.lags: list[float] = []
        self.failures = self.refusals = 0

    def run(self, rate: float, seconds: float) -> None:
        """Send `rate` requests a second."""
        total, sent, begin = max(1, int(rate * seconds)), 0, perf_counter()
        while len(self.latencies) < total:
            now = perf_counter()
            while self._free and sent < total and begin + sent / rate <= now:
                self._send(begin + sent / rate, self._content(sent))
                sent += 1
            for number, _ in self._poll.poll(0):
                self._receive(self._open[number])
            if now > begin + seconds + GRACE_SECONDS:
                break
        # Requests without a response have waited at least this long.
        dues = [connection.due for connection in self._open.values() if connection.busy]
        dues += [begin + number / rate for number in range(sent, total)]
        self.latencies += [perf_counter() - due for due in dues]
        self.failures += len(dues)

    def close(self) -> None:
        """Close all connections."""
        for connection in self._open.values():
            connection.socket.close()
        self._poll.close()

    def _connect(self) -> None:
        connection = Connection(self._port)
        self._open[connection.socket.fileno()] = connection
        self._poll.register(connection.socket, select.EPOLLIN)
        self._free.append(connection)

    def _content(self, sent: int) -> bytes:
        turn, index = divmod(sent, len(self._contents))
        content = self._contents[index]
        return content.replace(NUMBER, b"%08d" % turn) if self._numbered else content

    def _send(self, due: float, content: bytes) -> None:
        connection = self._free.popleft()
        connection.due, connection.busy, connection.complete = due, True, False
        # The sender's own part of the latency: the rest was waiting for a connection.
        self.lags.append(perf_counter() - max(due, connection.free_since))
        connection.socket.sendall(content)

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
            status = connection.parser.get_status_code() if connection.complete else 0
            self.failures += status != 200
            self.refusals += status == 503
            connection.busy = False
            self._free.append(connection)
        if data and connection.keep_alive:
            connection.free_since = perf_counter()
        else:
            self._replace(connection)

    def _replace(self, connection: Connection) -> None:
        """Replace a connection that the server has closed, or will close."""
        self._poll.unregister(connection.socket)
        del self._open[connection.socket.fileno()]
        self._free.remove(connection)
        connection.socket.close()
        self._connect()


def content_of(request: Request, port: int, extra_headers: Mapping[str, str] | None = None) -> bytes:
    """Return a request as it is sent, with more headers than its own."""
    headers = {"Host": f"{HOST}:{port}", "Content-Length": str(len(request.body)), **request.headers}
    headers |= extra_headers or {}
    lines = [f"POST {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + request.body


def percentile(values: list[float], percent: float) -> float:
    """Return the least value that this many percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__trunc__() - 1)]


def open_loop(
    port: int, contents: Sequence[bytes], rate: float, seconds: float, connections: int
) -> dict[str, float]:
    """Return the result of `main`, run in a separate process on the client's core."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / str(number) for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        arguments = map(str, (port, rate, seconds, connections, *paths))
        command = pinned(CLIENT_CORE, sys.executable, "-m", "bench.open_loop", *arguments)
        completed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if completed.returncode:
        raise RuntimeError(f"the open loop: {completed.stderr.strip()[-200:]}")
    figures: dict[str, float] = json.loads(completed.stdout)
    return figures


def main(
    port: int, contents: Sequence[bytes], rate: float, seconds: float, connections: int
) -> dict[str, float]:
    """Send, and return the figures; times in milliseconds, failures and refusals as parts of all requests."""
    sender = Sender(port, contents, connections)
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
        "refused": sender.refusals / len(sender.latencies),
    }


if __name__ == "__main__":
    _port, _rate, _seconds, _connections, *_files = sys.argv[1:]
    _requests = [Path(file).read_bytes() for file in _files]
    _figures = main(int(_port), _requests, float(_rate), float(_seconds), int(_connections))
    print(json.dumps(_figures))
