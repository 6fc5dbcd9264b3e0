"""Workers whose processes can't be started; all else about them is in tests/integration/test_workers.py."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import pytest
from waiting import eventually

from driftline.config import Server, ServerFile
from driftline.errors import DriftlineError
from driftline.serving.fleet import pool as module
from driftline.serving.fleet.arena import Arena
from driftline.serving.fleet.pool import Worker, WorkerPool

FULL = BlockingIOError(11, "Resource temporarily unavailable")


def pool_of(listener: socket.socket) -> WorkerPool:
    async def prepare(worker: Worker) -> None: ...

    return WorkerPool(
        [listener],
        Arena(),
        (Server(), ServerFile()),
        prepare,
        lambda worker: None,
        {"totals": lambda worker, totals: None},
    )


async def test_who_can_not_start_the_first_ones_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_room(*_: object, **__: object) -> None:
        raise FULL

    monkeypatch.setattr(asyncio, "create_subprocess_exec", no_room)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pool = pool_of(listener)
        with pytest.raises(DriftlineError, match="worker 0 can't be started: Resource temporarily unavail"):
            await asyncio.wait_for(pool.start(), 30)
        await pool.stop()


async def test_a_place_is_filled_once_there_is_room_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "backoff", lambda failures: 0.01)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pool = pool_of(listener)
        await asyncio.wait_for(pool.start(), 60)
        (worker,) = pool.workers
        first, spawn, tries = worker.process, pool._spawn, 0

        async def fails_twice(place: Worker) -> asyncio.subprocess.Process:
            nonlocal tries
            tries += 1
            if tries <= 2:
                raise FULL
            return await spawn(place)

        pool._spawn = fails_twice  # type: ignore[method-assign]
        pool.kill()
        await eventually(lambda: worker.live and worker.process is not first)
        assert caplog.text.count("worker 0 can't be started: Resource temporarily unavailable; another") == 2
        await pool.stop()


async def test_a_process_that_hangs_is_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "HANG_SECONDS", 3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pool = pool_of(listener)
        await asyncio.wait_for(pool.start(), 60)
        (worker,) = pool.workers
        first = worker.process
        assert first is not None
        await asyncio.sleep(5)
        assert worker.process is first
        os.kill(first.pid, signal.SIGSTOP)
        await eventually(lambda: worker.live and worker.process is not first)
        assert "worker 0 has said nothing for 3 s: it is killed" in caplog.text
        assert "worker 0 was killed by SIGKILL; another takes its place" in caplog.text
        await pool.stop()


async def test_nobody_waits_on_the_socket_of_a_process_that_hangs_while_the_others_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "UNRESPONSIVE_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        pool = pool_of(listener)
        await asyncio.wait_for(pool.start(), 60)
        (worker,) = pool.workers
        assert worker.process is not None
        await eventually(lambda: worker.channel.received > 2, "messages")
        os.kill(worker.process.pid, signal.SIGSTOP)
        socket.create_connection(address, 10).close()
        stopping = asyncio.create_task(pool.stop())
        await eventually(lambda: refused(address), "the end of the socket")
        assert worker.process is not None
        assert not stopping.done()
        worker.process.kill()
        await stopping


def refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 10).close()
    except ConnectionRefusedError:
        return True
    return False


async def test_a_process_that_can_not_be_killed_does_not_keep_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pool = pool_of(listener)
        pool._settings = Server(drain_seconds=0), ServerFile()
        await asyncio.wait_for(pool.start(), 60)
        (worker,) = pool.workers
        assert worker.process is not None
        os.kill(worker.process.pid, signal.SIGSTOP)
        monkeypatch.setattr(pool, "kill", lambda: None)  # as if it waited for a disk that does not respond
        await asyncio.wait_for(pool.stop(), 30)
        assert worker.process is not None
        worker.process.kill()
        await asyncio.gather(*pool._tasks)
    assert "1 workers have not ended within 0.1 s: they are killed" in caplog.text
