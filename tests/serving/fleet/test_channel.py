"""Two processes that talk: in order, with answers, and to the end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from driftline.errors import ModelError, Unavailable
from driftline.http import loop_factory
from driftline.serving.fleet.channel import Channel, PeerGone


@asynccontextmanager
async def talking(**handlers: Any) -> AsyncIterator[tuple[Channel, asyncio.Task[None]]]:
    """An end whose other side does these; and that other side, running."""
    ours, theirs = socket.socketpair()
    asking, answering = Channel(ours, {}), Channel(theirs, handlers)
    await asking.open()
    await answering.open()
    running = [asyncio.create_task(channel.run()) for channel in (asking, answering)]
    try:
        yield asking, running[1]
    finally:
        await asking.finish()
        await answering.finish()
        await asyncio.gather(*running)


async def test_messages_are_taken_in_order_and_answers_find_who_asked() -> None:
    received: list[int] = []
    gate = asyncio.Event()

    async def wait(number: int) -> int:
        await gate.wait()
        return -number

    async with talking(say=received.append, wait=wait, length=len) as (channel, _):
        waiting = asyncio.gather(*(channel.ask("wait", number) for number in range(5)))
        for number in range(100):
            channel.tell("say", number)
        assert await channel.ask("length", b"x" * 10_000_000) == 10_000_000
        assert received == list(range(100))
        gate.set()
        assert await waiting == [0, -1, -2, -3, -4]


async def test_messages_without_an_answer_may_take_time_at_once(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []

    async def work(number: int) -> None:
        await asyncio.sleep(0.01)
        done.append(number)

    async with talking(work=work, length=len) as (channel, _):
        for number in range(3):
            channel.tell("work", number)
        while len(done) < 3:
            assert await channel.ask("length", "x") == 1
    assert (sorted(done), caplog.text) == ([0, 1, 2], "")


async def test_what_is_asked_meanwhile_ends_with_the_asking_and_nothing_else_does() -> None:
    ended: list[str] = []
    gate = asyncio.Event()

    async def wait(name: str) -> str:
        try:
            await gate.wait()
            return name
        except asyncio.CancelledError:
            ended.append(name)
            raise

    async with talking(wait=wait, length=len) as (channel, _):
        requests = [
            asyncio.create_task(ask("wait", name))
            for ask, name in (
                (channel.ask_cancellable, "page"),
                (channel.ask, "load"),
                (channel.ask, "other"),
            )
        ]
        assert await channel.ask("length", "") == 0
        for task in requests[:2]:
            task.cancel()
        await asyncio.wait(requests[:2])
        assert await channel.ask("length", "") == 0
        await asyncio.sleep(0)
        assert ended == ["page"]
        gate.set()
        assert await requests[2] == "other"


async def test_an_error_is_raised_where_was_asked() -> None:
    async def fail(error: Exception) -> None:
        raise error

    async with talking(fail=fail) as (channel, _):
        with pytest.raises(ModelError, match="no model"):
            await channel.ask("fail", ModelError("no model"))
        with pytest.raises(Unavailable) as raised:
            await channel.ask("fail", Unavailable("busy", retry_after=7))
        assert raised.value.retry_after == 7
        with pytest.raises(Exception, match="KeyError: 'x'"):
            await channel.ask("fail", KeyError("x"))


async def test_who_asks_one_that_goes_is_told(caplog: pytest.LogCaptureFixture) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def never() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with talking(never=never) as (channel, other):
        request = asyncio.create_task(channel.ask("never"))
        await begun.wait()
        channel.tell("no such name")
        with pytest.raises(PeerGone):
            await request
        await other
        await cancelled.wait()
        with pytest.raises(PeerGone):
            await channel.ask("never")
        channel.tell("never")  # nobody hears it
    assert "can't be handled" in caplog.text


async def test_nothing_is_kept_of_what_was_answered() -> None:
    async def echo(text: str) -> str:
        return text

    ours, theirs = socket.socketpair()
    asking, answering = Channel(ours, {}), Channel(theirs, {"echo": echo, "length": len})
    await asking.open()
    await answering.open()
    running = [asyncio.create_task(channel.run()) for channel in (asking, answering)]
    assert await asking.ask("echo", "x") == "x"
    assert await asking.ask("length", "abc") == 3
    await asyncio.sleep(0)
    assert (asking._responses, answering._handler_tasks) == ({}, {})
    assert (asking.received, answering.received) == (2, 2)
    await asking.finish()
    await asyncio.gather(*running)


def test_what_is_sent_to_a_process_that_was_just_killed_is_lost_without_an_error() -> None:
    async def send() -> None:
        ours, theirs = socket.socketpair()
        channel = Channel(ours, {})
        await channel.open()
        theirs.close()
        for _ in range(3):
            channel.tell("say", b"x" * 1_000_000)
            await asyncio.sleep(0)
        channel.close()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(send())
