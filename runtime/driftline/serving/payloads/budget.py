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

MEASURE_SECONDS = 0.05
"""Least seconds between two measurements of the spare time."""

SPARE_FRACTION = 0.5
"""Fraction of the spare time that work may take in addition to its share."""

SCHEDSTAT = Path("/proc/thread-self/schedstat")
"""Linux's file for a thread: nanoseconds that it ran and that it waited for a core."""


def no_spare_time() -> float:
    """Stand in for SpareTime.fraction: no spare time."""
    return 0.0


class Budget:
    """A token bucket of time for pieces of work; times are in seconds, by any clock.

    It fills by `share` seconds of work a second, and each piece takes out its duration. The state is the time
    at which the bucket will be full again.

    share           above 0; with 1 nothing is ever refused
    spare_fraction  returns the fraction of the time that the thread is idle, of which SPARE_FRACTION may be
                    spent, too
    """

    def __init__(self, share: float, spare_fraction: Callable[[], float] = no_spare_time) -> None:
        self._base_share = self._share = share
        self._spare_fraction = spare_fraction
        self._next_measurement = 0.0
        self._full_at = 0.0

    def allows(self, now: float) -> bool:
        """Whether a piece of work may be done now."""
        if now >= self._next_measurement:
            self._next_measurement = now + MEASURE_SECONDS
            self._share = min(1.0, self._base_share + SPARE_FRACTION * self._spare_fraction())
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
        self._file = SCHEDSTAT.open("rb", buffering=0)  # of this thread, whichever thread reads it
        self._last = self._measure()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def fraction(self) -> float:
        """Return the spare fraction, from 0 to 1, of the time since the last call.

        It is the idle fraction of the thread or of the cores, whichever is less.
        """
        previous, self._last = self._last, self._measure()
        differences = (now - then for now, then in zip(self._last, previous, strict=True))
        elapsed, idle, thread, process = differences
        busy = max(thread - idle, (process - idle) / self._cores)
        return min(1.0, max(0.0, 1.0 - busy / elapsed)) if elapsed > 0.0 else 0.0

    def _measure(self) -> tuple[float, float, float, float]:
        """Return the time, and for how long the thread has polled, the thread has run or waited for a core,
        and all threads together have run."""
        ran, waited, _ = os.pread(self._file.fileno(), 128, 0).split()
        runnable = (int(ran) + int(waited)) / 1e9
        return perf_counter(), self.busy_poll.idle_ns / 1e9, runnable, process_time()


def make_spare_time(cores: float, limited: bool) -> SpareTime | None:
    """Return the SpareTime of this thread; None where it can't be measured.

    limited  whether a control group limits CPU time: other processes may use it up, unseen here
    """
    try:
        return None if limited else SpareTime(cores)
    except OSError:
        return None
