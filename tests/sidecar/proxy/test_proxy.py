"""The proxy on the wire: what passes, what does not, and who notices when somebody goes. No agent here."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sidecar_process import RawUpstream, read_all, read_exactly, read_head

from driftline.child_process import SharedCounts
from driftline.sidecar.proxy import proxy as module
from driftline.sidecar.proxy.proxy import Proxy
from driftline.sidecar.proxy.tap import COUNTERS, Copy, Tap

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
INFER = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"


class Taken(Tap):
    """A tap that keeps what is put."""

    def __init__(self, shared: SharedCounts) -> None:
        super().__init__(1000, shared)
        self.taken: list[tuple[bytes, bytes, bytes]] = []

    def put(self, path: bytes, request: Copy, answer: Copy) -> None:
        self.taken.append((path, b"".join(request.parts), b"".join(answer.parts)))


@pytest.fixture
def upstream() -> Iterator[RawUpstream]:
    server = RawUpstream()
    yield server
    server.close()


@pytest.fixture
async def proxy(upstream: RawUpstream) -> AsyncIterator[Proxy]:
    shared = SharedCounts.new(COUNTERS)
    proxy = Proxy(upstream.url, Taken(shared), shared, copy_body_bytes=1000)
    await proxy.start(listener := socket.create_server(("127.0.0.1", 0)))
    proxy.port = listener.getsockname()[1]  # type: ignore[attr-defined]
    yield proxy
    await proxy.stop(0)


async def talk(proxy: Proxy, do: Callable[[socket.socket], Any]) -> Any:
    """Do something as a client, in a thread."""

    def client() -> Any:
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as connection:  # type: ignore[attr-defined]
            return do(connection)

    return await asyncio.to_thread(client)


def once(request: bytes) -> Callable[[socket.socket], bytes]:
    """Send a request that is the connection's last; all that is answered."""

    def do(connection: socket.socket) -> bytes:
        connection.sendall(request)
        return read_all(connection)

    return do


def answering(answer: bytes, heads: list[bytes] | None = None, bodies: list[bytes] | None = None) -> Any:
    """An upstream that reads requests with a Content-Length, or none, and gives all this answer."""

    def handle(connection: socket.socket) -> None:
        while True:
            head, body = read_head(connection)
            if not head:
                return
            sizes = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            body = read_exactly(connection, body, int(sizes[0].partition(b":")[2]) if sizes else 0)
            if heads is not None:
                heads.append(head)
            if bodies is not None:
                bodies.append(body)
            connection.sendall(answer)

    return handle


async def test_headers_of_a_connection_do_not_pass_and_others_do(proxy: Proxy, upstream: RawUpstream) -> None:
    heads: list[bytes] = []
    answer = b"HTTP/1.1 200 Fine\r\nX-Own: 1\r\nConnection: x-hop\r\nX-Hop: 2\r\nKeep-Alive: timeout=5\r\n"
    upstream.handle = answering(answer + b"X-Own: 3\r\nContent-Length: 2\r\n\r\nok", heads)
    request = (
        b"POST /v2/models/m/infer?a=%20b HTTP/1.1\r\nHost: example\r\nX-Mine: 1\r\nX-Secret: 2\r\n"
        b"TE: trailers\r\nConnection: close, X-Secret\r\nKeep-Alive: 3\r\nProxy-Connection: x\r\n"
        b"Upgrade-Insecure-Requests: 1\r\n"
        b"X-Forwarded-For: 10.0.0.1\r\nContent-Length: 4\r\n\r\nbody"
    )
    answered = await talk(proxy, once(request))
    assert heads[0].split(b"\r\n") == [
        b"POST /v2/models/m/infer?a=%20b HTTP/1.1",
        b"Host: example",
        b"X-Mine: 1",
        b"Upgrade-Insecure-Requests: 1",
        b"Content-Length: 4",
        b"Via: 1.1 driftline",
        b"X-Forwarded-For: 10.0.0.1, 127.0.0.1",
    ]
    assert answered.split(b"\r\n") == [
        *(b"HTTP/1.1 200 Fine", b"X-Own: 1", b"X-Own: 3", b"Content-Length: 2", b"Connection: close"),
        *(b"", b"ok"),
    ]
    assert proxy.tap.taken == [(b"/v2/models/m/infer?a=%20b", b"body", b"ok")]  # type: ignore[attr-defined]


async def test_no_header_says_that_a_length_is_not_passed_on(proxy: Proxy, upstream: RawUpstream) -> None:
    bodies: list[bytes] = []
    upstream.handle = answering(OK, bodies=bodies)
    within = b"GET /another HTTP/1.1\r\nHost: h\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: content-length, host, close\r\n"
    answered = await talk(proxy, once(head + b"Content-Length: %d\r\n\r\n%b" % (len(within), within)))
    assert answered.count(b"200 OK") == 1
    assert bodies == [within]


async def test_who_asks_for_another_protocol_is_passed_on_in_this_one(
    proxy: Proxy, upstream: RawUpstream
) -> None:
    heads: list[bytes] = []
    upstream.handle = answering(OK, heads)
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    asking = INFER.replace(b"Host: h\r\n", b"Host: h\r\n" + upgrade)

    def client(connection: socket.socket) -> bytes:
        head, rest = asking.split(b"\r\n\r\n", 1)
        connection.sendall(head + b"\r\n\r\n")
        time.sleep(0.05)
        connection.sendall(rest + asking + INFER.replace(b"Host: h\r\n", b"Host: h\r\nConnection: close\r\n"))
        return read_all(connection)

    assert (await talk(proxy, client)).count(b"200 OK") == 3
    assert not any(b"pgrade" in head or b"HTTP2" in head for head in heads)
    assert [taken[1] for taken in proxy.tap.taken] == [b"body"] * 3  # type: ignore[attr-defined]


async def test_connections_are_used_again_and_pipelined_requests_are_answered_in_order(
    proxy: Proxy, upstream: RawUpstream
) -> None:
    bodies: list[bytes] = []
    upstream.handle = answering(OK, bodies=bodies)
    requests = [INFER.replace(b"body", b"%04d" % number) for number in range(20)]
    last = INFER.replace(b"Host: h", b"Host: h\r\nConnection: close")
    answered = await talk(proxy, once(b"".join(requests) + last))
    assert answered.count(b"200 OK") == 21
    assert bodies == [b"%04d" % number for number in range(20)] + [b"body"]
    assert upstream.connections == 1
    assert proxy.shared["answers_2xx"] == 21


async def test_chunks_pass_both_ways_while_they_come(proxy: Proxy, upstream: RawUpstream) -> None:
    got_first, sent_first = threading.Event(), threading.Event()

    def handle(connection: socket.socket) -> None:
        head, data = read_head(connection)
        assert b"Transfer-Encoding: chunked" in head
        while b"first" not in data:
            data += connection.recv(1000)
        got_first.set()
        while not data.endswith(b"0\r\n\r\n"):
            data += connection.recv(1000)
        assert data == b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n"
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        assert sent_first.wait(60)
        connection.sendall(b"3\r\ntwo\r\n0\r\nX-Trailer: 1\r\n\r\n")
        read_head(connection)

    def client(connection: socket.socket) -> bytes:
        connection.sendall(
            b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
        )
        assert got_first.wait(60)
        connection.sendall(b"6\r\nsecond\r\n0\r\nX-Trailer: 1\r\n\r\n")
        _, data = read_head(connection)
        while b"one" not in data:
            data += connection.recv(1000)
        sent_first.set()
        return data + read_all(connection)

    upstream.handle = handle
    assert await talk(proxy, client) == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    assert proxy.tap.taken == [(b"/v2/models/m/infer", b"firstsecond", b"onetwo")]  # type: ignore[attr-defined]


async def test_an_answer_without_a_length_is_chunked(proxy: Proxy, upstream: RawUpstream) -> None:
    def handle(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    upstream.handle = handle
    new = await talk(proxy, once(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"))
    assert new.endswith(b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n9\r\nall of it\r\n0\r\n\r\n")
    old = await talk(proxy, once(b"GET / HTTP/1.0\r\n\r\n"))
    assert old.endswith(b"Connection: close\r\n\r\nall of it")


async def test_heads_only_and_expectations(proxy: Proxy, upstream: RawUpstream) -> None:
    heads: list[bytes] = []
    upstream.handle = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", heads)

    def two_heads(connection: socket.socket) -> list[bytes]:
        found = []
        for _ in range(2):
            connection.sendall(b"HEAD /v2 HTTP/1.1\r\nHost: h\r\n\r\n")
            found.append(read_head(connection)[0])
        return found

    assert await talk(proxy, two_heads) == [b"HTTP/1.1 200 OK\r\ncontent-length: 2"] * 2
    assert upstream.connections == 1

    def handle(connection: socket.socket) -> None:
        head, _ = read_head(connection)
        assert b"Expect: 100-continue" in head
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert read_exactly(connection, b"", 4) == b"body"
        connection.sendall(OK)
        read_head(connection)

    def expecting(connection: socket.socket) -> bytes:
        head, body = INFER.replace(b"Host: h", b"Host: h\r\nConnection: close\r\nExpect: 100-continue").split(
            b"\r\n\r\n"
        )
        connection.sendall(head + b"\r\n\r\n")
        assert read_head(connection) == (b"HTTP/1.1 100 Continue", b"")
        connection.sendall(body)
        return read_all(connection)

    proxy.idle.pop().transport.close()
    upstream.handle = handle
    assert (await talk(proxy, expecting)).endswith(b"\r\n\r\nok")
    assert len(proxy.tap.taken) == 1  # type: ignore[attr-defined]


async def test_a_client_that_leaves_takes_its_request_with_it(proxy: Proxy, upstream: RawUpstream) -> None:
    noticed, asked = threading.Event(), threading.Event()

    def handle(connection: socket.socket) -> None:
        read_exactly(connection, read_head(connection)[1], 4)
        asked.set()
        read_all(connection)
        noticed.set()

    def leave(connection: socket.socket) -> None:
        connection.sendall(INFER)
        assert asked.wait(60)

    upstream.handle = handle
    await talk(proxy, leave)
    assert await asyncio.to_thread(noticed.wait, 60)
    assert proxy.shared["gone"] == 1
    assert proxy.shared["clients"] == 0


async def test_slow_readers_stop_fast_writers(proxy: Proxy, upstream: RawUpstream) -> None:
    """64 MB each way, of which nobody reads any for a while: most of it stays with who writes it."""
    size = 64 * 2**20
    sent, go = [0], threading.Event()

    def handle(connection: socket.socket) -> None:
        _, body = read_head(connection)
        assert go.wait(60)
        left = size - len(body)
        while left:
            left -= len(connection.recv(min(left, 2**20)))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        block = bytes(2**16)
        for _ in range(size // len(block)):
            connection.sendall(block)
            sent[0] += len(block)

    def client(connection: socket.socket) -> int:
        connection.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
        )
        connection.setblocking(False)
        written, block, still = 0, bytes(2**16), 0
        while still < 50:  # until nothing more is taken
            try:
                written += connection.send(block[: size - written])
                still = 0
            except BlockingIOError:
                still += 1
                go.wait(0.01)
        assert written < size // 2
        connection.settimeout(60)
        go.set()
        while written < size:
            written += connection.send(block[: size - written])
        _, body = read_head(connection)
        for _ in range(50):
            before = sent[0]
            threading.Event().wait(0.01)
            if before and sent[0] == before:
                break
        assert sent[0] < size // 2
        return len(body) + sum(map(len, iter(lambda: connection.recv(2**20), b"")))

    upstream.handle = handle
    assert await talk(proxy, client) == size
    assert proxy.shared["answers_2xx"] == 1


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal"])
async def test_an_upstream_that_breaks_off(proxy: Proxy, upstream: RawUpstream, begun: bytes) -> None:
    def handle(connection: socket.socket) -> None:
        read_exactly(connection, read_head(connection)[1], 4)
        connection.sendall(begun)

    upstream.handle = handle
    answered = await talk(proxy, once(INFER.replace(b"Host: h", b"Host: h\r\nConnection: close")))
    assert proxy.shared["broken"] == 1
    if begun:
        assert answered.endswith(b"hal"), "a part, which its length tells from all"
    else:
        assert answered.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert answered.endswith(b'closed the connection without an answer"}')
    assert not proxy.tap.taken  # type: ignore[attr-defined]


async def test_a_closed_idle_connection_costs_no_request_that_may_be_repeated(
    proxy: Proxy, upstream: RawUpstream
) -> None:
    def handle(connection: socket.socket) -> None:
        if upstream.connections == 1:
            read_head(connection)
            connection.sendall(OK)
            read_head(connection)  # and closes
        else:
            answering(OK)(connection)

    def client(connection: socket.socket) -> bytes:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n")
        read_exactly(connection, read_head(connection)[1], 2)
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        return read_all(connection)

    upstream.handle = handle
    assert (await talk(proxy, client)).endswith(b"ok")
    assert upstream.connections == 2


async def test_an_upstream_that_is_not_there(proxy: Proxy, upstream: RawUpstream) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        proxy._port = closed.getsockname()[1]
    answered = await talk(proxy, once(INFER.replace(b"Host: h", b"Host: h\r\nConnection: close")))
    head, _, body = answered.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\n")
    assert body == b'{"error":"%b can\'t be reached: Connection refused"}' % upstream.url.encode()
    assert proxy.shared["unreachable"] == 1


async def test_an_upstream_that_cannot_be_looked_up(proxy: Proxy) -> None:
    proxy._host = ".."  # no name service can be asked for it
    answered = await talk(proxy, once(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    assert answered.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert b"can't be reached: encoding with 'idna' codec failed" in answered


async def test_an_upstream_that_does_not_answer(
    proxy: Proxy, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = threading.Event()

    def handle(connection: socket.socket) -> None:
        read_all(connection)
        left.set()

    upstream.handle = handle
    monkeypatch.setattr("driftline.sidecar.proxy.proxy.ANSWER_SECONDS", 0.1)
    answered = await talk(proxy, once(INFER.replace(b"Host: h", b"Host: h\r\nConnection: close")))
    assert answered.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
    assert answered.endswith(b'has not answered within 0.1 s"}')
    assert await asyncio.to_thread(left.wait, 60), "the upstream may stop"
    assert proxy.shared["timeout"] == 1
    assert not proxy.tap.taken  # type: ignore[attr-defined]


async def test_an_upstream_that_takes_no_connection(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftline.sidecar.proxy.proxy.CONNECT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        proxy._port = full.getsockname()[1]
        with socket.create_connection(full.getsockname()):  # the system keeps one, and drops who comes next
            answered = await talk(proxy, once(INFER.replace(b"Host: h", b"Host: h\r\nConnection: close")))
    assert answered.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
    assert answered.endswith(b'no connection within 0.1 s"}')
    assert proxy.shared["timeout"] == 1


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 66_000, b"431"),  # without an end
        (b"CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n", b"501"),
    ],
)
async def test_what_is_refused(proxy: Proxy, upstream: RawUpstream, request_: bytes, status: bytes) -> None:
    answered = await talk(proxy, once(request_))
    assert answered.startswith(b"HTTP/1.1 " + status), answered
    assert upstream.connections == 0


async def test_an_answer_before_the_request_was_there(proxy: Proxy, upstream: RawUpstream) -> None:
    def handle(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        read_all(connection)

    def client(connection: socket.socket) -> bytes:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nfour")
        head, body = read_head(connection)
        body = read_exactly(connection, body, 3)
        connection.sendall(b"more")
        assert read_all(connection) == b""
        return head

    upstream.handle = handle
    assert b"413 Too Large" in await talk(proxy, client)


@pytest.mark.parametrize("answered", [False, True])
async def test_a_stop_does_not_wait_for_a_body_that_does_not_come(
    proxy: Proxy, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    monkeypatch.setattr(module, "STALLED_SECONDS", 0.1)
    begun = threading.Event()

    def handle(connection: socket.socket) -> None:
        read_head(connection)
        if answered:  # before the request is whole: the rest is read and thrown away
            connection.sendall(OK)
        begun.set()
        read_all(connection)

    def half(connection: socket.socket) -> bytes:
        connection.sendall(INFER[:-2])
        return read_all(connection)

    upstream.handle = handle
    client = asyncio.create_task(talk(proxy, half))
    assert await asyncio.to_thread(begun.wait, 60)
    await proxy.stop(3600)
    answer = await client
    assert answer.startswith(b"HTTP/1.1 200 OK" if answered else b"HTTP/1.1 503 Service Unavailable")
    assert not proxy.clients


async def test_a_stop_waits_for_a_body_that_still_comes(proxy: Proxy, upstream: RawUpstream) -> None:
    upstream.handle = answering(OK)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)  # type: ignore[attr-defined]
    for part in (INFER[:-3], INFER[-3:-2], INFER[-2:-1]):
        writer.write(part)
        while not any(client.has_progressed and client.request for client in proxy.clients):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        proxy._end_stalled()
    writer.write(INFER[-1:])
    assert await reader.readexactly(len(OK)) == OK
    writer.close()


async def test_a_stop_does_not_give_up_a_client_that_is_not_read(proxy: Proxy, upstream: RawUpstream) -> None:
    size, go = 32 * 2**20, threading.Event()

    def handle(connection: socket.socket) -> None:
        _, body = read_head(connection)
        assert go.wait(60)
        read_exactly(connection, body, size)
        connection.sendall(OK)

    upstream.handle = handle
    head = b"POST /invocations HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size
    client = asyncio.create_task(
        talk(proxy, lambda connection: (connection.sendall(head + bytes(size)), connection.recv(len(OK)))[1])
    )

    def waits() -> bool:
        return any(
            one.request is not None
            and one.request.upstream is not None
            and one.request.upstream.transport.get_write_buffer_size() > 0
            and not one.transport.is_reading()
            for one in proxy.clients
        )

    while not waits():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    (reading,) = proxy.clients
    for _ in range(3):
        proxy._end_stalled()
    assert not reading.has_progressed
    go.set()
    while not reading.transport.is_reading() and not client.done():  # noqa: ASYNC110
        await asyncio.sleep(0)
    proxy._end_stalled()  # it was read again a moment ago
    assert await client == OK
