"""How much of a thread's time some work may take."""

from __future__ import annotations

import resource
from collections.abc import Callable
from random import random
from time import perf_counter, process_time

from driftline.serving.busy_poll import BusyPoll

SLACK_SECONDS = 0.1
"""Of time that has to pass before what was spent is made up for: so much is never refused. At twice of it all
is, and between the two a part: whoever comes first in a batch has no better chance than the last."""

LOOK_SECONDS = 0.05
"""Between two looks at how much time there is to spare, at the least."""

SPARE_PART = 0.5
"""What may be taken of the time that nobody needs: more of them would leave a thread that is never idle."""

SLEEPS = 100.0
"""Times a second that a thread sleeps at the least, if it has time to spare. One that never does and has not
run all the time was not let to: others have the core, or its group has used up what it may."""


def no_spare_time() -> float:
    """See SpareTime.part, of a thread that never sleeps."""
    return 0.0


class Budget:
    """A share of the time that passes, spent by pieces of work; times are in seconds, of any clock.

    share  above 0; of 1 nothing is ever refused
    spare  gives the part of the time that nobody needs, of which half may be spent besides
    """

    def __init__(self, share: float, spare: Callable[[], float] = no_spare_time) -> None:
        self._least = self._share = share
        self._spare = spare
        self._next_look = 0.0
        self._even = 0.0  # when what was spent is no more than the share of the time since it began

    def allows(self, now: float) -> bool:
        """Whether a piece of work may be done."""
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._share = min(1.0, self._least + SPARE_PART * self._spare())
        return self._even - now <= SLACK_SECONDS * (1.0 + random())  # noqa: S311

    def spend(self, begin: float, end: float) -> None:
        """Say when a piece was done."""
        self._even = max(self._even, begin) + (end - begin) / self._share


class SpareTime:
    """How much time the thread that makes this has to spare, and the process the cores that it may use.

    cores      of the process
    busy_poll  of the thread: while that keeps it awake it could as well sleep
    """

    def __init__(self, cores: float) -> None:
        self._cores = cores
        self.busy_poll = BusyPoll(0)
        self._seen = self._look()

    def part(self) -> float:
        """The part of the time since this was last asked in which the thread slept, or the cores were free if
        that is less: from 0, none, to 1."""
        before, self._seen = self._seen, self._look()
        passed, sleeps, idle, thread, process = (
            now - then for now, then in zip(self._seen, before, strict=True)
        )
        if sleeps < SLEEPS * passed:  # what it has not run for may have been others'
            return max(0.0, idle / passed)
        return max(0.0, 1.0 - max(thread - idle, (process - idle) / self._cores) / passed)

    def _look(self) -> tuple[float, int, float, float, float]:
        """The time; how often the thread has slept, how long it was idle and awake, how long it has run, and
        all threads together."""
        used = resource.getrusage(resource.RUSAGE_THREAD)
        idle = self.busy_poll.idle_ns / 1e9
        return perf_counter(), used.ru_nvcsw, idle, used.ru_utime + used.ru_stime, process_time()
