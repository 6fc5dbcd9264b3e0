"""Predicts how long a batch will take."""

from __future__ import annotations

_BUCKETS = 64
_NEW_WEIGHT = 0.125
"""The weight of a new measurement in the moving average."""

_MAX_RATIO = 4.0
"""A measurement counts as at most this multiple of the average."""


class Cost:
    """Learns service times by size, in buckets of a factor of two.

    A size is the total number of elements of all inputs, since dimensions other than rows may vary, too.
    """

    __slots__ = ("_ns",)

    def __init__(self) -> None:
        self._ns = [0.0] * _BUCKETS

    def learn(self, size: int, ns: int) -> None:
        """Record that a batch of `size` took `ns` nanoseconds."""
        bucket = size.bit_length()
        average = self._ns[bucket]
        if average == 0.0:
            self._ns[bucket] = float(ns)
        else:
            # One preempted run must not send the next hundred to a thread.
            self._ns[bucket] = average + _NEW_WEIGHT * (min(ns, _MAX_RATIO * average) - average)

    def predict(self, size: int) -> float:
        """Predict how many nanoseconds a batch of `size` takes; infinity if nothing has been learnt yet.

        An unknown size costs as much as the nearest larger known one; if there is none, the cost grows in
        proportion from the nearest smaller one.
        """
        bucket = size.bit_length()
        if self._ns[bucket]:
            return self._ns[bucket]
        for larger in range(bucket + 1, _BUCKETS):
            if self._ns[larger]:
                return self._ns[larger]
        for smaller in range(bucket - 1, -1, -1):
            if self._ns[smaller]:
                return float(self._ns[smaller] * 2.0 ** (bucket - smaller))
        return float("inf")
