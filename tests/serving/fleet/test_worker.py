"""A worker's server that accepts connections for other workers."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from waiting import eventually

from driftline.config import Server, ServerFile
from driftline.serving.fleet import worker as module
from driftline.serving.fleet.arena import Arena
from driftline.serving.fleet.pages import SharedApp
from driftline.serving.fleet.worker import WorkerServer
from driftline.serving.fleet.worker_host import WorkerHost
from driftline.sockets import address_of


class Listener(socket.socket):
    """A listening socket of which duplicates can't be made until there are files again."""

    failures = 0

    def dup(self) -> socket.socket:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().dup()


def listener() -> Listener:
    sock = Listener()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


@asynccontextmanager
async def answering(*listeners: socket.socket) -> AsyncIterator[WorkerServer]:
    """The server of the first of several workers."""
    nobody: Any = None
    host = WorkerHost(ServerFile(), 0, len(listeners), Arena(), nobody, None)
    server = WorkerServer(SharedApp(host, Server(), nobody), host, Server(), listeners, 0)
    serving = asyncio.create_task(server.serve_own_socket())
    await eventually(lambda: server.started, "the server")
    try:
        yield server
    finally:
        server.stop_for_good()
        await serving
        await host.close()


async def answers(other: socket.socket) -> bool:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{address_of(other)}/v2/health/live")).is_success


async def test_for_lack_of_files_it_tries_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    with listener() as own, listener() as other, listener() as third:
        other.failures = 3
        async with answering(own, other, third) as server:
            await server.cover([1, 2])
            assert await answers(other)
            assert await answers(third)
            await server.cover([2])
            assert server._covering.keys() == {2}
    line = "connections can't be accepted for other workers: Too many open files"
    assert caplog.messages.count(line) == 1


async def test_what_it_is_told_meanwhile_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    with listener() as own, listener() as other, listener() as third:
        other.failures = 10**9
        async with answering(own, other, third) as server:
            first = asyncio.create_task(server.cover([1]))
            await eventually(lambda: other.failures < 10**9, "an attempt")
            await server.cover([2])
            await first
            assert server._covering.keys() == {2}


async def test_with_its_end_nobody_waits_on_its_sockets_though_a_process_that_hangs_has_them() -> None:
    with listener() as own, listener() as other:
        addresses = [own.getsockname(), other.getsockname()]
        with own.dup(), other.dup():  # of the process that hangs
            async with answering(own, other) as server:
                await server.cover([1])
                assert await answers(own)
                assert await answers(other)
            for address in addresses:
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(address, 10)
