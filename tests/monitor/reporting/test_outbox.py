"""Work done behind: in order, bounded, whatever fails."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from driftline.monitor.reporting import outbox as module
from driftline.monitor.reporting.outbox import Outbox


def test_items_are_worked_on_in_order_until_closed() -> None:
    done: list[int] = []
    outbox = Outbox(done.append, "test")
    for item in range(100):
        outbox.put(item)
    outbox.close()
    assert done == list(range(100))


def test_an_item_that_fails_is_logged_and_the_next_is_done(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []

    def work(item: int) -> None:
        done.append(1 // item)

    outbox = Outbox(work, "test")
    outbox.put(0)
    outbox.put(1)
    outbox.close()
    assert done == [1]
    assert "test: ZeroDivisionError" in caplog.text


def test_the_oldest_is_dropped_for_what_finds_it_full(caplog: pytest.LogCaptureFixture) -> None:
    release, started, done = threading.Event(), threading.Event(), []

    def work(item: int) -> None:
        started.set()
        release.wait(30)
        done.append(item)

    outbox = Outbox(work, "test", size=2)
    outbox.put(0)
    assert started.wait(30)
    for item in range(1, 6):
        outbox.put(item)
    assert outbox.waiting == 2
    release.set()
    outbox.close()
    assert done == [0, 4, 5]
    assert outbox.dropped == 3
    first, second = (line for line in caplog.messages if "dropped" in line)
    assert first == "test: 2 wait already, so the oldest were dropped, 1 in all: 1"
    assert second == "test: 2 wait already, so the oldest were dropped, 2 in all: 2, 3"


def test_closing_wakes_whoever_rests_between_attempts() -> None:
    rested: list[bool] = []
    resting = threading.Event()

    def work(item: int) -> None:
        resting.set()
        rested.append(outbox.rest(60))

    outbox = Outbox(work, "test")
    outbox.put(0)
    assert resting.wait(30)
    begin = time.monotonic()
    outbox.close()
    assert rested == [False]
    assert time.monotonic() - begin < 60


def test_nothing_to_do_starts_no_thread() -> None:
    before = threading.active_count()
    Outbox(print, "test").close()
    assert threading.active_count() == before


def test_what_is_not_done_when_it_closes_is_said(caplog: pytest.LogCaptureFixture) -> None:
    release, started = threading.Event(), threading.Event()

    def work(item: int) -> None:
        started.set()
        release.wait(30)

    outbox = Outbox(work, "test")
    for item in range(3):
        outbox.put(item)
    assert started.wait(30)
    assert outbox.close(0.1) == [0, 1, 2]
    assert "test: not done in 0.1 s; 2 more wait and are lost" in caplog.text
    release.set()


def test_while_no_thread_can_be_had_items_wait(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []
    outbox = Outbox(done.append, "test")
    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", no_thread)
        outbox.put(0)
        outbox.put(1)
    assert "test: can't start new thread; 1 wait" in caplog.messages
    outbox.put(2)
    outbox.close()
    assert done == [0, 1, 2]


def test_what_no_thread_could_be_had_for_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    outbox = Outbox(print, "test")
    outbox.put(0)
    assert outbox.close() == [0]
    assert "test: not done in 10 s; 1 more wait and are lost" in caplog.text


def no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_items_of_several_threads_are_done_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(threading.Thread):
        def __init__(self, **settings: Any) -> None:
            time.sleep(0.05)
            super().__init__(**settings)

    monkeypatch.setattr(module, "Thread", Slow)
    workers: set[int] = set()
    outbox = Outbox(lambda _: workers.add(threading.get_ident()), "test")
    putting = [threading.Thread(target=outbox.put, args=(item,)) for item in range(8)]
    for one in putting:
        one.start()
    for one in putting:
        one.join()
    assert [one.name for one in threading.enumerate()].count("driftline-test") == 1
    outbox.close()
    assert len(workers) == 1
