"""How long the event loop is kept awake."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from driftline.config import Server
from driftline.serving.http import busy_poll
from driftline.serving.http.app import App
from driftline.serving.http.busy_poll import BusyPoll
from driftline.serving.payloads.log import PayloadLog


class Clock:
    """A clock that goes on by a step each time it is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        self.step = 0
        self.reads = 0
        monkeypatch.setattr(busy_poll, "perf_counter_ns", self)

    def __call__(self) -> int:
        self.now += self.step
        self.reads += 1
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def request(poll: BusyPoll, clock: Clock, after_us: int) -> None:
    """One that comes so long after the last was seen to, and takes 50 us."""
    arrived_ns = clock.now = clock.now + 1_000 * after_us
    clock.now += 50_000
    poll.record_handled(arrived_ns)


async def test_behind_a_request_that_came_soon_the_loop_is_kept_awake_for_as_long(clock: Clock) -> None:
    poll = BusyPoll(100)
    request(poll, clock, 1_000)
    request(poll, clock, 99)
    clock.step, clock.reads = 10_000, 0
    for _ in range(50):
        await asyncio.sleep(0)
    assert clock.reads == 10


@pytest.mark.parametrize(("us", "after_us"), [(100, 100), (100, 10_000), (0, 0), (0, 5)])
async def test_behind_others_it_sleeps(clock: Clock, us: int, after_us: int) -> None:
    poll = BusyPoll(us)
    request(poll, clock, 0)
    request(poll, clock, after_us)
    clock.reads = 0
    await asyncio.sleep(0)
    assert clock.reads == 0


async def test_as_long_as_requests_come_soon_it_stays_awake_and_looks_once_a_turn(clock: Clock) -> None:
    poll = BusyPoll(100)
    request(poll, clock, 0)
    clock.reads = 0
    for _ in range(20):
        request(poll, clock, 20)
        await asyncio.sleep(0)
    assert clock.reads == 40


async def test_when_they_stop_coming_soon_it_falls_asleep_and_can_be_woken(clock: Clock) -> None:
    poll = BusyPoll(100)
    request(poll, clock, 0)
    request(poll, clock, 0)
    clock.now += 200_000
    await asyncio.sleep(0)
    clock.reads = 0
    await asyncio.sleep(0)
    assert clock.reads == 0
    request(poll, clock, 0)
    request(poll, clock, 0)
    clock.reads = 0
    await asyncio.sleep(0)
    assert clock.reads == 1


async def test_the_time_for_which_it_is_awake_and_nothing_comes_is_counted(clock: Clock) -> None:
    poll = BusyPoll(100)
    request(poll, clock, 0)
    await asyncio.sleep(0)
    assert poll.idle_ns == 0  # asleep
    request(poll, clock, 0)
    clock.now += 10_000
    await asyncio.sleep(0)
    request(poll, clock, 40)
    await asyncio.sleep(0)
    clock.now += 7_000
    await asyncio.sleep(0)
    assert poll.idle_ns == 17_000
    clock.now += 30_000  # something else was done
    await asyncio.sleep(0)
    assert poll.idle_ns == 17_000


async def test_what_it_is_idle_for_is_to_spare_for_the_payload_log(tmp_path: Path) -> None:
    settings = Server(log_payloads="all", log_sink=str(tmp_path))
    payloads = PayloadLog.of(settings)
    assert payloads is not None
    host: Any = SimpleNamespace(payloads=payloads)  # a host that nobody asks
    app = App(host, settings)
    assert payloads.spare_time is not None
    assert payloads.spare_time.busy_poll is app.joiner._busy_poll
    await payloads.close()
