"""How much of the time that passes a budget lets some work take."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.serving.payloads import budget
from driftline.serving.payloads.budget import SLACK_SECONDS, Budget, SpareTime, make_spare_time

BUSY = (
    *(sys.executable, "-S", "-c"),
    "import os, sys, time; os.sched_setaffinity(0, {int(sys.argv[1])}); end = time.time() + 2.5\n"
    "while time.time() < end: pass",
)


def used(budget: Budget, every: float, cost: float, seconds: float) -> tuple[float, int, int]:
    """The time that work takes which is offered every so often, and how many pieces were done and refused."""
    now, busy, done, refused = 0.0, 0.0, 0, 0
    while now < seconds:
        if budget.allows(now):
            budget.spend(now, now + cost)
            now, busy, done = now + cost, busy + cost, done + 1
        else:
            refused += 1
        now += every
    return busy, done, refused


@given(
    share=st.floats(0.001, 1.0),
    every=st.floats(1e-4, 1.0),
    cost=st.floats(1e-6, 0.1),
)
def test_never_more_than_its_share_but_for_the_slack(share: float, every: float, cost: float) -> None:
    seconds = 2000 * every
    busy, done, _ = used(Budget(share), every, cost, seconds)
    assert done >= 1
    assert busy <= share * (seconds + cost + 2 * SLACK_SECONDS) + cost


def test_what_takes_less_is_never_refused() -> None:
    _, done, refused = used(Budget(0.05), every=0.001, cost=0.000_045, seconds=100.0)
    assert (done > 90_000, refused) == (True, 0)


def test_what_takes_more_is_refused_no_more_than_need_be() -> None:
    busy, _, refused = used(Budget(0.05), every=0.000_1, cost=0.000_02, seconds=20.0)
    assert refused > 0
    assert busy == pytest.approx(0.05 * 20.0, rel=0.1)


def test_a_share_of_all_is_no_limit() -> None:
    assert used(Budget(1.0), every=0.0, cost=0.01, seconds=20.0)[2] == 0


def test_the_first_of_a_batch_has_no_better_chance_than_the_last() -> None:
    random.seed(7)
    budget, now, seen = Budget(0.05), 0.0, [0] * 64
    for _ in range(10_000):
        for place in range(64):
            if budget.allows(now):
                budget.spend(now, now + 5e-6)
                seen[place] += 1
                now += 5e-6
            now += 1e-6
        now += 1.5e-3
    assert sum(seen) < 0.5 * 64 * 10_000
    assert min(seen) > 0.85 * max(seen)


def test_half_of_what_is_to_spare_may_be_spent_besides() -> None:
    busy, _, _ = used(Budget(0.05, lambda: 0.4), every=0.000_1, cost=0.000_1, seconds=20.0)
    assert busy == pytest.approx(0.25 * 20.0, rel=0.1)


def test_what_may_be_spent_falls_again_when_nothing_is_to_spare() -> None:
    fractions = iter([0.4] * 10 + [0.0] * 1000)
    budget = Budget(0.05, lambda: next(fractions))
    busy, _, _ = used(budget, every=0.000_1, cost=0.000_1, seconds=20.0)
    assert busy == pytest.approx(0.05 * 20.0, rel=0.2)


Make = Callable[[float], SpareTime]


@pytest.fixture
def spare_of() -> Iterator[Make]:
    made: list[SpareTime] = []

    def make(cores: float) -> SpareTime:
        made.append(SpareTime(cores))
        return made[-1]

    yield make
    for one in made:
        one.close()


def work(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_a_thread_that_waits_has_time_to_spare_and_one_that_works_has_none(spare_of: Make) -> None:
    spare = spare_of(1000.0)
    time.sleep(0.2)
    waiting = spare.fraction()
    work(0.2)
    assert spare.fraction() < 0.1 < waiting <= 1.0


def test_one_that_waits_for_a_core_has_none(spare_of: Make) -> None:
    core = min(os.sched_getaffinity(0))
    others = [threading.Thread(target=subprocess.run, args=([*BUSY, str(core)],)) for _ in range(3)]
    fractions: list[float] = []

    def measure() -> None:
        os.sched_setaffinity(0, {core})  # of this thread
        time.sleep(1.0)
        spare = spare_of(1000.0)
        work(0.1)
        fractions.append(spare.fraction())

    thread = threading.Thread(target=measure)
    for one in (*others, thread):
        one.start()
    for one in (*others, thread):
        one.join()
    assert fractions[0] < 0.1


def test_one_whose_process_takes_all_that_it_may_has_none(spare_of: Make) -> None:
    spare = spare_of(1e-6)
    time.sleep(0.05)
    assert spare.fraction() == 0.0


def test_what_a_thread_polls_for_is_to_spare(spare_of: Make) -> None:
    spare = spare_of(1000.0)
    work(0.2)
    spare.busy_poll.idle_ns += 100_000_000
    assert 0.0 < spare.fraction() <= 0.6


def test_who_may_be_stopped_or_knows_nothing_has_no_time_to_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    spare = make_spare_time(1.0, limited=False)
    assert spare is not None
    spare.close()
    assert make_spare_time(1.0, limited=True) is None
    monkeypatch.setattr(budget, "SCHEDSTAT", Path("/proc/no"))
    assert make_spare_time(1.0, limited=False) is None
