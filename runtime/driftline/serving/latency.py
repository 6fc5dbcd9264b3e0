"""A histogram of request durations."""

from __future__ import annotations

from bisect import bisect_left

BOUNDS_NS = tuple(int(seconds * 1e9) for seconds in (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
))  # fmt: skip


class Latency:
    """Counts requests by duration, at the cost of one binary search a request."""

    __slots__ = ("counts", "sum_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_NS) + 1)
        self.sum_ns = 0

    def observe(self, ns: int) -> None:
        """Count one request."""
        self.counts[bisect_left(BOUNDS_NS, ns)] += 1
        self.sum_ns += ns

    def add(self, other: Latency) -> None:
        """Add the counts of another process."""
        self.counts = [count + added for count, added in zip(self.counts, other.counts, strict=True)]
        self.sum_ns += other.sum_ns
