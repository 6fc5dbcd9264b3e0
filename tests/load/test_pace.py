"""The accounting of both loops, in virtual time, against a reference that is obviously right."""

from __future__ import annotations

from collections import deque
from itertools import cycle, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.load.pace import GRACE_NS, SECOND, UNSENT, Answer, ClosedLoop, OpenLoop, Outcome, drive

MS = SECOND // 1000
Stall = tuple[int, int]
"""When nothing is served: from, to."""


def served(begin: int, service: int, stall: Stall) -> int:
    """When what is begun then is done."""
    if stall[0] <= begin < stall[1]:
        begin = stall[1]
    done = begin + service
    return done + stall[1] - stall[0] if begin < stall[0] < done else done


class Simulated:
    """A server that serves one request after the other, behind so many connections; time is what we say."""

    def __init__(self, connections: int, services: list[int], stall: Stall) -> None:
        self._time, self._connections, self._stall = 0, connections, stall
        self._services = cycle(services)
        self._flying: deque[tuple[int, int]] = deque()
        self._done = 0

    @property
    def has_free(self) -> bool:
        return len(self._flying) < self._connections

    @property
    def has_pending(self) -> bool:
        return bool(self._flying)

    def now(self) -> int:
        return self._time

    def send(self, due: int) -> None:
        assert self.has_free
        self._done = served(max(self._time, self._done), next(self._services), self._stall)
        self._flying.append((due, self._done))

    def wait(self, until: int) -> list[Answer]:
        until = max(until, self._time)
        if not self._flying or self._flying[0][1] > until:
            self._time = until
            return []
        due, self._time = self._flying.popleft()
        return [Answer(due, self._time, None)]


class Recorded(Outcome):
    """A outcome that also knows every single duration."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[int] = []

    def add(self, answer: Answer) -> None:
        super().add(answer)
        self.all.append(answer.ended - answer.due)


def naive_open(
    rate: float, length: int, connections: int, services: list[int], stall: Stall
) -> tuple[list[int], int]:
    """Every duration of an open loop, and how many requests were never sent."""
    dues = []
    while (due := int(len(dues) * SECOND / rate)) < length:
        dues.append(due)
    dones: list[int] = []
    for due, service in zip(dues, islice(cycle(services), len(dues)), strict=True):
        sent = max(due, dones[-connections]) if len(dones) >= connections else due
        if sent >= length + GRACE_NS:
            break
        dones.append(served(max([sent, *dones[-1:]]), service, stall))
    return [done - due for done, due in zip(dones, dues, strict=False)], len(dues) - len(dones)


@given(
    rate=st.floats(0.5, 900),
    length=st.integers(1, 2000).map(lambda ms: ms * MS),
    connections=st.integers(1, 8),
    services=st.lists(st.integers(1, 400 * MS), min_size=1, max_size=5),
    stall=st.tuples(st.integers(0, 2000 * MS), st.integers(0, 1500 * MS)),
)
def test_an_open_loop_counts_from_when_requests_were_due(
    rate: float, length: int, connections: int, services: list[int], stall: Stall
) -> None:
    stall = stall[0], stall[0] + stall[1]
    outcome = Recorded()
    drive(OpenLoop(0, length, rate), Simulated(connections, services, stall), outcome, lambda: None)
    expected, unsent = naive_open(rate, length, connections, services, stall)
    assert outcome.all == expected
    assert outcome.failures[UNSENT] == outcome.failed == unsent
    assert outcome.answered == len(expected)


@given(
    connections=st.integers(1, 8),
    length=st.integers(1, 1000).map(lambda ms: ms * MS),
    services=st.lists(st.integers(1 * MS, 50 * MS), min_size=1, max_size=5),
)
def test_a_closed_loop_keeps_every_connection_asking(
    connections: int, length: int, services: list[int]
) -> None:
    outcome = Recorded()
    drive(ClosedLoop(0, length), Simulated(connections, services, (0, 0)), outcome, lambda: None)
    dones: list[int] = []
    sents: list[int] = []
    for service in cycle(services):
        sent = dones[-connections] if len(dones) >= connections else 0
        if sent >= length:
            break
        sents.append(sent)
        dones.append(max([sent, *dones[-1:]]) + service)
    assert outcome.all == [done - sent for sent, done in zip(sents, dones, strict=True)]


def test_a_stall_shows_in_the_tail_of_an_open_loop_and_hides_in_a_closed_one() -> None:
    second_of_stall = 5 * SECOND, 6 * SECOND
    opened, closed = Outcome(), Outcome()
    drive(OpenLoop(0, 10 * SECOND, 500), Simulated(64, [MS], second_of_stall), opened, lambda: None)
    drive(ClosedLoop(0, 10 * SECOND), Simulated(1, [MS], second_of_stall), closed, lambda: None)
    # Half the machine's capacity: 500 were due in the stall, and 500 more until it had caught up.
    assert opened.ms(0.5) < 2
    assert opened.ms(0.85) > 100
    assert opened.ms(0.99) > 900
    assert closed.ms(0.999) < 2
    assert closed.ms(1.0) > 1000


def test_an_interrupt_leaves_what_was_counted() -> None:
    outcome, looks = Outcome(), iter(range(4))

    def watch() -> None:
        if next(looks) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(OpenLoop(0, 10 * SECOND, 100), Simulated(4, [MS], (0, 0)), outcome, watch)
    assert outcome.answered == 75
    assert round(outcome.per_second) == 100
