"""A histogram of durations with a bounded number of buckets.

The buckets are those of HdrHistogram (http://hdrhistogram.org): each is as wide as a power of two divided by
128, so that a percentile is at most 1/128, or 0.8 %, above the exact value, from nanoseconds to hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

_BITS = 7
_STEPS = 2**_BITS
_MAX_BITS = 42
"""Longer durations, of 73 minutes or more, are counted as this long."""


class Histogram:
    """Counts of durations in nanoseconds; `longest` is exact."""

    __slots__ = ("_counts", "count", "longest")

    def __init__(self) -> None:
        self._counts = [0] * ((_MAX_BITS - _BITS + 1) * _STEPS)
        self.count = 0
        self.longest = 0

    def add(self, ns: int, count: int = 1) -> None:
        """Count a duration, 0 or more."""
        if ns > self.longest:
            self.longest = ns
        ns = min(ns, 2**_MAX_BITS - 1)
        shift = max(0, ns.bit_length() - _BITS - 1)
        self._counts[(shift << _BITS) + (ns >> shift)] += count
        self.count += count

    def quantile(self, q: float) -> int:
        """Return the least duration, in nanoseconds, that a share `q` of all did not exceed; 0 for none.

        It is the upper end of its bucket: at most 1/128 more than the exact value.
        """
        rank, seen = max(1, ceil(q * self.count)), 0
        for index, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                return min(_upper(index), self.longest)
        return self.longest

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Iterate over the non-empty buckets, ascending: the upper end and the count of each."""
        return (
            (min(_upper(index), self.longest), count) for index, count in enumerate(self._counts) if count
        )


def _upper(index: int) -> int:
    """Return the largest duration of a bucket."""
    shift = max(0, (index >> _BITS) - 1)
    return ((index - (shift << _BITS) + 1) << shift) - 1
