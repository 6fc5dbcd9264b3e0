from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.batching.cost import Cost


def test_nothing_is_known_at_first() -> None:
    assert Cost().predict(1) == inf


def test_what_was_seen_is_expected_again() -> None:
    cost = Cost()
    cost.learn(100, 5_000)
    assert cost.predict(100) == 5_000
    assert cost.predict(64) == cost.predict(127) == 5_000


def test_smaller_costs_no_more_than_the_nearest_larger() -> None:
    cost = Cost()
    cost.learn(100, 5_000)
    cost.learn(1_000, 50_000)
    assert cost.predict(10) == 5_000
    assert cost.predict(300) == 50_000
    assert cost.predict(0) == 5_000


def test_larger_costs_a_multiple_of_the_nearest_smaller() -> None:
    cost = Cost()
    cost.learn(1, 1_000)
    cost.learn(8, 2_000)
    assert cost.predict(16) == 4_000
    assert cost.predict(32) == 8_000
    assert cost.predict(64) == 16_000


def test_it_follows_a_change() -> None:
    cost = Cost()
    cost.learn(8, 1_000)
    for _ in range(100):
        cost.learn(8, 3_000)
    assert cost.predict(8) == pytest.approx(3_000, rel=0.01)
    for _ in range(100):
        cost.learn(8, 500)
    assert cost.predict(8) == pytest.approx(500, rel=0.01)


def test_one_outlier_changes_little() -> None:
    cost = Cost()
    cost.learn(8, 1_000)
    cost.learn(8, 1_000_000_000)
    assert cost.predict(8) < 1_500


def test_no_time_at_all_is_nothing_learnt() -> None:
    cost = Cost()
    cost.learn(8, 0)
    assert cost.predict(8) == inf
    cost.learn(8, 1_000)
    assert cost.predict(8) == 1_000


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(1, 10**12)), min_size=1), st.integers(0, 2**40))
def test_a_prediction_stays_within_what_was_seen(seen: list[tuple[int, int]], size: int) -> None:
    cost = Cost()
    for seen_size, ns in seen:
        cost.learn(seen_size, ns)
    shortest, longest = min(ns for _, ns in seen), max(ns for _, ns in seen)
    assert cost.predict(size) >= shortest * 0.999
    if size <= max(seen_size for seen_size, _ in seen):
        assert cost.predict(size) <= longest * 1.001
