"""Held by many together, or by one alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

from driftline.engine.cuda.shared_lock import SharedLock


def test_many_hold_it_together() -> None:
    lock, meet = SharedLock(), Barrier(3)

    def hold(_: int) -> bool:
        with lock.shared(), lock.shared():
            meet.wait(60)  # all three are inside
        return True

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(hold, range(3)))


def test_an_exclusive_holder_is_alone() -> None:
    lock, inside, alone = SharedLock(), [0], [0]

    def work(number: int) -> None:
        if number % 5 == 0:
            with lock.exclusive(60) as held:
                assert held
                assert (inside[0], alone[0]) == (0, 0)
                alone[0] += 1
                assert inside[0] == 0
                alone[0] -= 1
        else:
            with lock.shared():
                inside[0] += 1
                assert alone[0] == 0
                with lock.shared():  # again, though somebody waits to be alone
                    assert alone[0] == 0
                inside[0] -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(600), timeout=120))


def test_a_holder_that_fails_releases_it() -> None:
    lock = SharedLock()
    for enter in (lock.shared, lock.shared_long, lambda: lock.exclusive(60)):
        try:
            with enter():
                raise ValueError
        except ValueError:
            pass
        with lock.exclusive(0) as held:
            assert held


def test_a_long_hold_keeps_nobody_else_waiting() -> None:
    lock, entered, go_on = SharedLock(), Event(), Event()

    def load() -> None:
        with lock.shared_long():
            entered.set()
            assert go_on.wait(60)

    with ThreadPoolExecutor(2) as pool:
        loading = pool.submit(load)
        assert entered.wait(60)
        with lock.exclusive(0) as held, lock.shared():
            assert not held
        go_on.set()
        loading.result(60)
    with lock.exclusive(0) as held:
        assert held


def test_who_comes_later_waits_for_an_exclusive_holder() -> None:
    lock, entered = SharedLock(), Event()

    def share() -> None:
        with lock.shared():
            entered.set()

    with ThreadPoolExecutor(1) as pool:
        with lock.exclusive(0):
            sharing = pool.submit(share)
            assert not entered.wait(0.2)
        sharing.result(60)
    assert entered.is_set()


def test_an_exclusive_holder_waits_for_those_inside() -> None:
    lock, entered, go_on, alone = SharedLock(), Event(), Event(), Event()

    def share() -> None:
        with lock.shared():
            entered.set()
            assert go_on.wait(60)

    def exclude() -> None:
        with lock.exclusive(60):
            alone.set()

    with ThreadPoolExecutor(2) as pool:
        sharing = pool.submit(share)
        assert entered.wait(60)
        excluding = pool.submit(exclude)
        assert not alone.wait(0.2)
        go_on.set()
        sharing.result(60)
        excluding.result(60)
    assert alone.is_set()
