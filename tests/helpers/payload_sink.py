"""A real HTTP receiver of CloudEvents, which can refuse, be slow or be down; and a sink that logs to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from waiting import until

from driftline.child_process import SharedCounts
from driftline.config import Server
from driftline.protocols.cloudevents import Event, from_http
from driftline.serving.payloads.exchange import Exchange, RequestHead
from driftline.serving.payloads.log import COUNT_NAMES
from driftline.serving.payloads.queue import Queue
from driftline.serving.payloads.sink import open_sink


class EventReceiver:
    """Keeps the events and headers received; answers with `statuses`, one after the other, then 200."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.headers: list[dict[str, str]] = []
        self.events: list[Event] = []
        self.gate = threading.Event()  # no request is answered until it is set
        self.gate.set()
        self.url = ""

    def wait(self, count: int) -> list[Event]:
        """Wait for this many events, and return them."""
        until(lambda: len(self.events) >= count, f"{count} events")
        return self.events


@contextmanager
def receiving(*statuses: int) -> Iterator[EventReceiver]:
    receiver = EventReceiver(*statuses)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.gate.wait(60)
            with lock:
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                if status == 200:
                    receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
                    fields = [(k.lower().encode(), v.encode("latin-1")) for k, v in self.headers.items()]
                    receiver.events += from_http(fields, body)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        receiver.url = f"http://127.0.0.1:{server.server_port}/events?key=secret"
        try:
            yield receiver
        finally:
            receiver.gate.set()
            server.shutdown()
            thread.join()


def exchange(request: bytes | None = b"qq", response: bytes | None = b"aa") -> Exchange:
    head = RequestHead("m", b"application/json", b"", None)
    return Exchange.of(head, 1.0, "m", "1", request, 200, b"", response)


class Sinking:
    """A sink with its queue and its threads, as in the logging process."""

    def __init__(self, sink: str, **settings: Any) -> None:
        self.shared = SharedCounts.new(COUNT_NAMES)
        self.queue = Queue(self.shared)
        self._threads = open_sink(Server(log_payloads="all", log_sink=sink, **settings)).threads(self.queue)
        for thread in self._threads:
            thread.start()

    def put(self, request: bytes | None = b"qq", response: bytes | None = b"aa") -> None:
        self.queue.put([exchange(request, response)])

    def close(self) -> None:
        """Wait until the queue is logged, or given up."""
        self.queue.close(30.0)
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        self.shared.close()
