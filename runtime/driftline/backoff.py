"""How long to wait before a retry."""

from __future__ import annotations

import random

MAX_SECONDS = 60.0
"""The most seconds between two tries."""


def backoff(failures: int, first: float = 1.0, maximum: float = MAX_SECONDS) -> float:
    """Return the seconds to wait after this many failures in a row: 0 after none, `first` after one, then
    twice as long after each, up to `maximum`."""
    return min(maximum, first * 2.0 ** (min(failures, 64) - 1)) if failures > 0 else 0.0


def jittered(seconds: float) -> float:
    """Return a random part of a wait, at least half: tasks that failed together should not retry together."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
