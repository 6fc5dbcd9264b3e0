"""The highest rate that a server sustains."""

from __future__ import annotations

from collections.abc import Callable

MIN_RATE, MAX_RATE = 1.0, 1e6
"""Bounds of the search, in requests a second."""


def knee(
    meets: Callable[[float], bool], start: float, factor: float = 2.0, precision: float = 0.05
) -> float | None:
    """Find the highest rate that meets a target, to within a share of `precision`.

    The rate is raised by `factor` until it misses, or lowered until it meets; then the interval between the
    last two is bisected. A rate misses if it misses twice: once may be chance. The result is uncertain for a
    server that meets a target at a rate above one where it misses.

    meets   measures at a rate
    start   rate to start with
    factor  of the first steps; more than 1

    Returns None if the target is missed at one request a second.
    """

    def passes(rate: float) -> bool:
        return meets(rate) or meets(rate)

    rate = min(max(start, MIN_RATE), MAX_RATE)
    low, high = None, None
    while low is None or high is None:
        if passes(rate):
            low = rate
            if rate >= MAX_RATE:
                return rate
            rate = min(rate * factor, MAX_RATE) if high is None else rate
        else:
            high = rate
            if rate <= MIN_RATE:
                return None
            rate = max(rate / factor, MIN_RATE) if low is None else rate
    while high > low * (1 + precision):
        rate = (low * high) ** 0.5
        if passes(rate):
            low = rate
        else:
            high = rate
    return low
