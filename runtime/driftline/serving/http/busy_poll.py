"""Keep the event loop awake when the next request is likely to come soon."""

from __future__ import annotations

import asyncio
from time import perf_counter_ns

EMPTY_NS = 20_000
"""A turn of the loop that does any work takes longer than this; an empty one is shorter."""


class BusyPoll:
    """Keeps the event loop awake for a moment after a request that came soon after the previous one.

    Waking takes longer than answering a small request, above all on a virtual machine. A client that sends
    its next request as soon as it has a response finds the loop awake; where requests are rare, the loop
    sleeps between them. Network drivers do the same (net.core.busy_poll).

    us       a request within so many microseconds is soon, and the loop stays awake for as long; 0: never
    idle_ns  total nanoseconds of the turns in which the loop was awake for nothing
    """

    def __init__(self, us: int) -> None:
        self._soon_ns = us * 1_000
        self._left = -self._soon_ns
        self._awake = False
        self._turn_began = 0
        self.idle_ns = 0

    def left(self, came: int) -> None:
        """Record that a request that came at `came` (perf_counter_ns) has been handled."""
        soon = came - self._left < self._soon_ns
        self._left = perf_counter_ns()
        if soon and not self._awake:
            self._awake = True
            self._turn_began = self._left
            asyncio.get_running_loop().call_soon(self._poll)

    def _poll(self) -> None:
        now = perf_counter_ns()
        turn, self._turn_began = now - max(self._turn_began, self._left), now
        if turn < EMPTY_NS:
            self.idle_ns += turn
        self._awake = now - self._left < self._soon_ns
        if self._awake:  # a loop with a callback scheduled doesn't sleep
            asyncio.get_running_loop().call_soon(self._poll)
