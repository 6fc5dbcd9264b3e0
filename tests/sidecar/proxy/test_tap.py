"""Copies on their way to the agent: whole, in order, and never more of them than may wait."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from driftline.child_process import SharedCounts
from driftline.sidecar.exchange import Body, Exchange
from driftline.sidecar.proxy.tap import COUNTERS, Copy, Tap, TapSource, in_transit


class Seeing:
    """In place of an agent: keeps what it is given."""

    def __init__(self) -> None:
        self.seen: list[Exchange] = []

    def observe(self, exchange: Exchange) -> None:
        self.seen.append(exchange)


def copy(content: bytes, room: int = 10_000_000, **headers: bytes) -> Copy:
    found = Copy(room)
    for name, value in headers.items():
        found.set_header(name.replace("_", "-").encode(), value)
    for start in range(0, len(content), 1000):
        found.add(content[start : start + 1000])
    return found


async def test_exchanges_arrive_as_they_were() -> None:
    ours, theirs = socket.socketpair()
    shared, ended = SharedCounts.new(COUNTERS), asyncio.Event()
    tap, agent = Tap(1_000_000, shared), Seeing()
    loop = asyncio.get_running_loop()
    source: Any = TapSource(theirs, shared, lambda: loop.call_soon_threadsafe(ended.set))
    ours.setblocking(False)
    await tap.open(ours)
    await source.start(agent, None)
    request = copy(b"x" * 100_000, content_type=b"a/b", inference_header_content_length=b"17")
    tap.put(b"/v2/models/m/infer", request, copy(b"answer", content_encoding=b"GZIP"))
    tap.put(b"/invocations", copy(b""), copy(b""))
    tap.put(b"/invocations", copy(b"12345", room=4), copy(b""))
    tap.close()
    await ended.wait()
    await source.close()
    assert agent.seen == [
        Exchange("/v2/models/m/infer", Body(b"x" * 100_000, b"a/b", b"", 17), Body(b"answer", b"", b"gzip")),
        Exchange("/invocations", Body(b"", b""), Body(b"", b"")),
    ]
    assert (shared["copied"], shared["taken"], shared["dropped_large"]) == (2, 2, 1)
    names = {sample.name for metric in source.metrics() for sample in metric.samples}
    assert {"driftline_proxy_dropped_total", "driftline_proxy_waiting"} <= names


async def test_an_agent_that_lags_costs_copies_and_no_memory() -> None:
    ours, theirs = socket.socketpair()
    shared = SharedCounts.new(COUNTERS)
    tap = Tap(500_000, shared)
    tap.put(b"/", copy(b"1"), copy(b"2"))
    assert shared["dropped_away"] == 1
    ours.setblocking(False)
    await tap.open(ours)
    for _ in range(200):
        tap.put(b"/invocations", copy(b"x" * 10_000), copy(b"y" * 10_000))
        await asyncio.sleep(0)
    assert shared["copied"] + shared["dropped_queue"] == 200
    assert 25 <= shared["copied"] < 100, "what may wait, and what the system's own buffers hold"
    theirs.close()
    while shared["dropped_away"] == 1:
        tap.put(b"/", copy(b"1"), copy(b"2"))
        await asyncio.sleep(0.001)
    tap.close()


async def test_what_was_on_its_way_to_an_agent_that_dies_is_counted() -> None:
    shared = SharedCounts.new(COUNTERS)
    tap = Tap(10_000_000, shared)
    for taken in (3, 5):  # one agent after the other
        before = shared["copied"]
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        await tap.open(ours)
        for _ in range(10):
            tap.put(b"/", copy(b"1"), copy(b"2"))
        shared.add("taken", taken)
        assert in_transit(shared) == 10 - taken
        theirs.close()
        async with asyncio.timeout(60):
            while in_transit(shared):  # noqa: ASYNC110 - the transport notices
                await asyncio.sleep(0.001)
        assert shared["copied"] == before + 10
    assert (shared["taken"], shared["dropped_lost"]) == (8, 12)
    tap.put(b"/", copy(b"1"), copy(b"2"))
    assert shared["dropped_away"] == 1
    tap.close()
