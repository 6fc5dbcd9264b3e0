"""What the proxy counts, where the agent's process reads it: words of memory that both map."""

from __future__ import annotations

import mmap
import os

NAMES = (
    "answers_1xx", "answers_2xx", "answers_3xx", "answers_4xx", "answers_5xx",
    "unreachable", "timeout", "broken", "gone", "malformed",
    "clients", "upstreams",
    "copied", "dropped_queue", "dropped_large", "dropped_status", "dropped_away", "dropped_lost",
    "taken",
)  # fmt: skip
"""answers_*    to clients, by status
unreachable  requests for which there was no connection
timeout      that were not answered in time
broken       whose connection broke before the answer was there
gone         whose client left first
malformed    that were no HTTP
clients      connections that are open now; upstreams: likewise
copied       exchanges handed to the agent
dropped_*    exchanges that were not: too many wait, a body is too large, not answered with 200, no agent;
             lost are those that were on their way to an agent that has ended
taken        of the copied ones, those that an agent has read: the agent adds to this, the proxy to all others
"""

_WORD = 8


class Tally:
    """Counters by name; only one process may add to each.

    descriptor  of memory that `Tally.new` has made
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._words = memoryview(mmap.mmap(descriptor, _WORD * len(NAMES))).cast("q")

    @classmethod
    def new(cls) -> Tally:
        """Of zeros."""
        descriptor = os.memfd_create("driftline-tally", 0)
        os.ftruncate(descriptor, _WORD * len(NAMES))
        return cls(descriptor)

    def add(self, name: str, number: int = 1) -> None:
        """Count."""
        self._words[_PLACES[name]] += number

    def __getitem__(self, name: str) -> int:
        return self._words[_PLACES[name]]


_PLACES = {name: place for place, name in enumerate(NAMES)}
