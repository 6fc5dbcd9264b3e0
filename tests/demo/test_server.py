from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import aiohttp
import psutil
import pytest
from onnx_models import scale

from driftline.demo.server import free_port, serving
from driftline.errors import BadRequest, DriftlineError
from driftline.registry.source import Registry


@pytest.fixture
def registry(tmp_path: Path) -> str:
    registry = Registry.open(tmp_path / "models")
    registry.register([scale(tmp_path / "model.onnx", 2)], "double")
    return registry.uri


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "serve" in child.cmdline()]


async def test_it_serves_while_it_is_needed_and_not_longer(registry: str) -> None:
    port = free_port("127.0.0.1", 0)
    async with serving("double", registry, "127.0.0.1", port) as server:
        async with aiohttp.ClientSession(server.url) as session, session.get("/v2/models/double") as response:
            assert response.status == 200
        assert await server.during(asyncio.sleep(0, "done")) == "done"
        assert len(children()) == 1
    assert not children()
    assert free_port("127.0.0.1", port) == port


async def test_it_is_stopped_when_its_user_fails(registry: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with serving("double", registry, "127.0.0.1", free_port("127.0.0.1", 0)):
            raise ZeroDivisionError
    assert not children()


async def test_its_end_ends_what_needs_it_and_says_why(registry: str) -> None:
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async with serving("double", registry, "127.0.0.1", free_port("127.0.0.1", 0)) as server:
        [child] = children()
        child.kill()
        with pytest.raises(DriftlineError, match=r"ended with code -9; it said:\n.*listens on"):
            await server.during(work())
    assert cancelled.is_set()


async def test_a_server_that_does_not_start_says_why(registry: str) -> None:
    with pytest.raises(DriftlineError, match="no model 'triple'"):
        async with serving("triple", registry, "127.0.0.1", free_port("127.0.0.1", 0)):
            pass


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_is_taken_is_refused(host: str) -> None:
    with socket.create_server((host, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadRequest, match=f"can't listen on {host}:{port}: Address already in use"):
            free_port(host, port)
    assert free_port(host, port) == port
    assert free_port(host, 0) > 0
