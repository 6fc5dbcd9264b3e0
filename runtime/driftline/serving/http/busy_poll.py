"""Looking for the next request instead of sleeping, where it comes soon."""

from __future__ import annotations

import asyncio
from time import perf_counter_ns

EMPTY_NS = 20_000
"""Shorter than a turn of the loop in which anything is done, and longer than one in which nothing is."""


class BusyPoll:
    """Keeps the event loop awake for a moment behind a request that came soon after the one before.

    To be woken takes longer than to answer a small request, on a virtual machine above all. Who asks again as
    soon as he has his answer finds the loop awake; where requests come now and then, it sleeps between them.
    The network's drivers do the same (net.core.busy_poll).

    us       microseconds that are soon, and for which the loop is kept awake; 0: never
    idle_ns  nanoseconds of the loop's turns in which it was awake for nothing
    """

    def __init__(self, us: int) -> None:
        self._soon_ns = us * 1_000
        self._left = -self._soon_ns
        self._awake = False
        self._looked = 0
        self.idle_ns = 0

    def left(self, came: int) -> None:
        """A request has been seen to, which came when `came` says, by perf_counter_ns."""
        soon = came - self._left < self._soon_ns
        self._left = perf_counter_ns()
        if soon and not self._awake:
            self._awake = True
            self._looked = self._left
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        now = perf_counter_ns()
        turn, self._looked = now - max(self._looked, self._left), now
        if turn < EMPTY_NS:
            self.idle_ns += turn
        self._awake = now - self._left < self._soon_ns
        if self._awake:  # a loop that has something to do in its next turn doesn't sleep
            asyncio.get_running_loop().call_soon(self._look)
