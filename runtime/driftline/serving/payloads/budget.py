"""Limits the time that some work takes from a thread."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import random
from time import perf_counter, process_time

from driftline.serving.http.busy_poll import BusyPoll

SLACK_SECONDS = 0.1
"""The size of the bucket, in seconds that it takes to fill. While no more than this is missing, no work is
refused; if twice as much is missing, all is. In between, a random part is refused, so that the first of a
batch has no better chance than the last."""

LOOK_SECONDS = 0.05
"""Least seconds between two measurements of the time to spare."""

SPARE_PART = 0.5
"""Part of the spare time that work may take in addition to its share."""

SCHEDULED = Path("/proc/thread-self/schedstat")
"""Linux's file for a thread: nanoseconds that it ran and that it waited for a core."""


def no_time() -> float:
    """Stand in for SpareTime.part: no spare time."""
    return 0.0


class Budget:
    """A token bucket of time for pieces of work; times are in seconds, by any clock.

    It fills by `share` seconds of work a second, and each piece takes out its duration. The state is the time
    at which the bucket will be full again.

    share  above 0; with 1 nothing is ever refused
    spare  returns the part of the time that the thread is idle; SPARE_PART of it may be spent, too
    """

    def __init__(self, share: float, spare: Callable[[], float] = no_time) -> None:
        self._least = self._share = share
        self._spare = spare
        self._next_look = 0.0
        self._full_at = 0.0

    def allows(self, now: float) -> bool:
        """Whether a piece of work may be done now."""
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._share = min(1.0, self._least + SPARE_PART * self._spare())
        return self._full_at - now <= SLACK_SECONDS * (1.0 + random())  # noqa: S311

    def spend(self, begin: float, end: float) -> None:
        """Take out the time of a piece of work done from `begin` to `end`."""
        self._full_at = max(self._full_at, begin) + (end - begin) / self._share


class SpareTime:
    """Measures the spare time of the thread that makes this object and of the process's cores.

    cores      number of cores of the process
    busy_poll  the thread's BusyPoll, whose polling counts as spare time
    """

    def __init__(self, cores: float) -> None:
        self._cores = cores
        self.busy_poll = BusyPoll(0)
        self._file = SCHEDULED.open("rb", buffering=0)  # of this thread, whichever thread reads it
        self._seen = self._measure()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def part(self) -> float:
        """Return the spare part, from 0 to 1, of the time since the last call.

        It is the idle part of the thread or of the cores, whichever is less.
        """
        before, self._seen = self._seen, self._measure()
        passed, idle, thread, process = (now - then for now, then in zip(self._seen, before, strict=True))
        busy = max(thread - idle, (process - idle) / self._cores)
        return min(1.0, max(0.0, 1.0 - busy / passed)) if passed > 0.0 else 0.0

    def _measure(self) -> tuple[float, float, float, float]:
        """Return the time, and for how long the thread has polled, the thread has run or waited for a core,
        and all threads together have run."""
        ran, waited, _ = os.pread(self._file.fileno(), 128, 0).split()
        wanted = (int(ran) + int(waited)) / 1e9
        return perf_counter(), self.busy_poll.idle_ns / 1e9, wanted, process_time()


def spare_time(cores: float, limited: bool) -> SpareTime | None:
    """Return the SpareTime of this thread; None where it can't be measured.

    limited  whether a control group limits CPU time: other processes may use it up, unseen here
    """
    try:
        return None if limited else SpareTime(cores)
    except OSError:
        return None
