"""Many at once, or one alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

from driftline.engine.gate import Gate


def test_many_pass_together() -> None:
    gate, meet = Gate(), Barrier(3)

    def pass_through(_: int) -> bool:
        with gate.passing(), gate.passing():
            meet.wait(60)  # all three are inside
        return True

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(pass_through, range(3)))


def test_one_is_alone() -> None:
    gate, inside, alone = Gate(), [0], [0]

    def work(number: int) -> None:
        if number % 5 == 0:
            with gate.alone(60) as free:
                assert free
                assert (inside[0], alone[0]) == (0, 0)
                alone[0] += 1
                assert inside[0] == 0
                alone[0] -= 1
        else:
            with gate.passing():
                inside[0] += 1
                assert alone[0] == 0
                with gate.passing():  # again, though somebody waits to be alone
                    assert alone[0] == 0
                inside[0] -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(600), timeout=120))


def test_whoever_fails_inside_has_left() -> None:
    gate = Gate()
    for enter in (gate.passing, gate.passing_long, lambda: gate.alone(60)):
        try:
            with enter():
                raise ValueError
        except ValueError:
            pass
        with gate.alone(0) as free:
            assert free


def test_nobody_is_kept_waiting_behind_who_passes_long() -> None:
    gate, entered, go_on = Gate(), Event(), Event()

    def load() -> None:
        with gate.passing_long():
            entered.set()
            assert go_on.wait(60)

    with ThreadPoolExecutor(2) as pool:
        loading = pool.submit(load)
        assert entered.wait(60)
        with gate.alone(0) as free, gate.passing():
            assert not free
        go_on.set()
        loading.result(60)
    with gate.alone(0) as free:
        assert free
