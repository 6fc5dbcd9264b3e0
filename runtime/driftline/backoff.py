"""How long to wait before what has failed is tried again."""

from __future__ import annotations

import random

LONGEST = 60.0
"""Seconds between two tries, at the most."""


def backoff(failures: int, first: float = 1.0, longest: float = LONGEST) -> float:
    """Seconds to wait after so many failures one after the other: none after none, `first` after one, and
    twice as long after each more."""
    return min(longest, first * 2.0 ** (min(failures, 64) - 1)) if failures > 0 else 0.0


def jittered(seconds: float) -> float:
    """Half of a wait to all of it, by chance: many that failed together do not try again together."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
