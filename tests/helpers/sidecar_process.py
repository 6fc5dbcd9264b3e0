"""`driftline monitor` in its own processes, and an upstream that answers as a test wants."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from server_process import Process


class SidecarProcess(Process):
    """The agent's `url`, and the proxy's: `traffic`."""

    @property
    def traffic(self) -> str:
        return next(
            found[1] for line in self.log if (found := re.search(r'"traffic":"([^"]+)"', line)) is not None
        )

    @property
    def port(self) -> int:
        return int(self.traffic.rpartition(":")[2])

    def kill_all(self) -> None:
        """Kill proxy and agent at once, as if the machine had failed."""
        os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


@contextmanager
def monitoring(profile: Path, upstream: str, *arguments: str | Path) -> Iterator[SidecarProcess]:
    """Run `driftline monitor` on free ports, ready; at the end, kill what is still running of it."""
    command = [sys.executable, "-m", "driftline", "monitor", "--profile", profile, "--upstream", upstream]
    options = ["--port", "0", "--proxy-port", "0", "--log-format", "json", *arguments]
    with subprocess.Popen(
        [*map(str, command), *map(str, options)], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as popen:
        process = SidecarProcess(popen)
        try:
            process.wait_for('"ready: watching', 90)
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
            process.close()


def read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """Read the head of a message; return it, and the part of the body that came with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65_536)
        if not part:
            return data, b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body


def read_exactly(connection: socket.socket, body: bytes, length: int) -> bytes:
    """Read the rest of a body of `length` bytes, and return all of it."""
    while len(body) < length:
        part = connection.recv(65_536)
        assert part, f"{length - len(body)} bytes are missing"
        body += part
    return body


def read_all(connection: socket.socket) -> bytes:
    """Read until the other side closes."""
    parts = []
    with suppress(ConnectionError):
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


class RawUpstream:
    """A listening socket that calls `handle` for each connection, in a thread."""

    def __init__(self) -> None:
        self.handle: Callable[[socket.socket], Any] = lambda connection: None
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._run, args=(connection,))
                thread.start()
                self._threads.append(thread)

    def _run(self, connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):
            connection.settimeout(60)
            self.handle(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for thread in self._threads:
            thread.join()
