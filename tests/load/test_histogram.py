"""Durations in buckets, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.load.histogram import Histogram

NS = st.one_of(st.integers(0, 600), st.integers(0, 2**41), st.floats(0, 41).map(lambda bits: int(2**bits)))


def filled(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(st.lists(NS, min_size=1, max_size=300), st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 1.0]))
def test_a_quantile_is_numpys_and_at_most_a_128th_more(values: list[int], q: float) -> None:
    exact = int(np.quantile(np.array(values), q, method="inverted_cdf"))
    assert exact <= filled(values).quantile(q) <= exact + exact // 128


@given(st.lists(NS, min_size=1, max_size=100))
def test_the_longest_is_exact_and_the_buckets_hold_all(values: list[int]) -> None:
    histogram = filled(values)
    assert histogram.longest == max(values)
    assert histogram.quantile(1.0) == max(values)
    buckets = list(histogram)
    assert sum(count for _, count in buckets) == histogram.count == len(values)
    assert [upper for upper, _ in buckets] == sorted({upper for upper, _ in buckets})


def test_of_none_it_is_0() -> None:
    assert Histogram().quantile(0.99) == 0


def test_what_takes_longer_than_it_can_tell_is_still_counted() -> None:
    histogram = filled([2**50])
    assert (histogram.count, histogram.longest) == (1, 2**50)
    assert histogram.quantile(0.5) == 2**42 - 1


@pytest.mark.parametrize("value", [0, 1, 255, 256, 257, 511, 512, 2**20 - 1, 2**20, 2**41])
def test_the_ends_of_buckets(value: int) -> None:
    (upper, count), *others = list(filled([value, 2**42 - 1]))
    assert (count, len(others)) == (1, 1)
    assert value <= upper <= value + value // 128


def test_many_at_once() -> None:
    histogram = Histogram()
    histogram.add(1000, 99)
    histogram.add(9000)
    assert histogram.count == 100
    assert histogram.quantile(0.99) <= 1008
    assert histogram.quantile(0.995) == 9000
