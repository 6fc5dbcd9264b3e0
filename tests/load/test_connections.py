"""Our own sender against real sockets that answer well, badly and not at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from driftline.load.connections import CLOSED, TIMEOUT, Connection, Connections
from driftline.load.pace import SECOND, ClosedLoop, OpenLoop, Outcome, drive

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody"
Answers = Callable[[int], bytes | None]
"""What to answer to the n-th request of all: bytes, b"" to hang up, None for nothing ever."""


class Server:
    """Answers on a thread for each connection; knows how many there were and what came."""

    def __init__(self, answers: Answers, length: int) -> None:
        self.answers, self.length = answers, length
        self.connections, self.requests = 0, 0
        self.lock = threading.Lock()
        self.sockets: list[socket.socket] = []
        self.threads: list[threading.Thread] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = (socket.AF_INET, self.listener.getsockname())
        self.threads.append(threading.Thread(target=self.accept))
        self.threads[0].start()

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.sockets.append(connection)
            self.threads.append(threading.Thread(target=self.serve, args=(connection,)))
            self.threads[-1].start()

    def serve(self, connection: socket.socket) -> None:
        with connection:
            while len(connection.recv(self.length, socket.MSG_WAITALL)) == self.length:
                with self.lock:
                    number = self.requests
                    self.requests += 1
                answer = self.answers(number)
                if answer is None:
                    connection.recv(1)
                    return
                if not answer:
                    return
                connection.sendall(answer)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join()


@contextmanager
def answering(answers: Answers, request: bytes = REQUEST) -> Iterator[Server]:
    server = Server(answers, len(request))
    try:
        yield server
    finally:
        server.close()


def load(
    server: Server,
    connections: int = 3,
    requests: int = 30,
    timeout: float = 30,
    request: bytes = REQUEST,
) -> Outcome:
    """So many requests, as fast as the connections let them, in an open loop."""
    outcome = Outcome()
    wire = Connections(server.address, request, connections, timeout)
    try:
        drive(OpenLoop(wire.now(), SECOND, requests), wire, outcome, lambda: None)
    finally:
        wire.close()
    return outcome


def test_every_request_is_answered_on_connections_that_stay() -> None:
    with answering(lambda number: GOOD) as server:
        outcome = load(server, connections=3, requests=200)
    assert (outcome.answered, outcome.failed, server.requests) == (200, 0, 200)
    assert 1 <= server.connections <= 3


def test_a_closed_loop_uses_all_connections_and_stops() -> None:
    with answering(lambda number: GOOD) as server:
        wire, outcome = Connections(server.address, REQUEST, 5, 30), Outcome()
        drive(ClosedLoop(wire.now(), SECOND // 5), wire, outcome, lambda: None)
        wire.close()
    assert outcome.answered == server.requests > 0
    assert server.connections == 5
    assert outcome.elapsed_ns >= SECOND // 5


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "503"),
        (b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", "302"),
        (b"", CLOSED),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nhalf", TIMEOUT),
        (None, TIMEOUT),
        (b"SSH-2.0-OpenSSH\r\n", "no HTTP: HttpParserError"),
    ],
)
def test_failures_are_counted_by_what_they_are(answer: bytes | None, reason: str) -> None:
    with answering(lambda number: GOOD if number % 3 else answer) as server:
        outcome = load(server, timeout=0.5 if reason == TIMEOUT else 30)
    assert set(outcome.failures) == {reason}
    # A busy machine may make good answers late too.
    assert outcome.failed >= 10 if reason == TIMEOUT else outcome.failed == 10
    assert outcome.answered + outcome.failed == 30


def test_a_connection_that_the_server_closes_after_an_answer_is_opened_again() -> None:
    last = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
    with answering(lambda number: GOOD if number % 3 else last) as server:
        outcome = load(server, connections=1)
    assert (outcome.answered, outcome.failed) == (30, 0)


def test_answers_in_pieces_and_chunks_are_whole_answers() -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n400\r\n" + b"b" * 1024
    with answering(lambda number: chunked + b"\r\n0\r\n\r\n") as server:
        outcome = load(server)
    assert (outcome.answered, outcome.failed) == (30, 0)


def test_a_body_larger_than_a_sockets_buffer_arrives_whole() -> None:
    body = bytes(8 * 2**20)
    request = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with answering(lambda number: GOOD, request) as server:
        outcome = load(server, connections=2, requests=4, request=request)
    assert (outcome.answered, server.requests, outcome.failed) == (4, 4, 0)


def test_a_server_that_is_not_there() -> None:
    with answering(lambda number: GOOD) as server:
        pass
    outcome = load(server, connections=2, requests=10)
    assert outcome.answered == 0
    assert sum(outcome.failures.values()) == 10
    assert outcome.failures["not connected: Connection refused"] > 0


def test_a_closed_loop_at_a_server_that_is_not_there_does_not_spin() -> None:
    with answering(lambda number: GOOD) as server:
        pass
    wire, outcome = Connections(server.address, REQUEST, 2, 30), Outcome()
    drive(ClosedLoop(wire.now(), SECOND // 2), wire, outcome, lambda: None)
    wire.close()
    assert 2 <= outcome.failed <= 12


def test_an_interrupt_while_the_parser_calls_back_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(connection: Connection) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "on_message_complete", interrupted)
    with answering(lambda number: GOOD) as server, pytest.raises(KeyboardInterrupt):
        load(server, requests=1)
