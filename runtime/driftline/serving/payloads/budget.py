"""How much of a thread's time some work may take."""

from __future__ import annotations

from random import random

SLACK_SECONDS = 0.1
"""Of time that has to pass before what was spent is made up for: so much is never refused. At twice of it all
is, and between the two a part: whoever comes first in a batch has no better chance than the last."""


class Budget:
    """A share of the time that passes, spent by pieces of work; times are in seconds, of any clock.

    share  above 0; of 1 nothing is ever refused
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._even = 0.0  # when what was spent is no more than the share of the time since it began

    def allows(self, now: float) -> bool:
        """Whether a piece of work may be done."""
        return self._even - now <= SLACK_SECONDS * (1.0 + random())  # noqa: S311

    def spend(self, begin: float, end: float) -> None:
        """Say when a piece was done."""
        self._even = max(self._even, begin) + (end - begin) / self._share
