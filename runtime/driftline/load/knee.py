"""The highest rate that a server sustains."""

from __future__ import annotations

from collections.abc import Callable

LEAST, MOST = 1.0, 1e6
"""Bounds of the search, in requests a second."""


def knee(
    meets: Callable[[float], bool], first: float, factor: float = 2.0, precision: float = 0.05
) -> float | None:
    """Find the highest rate that meets a target, to within a share of `precision`.

    The rate is raised by `factor` until it misses, or lowered until it meets; then the interval between the
    last two is bisected. A rate misses if it misses twice: once may be chance. The result is uncertain for a
    server that meets a target at a rate above one where it misses.

    meets   measures at a rate
    first   rate to start with
    factor  of the first steps; more than 1

    Returns None if the target is missed at one request a second.
    """

    def good(rate: float) -> bool:
        return meets(rate) or meets(rate)

    rate = min(max(first, LEAST), MOST)
    low, high = None, None
    while low is None or high is None:
        if good(rate):
            low = rate
            if rate >= MOST:
                return rate
            rate = min(rate * factor, MOST) if high is None else rate
        else:
            high = rate
            if rate <= LEAST:
                return None
            rate = max(rate / factor, LEAST) if low is None else rate
    while high > low * (1 + precision):
        rate = (low * high) ** 0.5
        if good(rate):
            low = rate
        else:
            high = rate
    return low
