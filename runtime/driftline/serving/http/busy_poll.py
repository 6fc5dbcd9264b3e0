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
        self._window_ns = us * 1_000
        self._last_handled_ns = -self._window_ns
        self._awake = False
        self._turn_start_ns = 0
        self.idle_ns = 0

    def record_handled(self, arrived_ns: int) -> None:
        """Record that a request that came at `arrived_ns` (perf_counter_ns) has been handled."""
        is_soon = arrived_ns - self._last_handled_ns < self._window_ns
        self._last_handled_ns = perf_counter_ns()
        if is_soon and not self._awake:
            self._awake = True
            self._turn_start_ns = self._last_handled_ns
            asyncio.get_running_loop().call_soon(self._poll)

    def _poll(self) -> None:
        now = perf_counter_ns()
        turn_ns, self._turn_start_ns = now - max(self._turn_start_ns, self._last_handled_ns), now
        if turn_ns < EMPTY_NS:
            self.idle_ns += turn_ns
        self._awake = now - self._last_handled_ns < self._window_ns
        if self._awake:  # a loop with a callback scheduled doesn't sleep
            asyncio.get_running_loop().call_soon(self._poll)
