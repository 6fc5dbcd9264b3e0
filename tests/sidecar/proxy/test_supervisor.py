"""The proxy, while agents come and go; with real agents it is in tests/integration/test_sidecar.py."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from driftline.config import Monitoring, Sidecar
from driftline.errors import ConfigError
from driftline.sidecar.proxy import supervisor as module
from driftline.sidecar.proxy.supervisor import Supervisor

FULL = BlockingIOError(11, "Resource temporarily unavailable")


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with socket.socket() as traffic, socket.socket() as pages:
        traffic.bind(("127.0.0.1", 0))
        pages.bind(("127.0.0.1", 0))
        yield Supervisor(Sidecar(upstream="http://127.0.0.1:1"), Monitoring(), traffic, pages)


@asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(supervisor.run())
    yield task
    supervisor._stopping.set()
    await asyncio.wait_for(task, 30)


async def test_requests_pass_though_no_agent_can_be_started(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lives = 0

    async def live() -> int:
        nonlocal lives
        lives += 1
        await asyncio.sleep(0)
        if lives in (2, 3):
            raise FULL
        if lives > 4:
            await supervisor._stopping.wait()
        return -9

    monkeypatch.setattr(module, "backoff", lambda failures: 0.0)
    monkeypatch.setattr(supervisor, "_run_agent", live)
    async with running(supervisor) as task:
        async with asyncio.timeout(30):
            while lives < 5:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
        assert not task.done()
        _, writer = await asyncio.open_connection(*supervisor._traffic.getsockname())
        writer.close()
    assert caplog.text.count("the agent has ended with code -9; another starts") == 2
    assert caplog.text.count("the agent can't be started: Resource temporarily unavailable; another") == 2


@pytest.mark.parametrize(
    ("code", "message"), [(2, "can't begin: its log says why"), (None, "can't be started: Resource temp")]
)
async def test_if_the_first_agent_can_not_begin_nothing_does(
    code: int | None, message: str, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def live() -> int:
        if code is None:
            raise FULL
        return code

    monkeypatch.setattr(supervisor, "_run_agent", live)
    with pytest.raises(ConfigError, match=f"the agent {message}"):
        await asyncio.wait_for(supervisor.run(), 30)
