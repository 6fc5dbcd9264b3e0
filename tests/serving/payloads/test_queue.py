"""The queue that the threads of a sink take from."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from time import monotonic

import pytest
from payload_sink import exchange

from driftline.child_process import SharedCounts
from driftline.serving.payloads.exchange import Exchange
from driftline.serving.payloads.log import COUNT_NAMES
from driftline.serving.payloads.queue import Queue


@pytest.fixture
def shared() -> Iterator[SharedCounts]:
    shared = SharedCounts.new(COUNT_NAMES)
    yield shared
    shared.close()


def numbered(count: int) -> list[Exchange]:
    return [exchange(b"%d" % number) for number in range(count)]


def test_what_waits_is_taken_after_closing_until_it_is_too_late(shared: SharedCounts) -> None:
    queue = Queue(shared)
    queue.put(numbered(2))
    queue.close(60)
    assert len(queue.take(60, 1, 10**9)) == 1
    queue.close(0)
    assert queue.late
    assert queue.take(60, 1, 10**9) == []


def test_so_many_payloads_or_bytes_are_taken_at_once(shared: SharedCounts) -> None:
    exchanges = numbered(10)
    queue = Queue(shared)
    queue.put(exchanges)
    assert queue.take(60, 3, 10**9) == exchanges[:2]  # of two payloads each
    assert queue.take(60, 100, exchanges[2].size + 1) == exchanges[2:4]
    assert queue.take(60, 100, 10**9) == exchanges[4:]
    assert shared["taken_bytes"] == sum(exchange.size for exchange in exchanges)


def test_several_threads_take_each_one_once(shared: SharedCounts) -> None:
    exchanges = numbered(5000)
    queue = Queue(shared)
    logged: list[Exchange] = []

    def take() -> None:
        while taken := queue.take(60, 3, 10**9):
            logged.extend(taken)
            queue.count_done(sent=sum(exchange.halves for exchange in taken))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for start in range(0, 5000, 500):
        queue.put(exchanges[start : start + 500])
    queue.close(60)
    for thread in threads:
        thread.join()
    assert sorted(logged) == sorted(exchanges)
    assert shared["sent"] == 10000
    assert shared["given_up"] == 0
    assert shared["taken_bytes"] == sum(exchange.size for exchange in exchanges)


def test_nobody_is_waited_for_longer_than_was_said(shared: SharedCounts) -> None:
    queue = Queue(shared)
    begin = monotonic()
    assert queue.take(0.05, 1, 10**9) == []
    assert monotonic() - begin >= 0.05
