"""How much of a thread's time some work may take."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import random
from time import perf_counter, process_time

from driftline.serving.busy_poll import BusyPoll

SLACK_SECONDS = 0.1
"""The size of the bucket, as seconds in which it fills: nothing is refused while no more is missing. If twice
as much is missing, everything is; between the two a part, by chance: whoever comes first in a batch has no
better chance than the last."""

LOOK_SECONDS = 0.05
"""Seconds between two looks at how much time there is to spare, at the least."""

SPARE_PART = 0.5
"""The part of the time to spare that work may take besides its share."""

SCHEDULED = Path("/proc/thread-self/schedstat")
"""What Linux knows of a thread: nanoseconds for which it has run, and for which it has waited for a core."""


def no_time() -> float:
    """See SpareTime.part, of a thread that has none."""
    return 0.0


class Budget:
    """A share of the time that passes, spent by pieces of work; times are in seconds, of any clock.

    A token bucket: it fills by `share` seconds of work a second, and each piece takes out what it took. It is
    kept as the time at which it will be full again.

    share  above 0; of 1 nothing is ever refused
    spare  gives the part of the time that nobody needs, of which half may be spent besides
    """

    def __init__(self, share: float, spare: Callable[[], float] = no_time) -> None:
        self._least = self._share = share
        self._spare = spare
        self._next_look = 0.0
        self._full_at = 0.0

    def allows(self, now: float) -> bool:
        """Whether a piece of work may be done."""
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._share = min(1.0, self._least + SPARE_PART * self._spare())
        return self._full_at - now <= SLACK_SECONDS * (1.0 + random())  # noqa: S311

    def spend(self, begin: float, end: float) -> None:
        """Say when a piece was done."""
        self._full_at = max(self._full_at, begin) + (end - begin) / self._share


class SpareTime:
    """How much time the thread that makes this has to spare, and the process of the cores that it may use.

    cores      of the process
    busy_poll  of the thread: while that keeps it awake it could as well sleep
    """

    def __init__(self, cores: float) -> None:
        self._cores = cores
        self.busy_poll = BusyPoll(0)
        self._file = SCHEDULED.open("rb", buffering=0)  # of this thread, whoever reads it
        self._seen = self._look()

    def close(self) -> None:
        """Ask nothing any more."""
        self._file.close()

    def part(self) -> float:
        """Of the time since this was last asked, the part in which the thread had nothing to do, or the cores
        were free if that is less: from 0 to 1."""
        before, self._seen = self._seen, self._look()
        passed, idle, thread, process = (now - then for now, then in zip(self._seen, before, strict=True))
        busy = max(thread - idle, (process - idle) / self._cores)
        return min(1.0, max(0.0, 1.0 - busy / passed)) if passed > 0.0 else 0.0

    def _look(self) -> tuple[float, float, float, float]:
        """The time; for how long the thread was awake for nothing, for how long it has run or wanted to, and
        for how long all threads together have run."""
        ran, waited, _ = os.pread(self._file.fileno(), 128, 0).split()
        wanted = (int(ran) + int(waited)) / 1e9
        return perf_counter(), self.busy_poll.idle_ns / 1e9, wanted, process_time()


def spare_time(cores: float, limited: bool) -> SpareTime | None:
    """That of this thread; None where nobody can say: what a control group's `limited` time is taken by,
    processes beside this one among them, is not to be seen here, nor are threads on every kernel."""
    try:
        return None if limited else SpareTime(cores)
    except OSError:
        return None
