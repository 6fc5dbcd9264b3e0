"""A whole server and clients that cut, stall, leave, pipeline and send nonsense: nothing wrong or stuck."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from onnx_models import scale
from server_process import Process, infer_request, serving

CLIENTS = 12
EXCHANGES = 60
"""Of each client, over connections that it keeps as long as they are good."""

HUGE = b"x-huge: " + b"y" * 40_000 + b"\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with serving(scale(tmp_path_factory.mktemp("rude") / "twice.onnx", 2)) as process:
        yield process


class Client:
    """Sends requests in every way that it can think of, and checks what comes back."""

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.random = random.Random(seed)
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter | None = None
        self.answers = 0

    async def run(self) -> None:
        ways = [self.whole, self.cut, self.pipelined, self.leave, self.leave_early, self.wrong, self.huge]
        for _ in range(EXCHANGES):
            if self.writer is None:
                self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
            async with asyncio.timeout(60):
                await self.random.choice(ways)()
        self.close()

    def request(self, more: bytes = b"") -> tuple[bytes, list[float]]:
        """A request, by either lane, and what `y` must be."""
        row = [self.random.randrange(1000) / 4 for _ in range(3)]
        body = json.dumps(infer_request({"x": ("FP32", [row])}, outputs=[{"name": "y"}])).encode()
        lane = self.random.choice([b"", b"?slow"])
        head = b"POST /v2/models/twice/infer%b HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n"
        return head % (lane, more, len(body)) + body, [2 * number for number in row]

    async def read(self) -> tuple[int, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        (length,) = (int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
        return int(lines[0].split()[1]), await self.reader.readexactly(length)

    async def check(self, expected: list[float]) -> None:
        status, body = await self.read()
        assert (status, json.loads(body)["outputs"][0]["data"]) == (200, expected), body
        self.answers += 1

    def send(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort() if self.random.random() < 0.5 else self.writer.close()
        self.writer = None

    async def whole(self) -> None:
        request, expected = self.request()
        self.send(request)
        await self.check(expected)

    async def cut(self) -> None:
        request, expected = self.request()
        for start in range(0, len(request), size := self.random.choice([1, 7, 100])):
            self.send(request[start : start + size])
            await asyncio.sleep(0.002 * (self.random.random() < 0.02))
        await self.check(expected)

    async def pipelined(self) -> None:
        several = [self.request() for _ in range(self.random.randint(2, 6))]
        self.send(b"".join(request for request, _ in several))
        for _, expected in several:
            await self.check(expected)

    async def huge(self) -> None:
        request, expected = self.request(HUGE)
        self.send(request)
        await self.check(expected)

    async def leave(self) -> None:
        self.send(self.request()[0])
        self.close()

    async def leave_early(self) -> None:
        request, _ = self.request()
        self.send(request[: self.random.randrange(len(request))])
        await asyncio.sleep(0)
        self.close()

    async def wrong(self) -> None:
        """A bad request is answered, and the connection is good for another; what is no HTTP ends it."""
        request, _ = self.request()
        if self.random.random() < 0.5:
            self.send(request[:-1] + b"!")
            status, body = await self.read()
            assert (status, b"valid JSON" in body) == (400, True)
            return
        self.send(b"NO/HTTP \x00\r\n\r\n")
        assert (await self.read())[0] == 400
        assert await self.reader.read() == b""
        self.close()


def sockets(process: Process) -> int:
    """How many sockets a process holds."""
    count = 0
    for entry in Path(f"/proc/{process.popen.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            count += os.readlink(entry).startswith("socket:")
    return count


def test_rude_clients_get_right_answers_and_leave_nothing_behind(server: Process) -> None:
    port = int(server.url.rpartition(":")[2])
    before = sockets(server)

    async def run() -> int:
        clients = [Client(port, seed) for seed in range(CLIENTS)]
        await asyncio.gather(*(client.run() for client in clients))
        async with asyncio.timeout(60):
            while True:
                if sockets(server) <= before:
                    return sum(client.answers for client in clients)
                await asyncio.sleep(0.05)

    assert asyncio.run(run()) > CLIENTS * EXCHANGES / 3
    answer = server.infer("twice", {"x": ("FP32", [[1, 2, 3]])}, outputs=[{"name": "y"}])
    assert answer.json()["outputs"][0]["data"] == [2, 4, 6]
    totals = {model["name"]: model for model in server.get("/v2/models/stats").json()["model_stats"]}
    assert totals["twice"]["inference_stats"]["success"]["count"] > CLIENTS * EXCHANGES / 3
    assert server.stop() == 0


@pytest.mark.parametrize("query", ["", "?slow"])
def test_who_asks_on_and_on_and_reads_no_answer_takes_no_memory(tmp_path: Path, query: str) -> None:
    body = json.dumps(infer_request({"x": ("FP32", [[1.0, 2.0, 3.0]])})).encode()
    head = f"POST /v2/models/twice/infer{query} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    requests = (head.encode() + body) * 1000
    with serving(scale(tmp_path / "twice.onnx", 2)) as server:
        assert server.infer("twice", {"x": ("FP32", [[1, 2, 3]])}).status_code == 200
        before = psutil.Process(server.popen.pid).memory_info().rss
        host, _, port = server.address.partition(":")
        with socket.create_connection((host, int(port)), timeout=3) as client, suppress(TimeoutError):
            for _ in range(150):
                client.sendall(requests)
        assert server.infer("twice", {"x": ("FP32", [[1, 2, 3]])}).status_code == 200
        assert psutil.Process(server.popen.pid).memory_info().rss - before < 100 * 2**20


@pytest.mark.parametrize("query", ["", "?slow"])
def test_a_stop_waits_for_a_body_that_comes_slowly_and_for_none_that_does_not_come(
    tmp_path: Path, query: str
) -> None:
    body = json.dumps(infer_request({"x": ("FP32", [[1.0, 2.0, 3.0]])})).encode()
    head = f"POST /v2/models/twice/infer{query} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    with serving(scale(tmp_path / "twice.onnx", 2), "--drain-seconds", "1000") as server:
        host, _, port = server.address.partition(":")
        address = host, int(port)
        with socket.create_connection(address, 30) as slow, socket.create_connection(address, 30) as silent:
            slow.sendall(request[:-8])
            silent.sendall(request[:-8])
            server.infer("twice", {"x": ("FP32", [[1, 2, 3]])})  # both have been read by now
            server.popen.terminate()
            for byte in request[-8:]:
                slow.sendall(bytes([byte]))
                time.sleep(1)
            assert slow.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
            answer = silent.recv(1000)
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"the rest of the request has not arrived" in answer
        assert server.popen.wait(30) == 0


def test_a_stop_ends_who_reads_no_answer_or_sends_no_body_in_a_line(tmp_path: Path) -> None:
    body = json.dumps(infer_request({"x": ("FP32", [[1.0, 2.0, 3.0]] * 30_000)})).encode()
    head = b"POST /v2/models/twice/infer?slow HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    with serving(scale(tmp_path / "twice.onnx", 2), "--drain-seconds", "1") as server:
        host, _, port = server.address.partition(":")
        address = host, int(port)
        with socket.create_connection(address) as deaf, socket.create_connection(address) as mute:
            mute.sendall(head)
            deaf.settimeout(3)
            with suppress(TimeoutError):
                for _ in range(100):
                    deaf.sendall(head + body)
            assert server.stop() == 0
            assert mute.recv(100).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        server.close()
        assert not [line for line in server.log if "Traceback" in line]
