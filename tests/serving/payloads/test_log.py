"""The log of a server, with the process that it is handed to."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import psutil
import pytest
from payload_sink import receiving
from waiting import eventually

from driftline.config import Server
from driftline.errors import ConfigError
from driftline.http import loop_factory
from driftline.serving.payloads import log as module
from driftline.serving.payloads.exchange import RequestHead
from driftline.serving.payloads.log import PayloadLog

REQUEST_HEAD = RequestHead("m", b"application/json", b"", None)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits at the end has all the time that a busy machine takes."""
    monkeypatch.setattr(module, "CLOSE_SECONDS", 60.0)


@asynccontextmanager
async def logging_to(sink: str, mode: str = "all", **settings: Any) -> AsyncIterator[PayloadLog]:
    payloads = PayloadLog.of(Server(log_payloads=mode, log_sink=sink, **{"log_cpu": 1.0, **settings}))
    assert payloads is not None
    payloads.start()
    try:
        yield payloads
    finally:
        await payloads.close()
        assert not children()


def say(payloads: PayloadLog, status: int = 200, size: int = 2) -> None:
    payloads.record(REQUEST_HEAD, b"q" * size, status, b"", b"a" * size, None)


def children() -> list[psutil.Process]:
    """The processes that log, of this one."""
    name = "driftline.serving.payloads.child"
    return [one for one in psutil.Process().children() if name in one.cmdline()]


async def test_all_is_logged_by_a_process_that_lets_others_go_first() -> None:
    with receiving() as receiver:
        async with logging_to(receiver.url) as payloads:
            for _ in range(1000):
                say(payloads)
            await eventually(lambda: len(receiver.events) == 2000, "the events")
            (child,) = children()
            assert os.sched_getscheduler(child.pid) == os.SCHED_IDLE
            await eventually(lambda: payloads.counts.sent == 2000, "their number")
        counts = payloads.counts
        assert (counts.sent, counts.dropped, counts.queued, counts.queued_bytes) == (2000, 0, 0, 0)
        assert len({event.id for event in receiver.events}) == 1000


@pytest.mark.parametrize(("mode", "types"), [("request", ["request"]), ("response", ["response"])])
async def test_one_half_may_do(mode: str, types: list[str]) -> None:
    with receiving() as receiver:
        async with logging_to(receiver.url, mode) as payloads:
            say(payloads)
        assert [event.type.rpartition(".")[2] for event in receiver.events] == types
        assert payloads.counts.sent == 1


async def test_what_was_refused_has_no_answer() -> None:
    with receiving() as receiver:
        async with logging_to(receiver.url) as payloads:
            say(payloads, 400)
        assert [event.data for event in receiver.events] == [b"qq"]


async def test_halves_are_sampled_together() -> None:
    with receiving() as receiver:
        async with logging_to(receiver.url, log_sample=0.25) as payloads:
            for _ in range(200):
                say(payloads)
        assert payloads.counts.sent == len(receiver.events)
        halves = [event.id for event in receiver.events]
        assert all(halves.count(one) == 2 for one in set(halves))
        assert 10 <= len(set(halves)) <= 100  # 50 on average, with a standard deviation of 6


async def test_what_would_take_too_much_of_the_requests_time_is_dropped_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "make_spare_time", lambda cores, limited: None)
    with receiving() as receiver:
        async with logging_to(receiver.url, log_cpu=0.001) as payloads:
            for _ in range(5_000):
                say(payloads)
        counts = payloads.counts
        assert counts.sent + counts.skipped == 10_000
        assert 0 < counts.sent == len(receiver.events)
        assert counts.skipped > 0
        (line,) = [one for one in caplog.messages if "log_cpu" in one]
        assert line.endswith("more than log_cpu = 0.001 of a core from requests")


async def test_who_is_slow_costs_the_oldest_and_no_memory() -> None:
    with receiving() as receiver:
        receiver.gate.clear()
        async with logging_to(receiver.url, log_queue_bytes=2**20) as payloads:
            process = psutil.Process(os.getpid())
            await eventually(children, "the process that logs")
            for _ in range(100):
                say(payloads, size=5000)
            before = process.memory_info().rss
            for number in range(10_000):
                say(payloads, size=5000)
                assert payloads.counts.queued_bytes <= 2**20
                if number % 100 == 0:
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0)
            assert process.memory_info().rss - before < 20 * 2**20
            assert payloads.counts.dropped > 19_000
            receiver.gate.set()
            await eventually(lambda: not payloads.counts.queued, "all of it")
        counts = payloads.counts
        assert counts.queued == 0
        assert counts.sent + counts.dropped == 20_200
        assert counts.sent == len(receiver.events)


async def test_before_the_process_is_there_the_oldest_go_too() -> None:
    with receiving() as receiver:
        async with logging_to(receiver.url, log_queue_bytes=10_000) as payloads:
            for number in range(50):
                payloads.record(REQUEST_HEAD, b"%d" % number, 200, b"", b"", None)
        kept = [int(event.data) for event in receiver.events if event.data]
        assert sorted(kept) == list(range(50 - len(kept), 50))
        assert 10 <= len(kept) <= 14


async def test_a_process_that_is_killed_is_replaced_and_what_it_had_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with receiving() as receiver:
        async with logging_to(receiver.url) as payloads:
            say(payloads)
            await eventually(lambda: payloads.counts.sent == 2, "the first")
            receiver.gate.clear()
            (first,) = children()
            for _ in range(100):
                say(payloads)
            await asyncio.sleep(0)
            await eventually(lambda: not payloads._queue and payloads._timer is None, "handing over")
            os.kill(first.pid, signal.SIGKILL)
            await eventually(lambda: payloads.counts.dropped, "what it had")
            receiver.gate.set()
            say(payloads)
            await eventually(lambda: payloads.counts.sent == 4, "the last")
            (second,) = children()
            assert second.pid != first.pid
        counts = payloads.counts
        assert (counts.sent, counts.dropped, counts.queued, counts.queued_bytes) == (4, 200, 0, 0)
        assert "has ended with code -9; 200 payloads were lost with it" in caplog.text


async def test_what_a_sink_has_and_has_not_logged_counts_as_queued(tmp_path: Path) -> None:
    async with logging_to(str(tmp_path), log_file_seconds=600.0) as payloads:
        for died in range(2):
            say(payloads, size=5000)
            say(payloads, size=5000)
            await eventually(lambda: payloads._shared["taken_bytes"] > died * 25_000, "who takes them")  # noqa: B023
            counts = payloads.counts
            assert counts.queued == 4
            assert 20_000 <= counts.queued_bytes < 25_000
            if not died:
                os.kill(children()[0].pid, signal.SIGKILL)
                await eventually(lambda: payloads.counts.dropped, "the end of the first process")
                assert payloads.counts.queued_bytes == 0
    counts = payloads.counts
    assert (counts.sent + counts.dropped, counts.queued, counts.queued_bytes) == (8, 0, 0)


async def test_closed_at_once_it_still_logs(tmp_path: Path) -> None:
    async with logging_to(str(tmp_path)) as payloads:
        say(payloads)
    assert payloads.counts.sent == 2
    assert len(os.listdir(tmp_path)) == 1


async def test_a_sink_that_can_not_be_reached_does_not_keep_the_server() -> None:
    """Not even if more waits than is handed over at once."""
    with receiving() as receiver:
        url = receiver.url
    async with logging_to(url) as payloads:
        await eventually(children, "the process that logs")
        for _ in range(400):
            say(payloads, size=20_000)
    assert payloads.counts.dropped == 800
    assert monotonic() < payloads._deadline


async def test_a_sink_that_hangs_does_not_keep_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.1)
    with receiving() as receiver:
        receiver.gate.clear()
        async with logging_to(receiver.url) as payloads:
            say(payloads)
            await eventually(lambda: payloads._shared["taken_bytes"], "who takes it")
        assert payloads.counts.dropped == 2
        assert "2 payloads were not logged" in caplog.text


def test_nothing_is_handed_to_a_process_whose_connection_is_closed() -> None:
    async def close_early() -> None:
        with receiving() as receiver:
            async with logging_to(receiver.url) as payloads:
                await eventually(lambda: payloads._transport, "the connection")
                assert payloads._transport is not None
                payloads._transport.close()
                say(payloads)
                payloads._enqueue_recorded()
                payloads._hand_over()
                await eventually(lambda: payloads.counts.sent == 2, "the next process")

    with asyncio.Runner(loop_factory=loop_factory()) as runner:  # uvloop raises there
        runner.run(close_early())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"log_payloads": "all"}, "--log-payloads: expected --log-sink, a URL or a folder, with it"),
        ({"log_sink": "x"}, "--log-sink: expected --log-payloads all, request or response with it"),
        ({"log_payloads": "all", "log_sink": "s3://a:b@c"}, "or a folder, got 's3'://"),
        ({"log_payloads": "all", "log_sink": "http://"}, "expected a URL such as http://host:8080/path"),
        ({"log_payloads": "all", "log_sink": "http://a:x/"}, "expected a URL such as"),
        ({"log_payloads": "all", "log_sink": "http://a/\n"}, "expected a URL such as"),
        ({"log_payloads": "all", "log_sink": "/proc/none"}, "--log-sink = '/proc/none'"),
    ],
)
def test_what_can_not_be_logged_to_is_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PayloadLog.of(Server(**settings))  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_nothing_is_logged_if_nobody_says_so() -> None:
    assert PayloadLog.of(Server()) is None


@pytest.mark.parametrize("sample", [0.01, 0.1, 0.5, 0.999])
def test_gaps_make_a_sample_of_the_part_that_was_asked_for(sample: float) -> None:
    random.seed(11)
    gaps = np.array([module.draw_gap(sample) for _ in range(20_000)])
    # Geometric: (1 - p) / p on average, with a standard deviation of sqrt(1 - p) / p.
    expected = (1 - sample) / sample
    assert abs(gaps.mean() - expected) <= 5 * np.sqrt(1 - sample) / sample / np.sqrt(len(gaps))


def test_a_sample_of_all_has_no_gaps_and_one_of_none_no_end() -> None:
    assert module.draw_gap(1.0) == 0
    assert module.draw_gap(0.0) == sys.maxsize
