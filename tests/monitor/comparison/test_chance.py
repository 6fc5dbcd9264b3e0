"""What distances are by chance, against what chance makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from driftline.monitor.comparison import statistics

OF_SHARES = ["psi", "jensen_shannon", "hellinger", "total_variation", "l_infinity"]

REPEATS = 200


def even(bins: int) -> np.ndarray:
    return np.full(bins, 1 / bins)


def falling(bins: int) -> np.ndarray:
    shares = 1 / np.arange(1, bins + 1) ** 1.3
    return shares / shares.sum()


def measured(shares: np.ndarray, m: int, n: int) -> dict[str, tuple[float, float]]:
    """The mean of each distance between samples of m and n rows, and that of its value by chance."""
    random = np.random.default_rng(len(shares))
    distances = statistics.distances(
        random.multinomial(m, shares, REPEATS), random.multinomial(n, shares, REPEATS)
    )
    return {
        name: (np.mean([one.value for one in each]), np.mean([one.null or 0 for one in each]))
        for name, each in distances.items()
    }


@pytest.mark.parametrize("shares", [even, falling])
@pytest.mark.parametrize(
    ("bins", "m", "n"),
    [
        (2, 10_000, 500),
        (3, 2_000, 2_000),
        (10, 10_000, 100),
        (36, 10_000, 20),
        (36, 100_000, 5_000),
        (36, 300, 300),
        (36, 200, 10_000),
        (300, 10_000, 100),
        (1_000, 10_000, 1_000),
        (1_000, 100_000, 5_000),
    ],
)
def test_distances_are_by_chance_what_they_are_when_nothing_has_changed(
    bins: int, m: int, n: int, shares: object
) -> None:
    assert callable(shares)
    for name, (value, null) in measured(shares(bins), m, n).items():
        assert null == pytest.approx(value, rel=0.13 if name == "l_infinity" else 0.1), name


def test_the_largest_difference_of_many_rare_shares_is_a_bit_too_much() -> None:
    value, null = measured(even(1_000), 10_000, 20)["l_infinity"]
    assert null == pytest.approx(value, rel=0.4)


@pytest.mark.parametrize("name", OF_SHARES)
def test_by_chance_is_the_mean_over_all_ways_to_deal_the_rows_out_anew(name: str) -> None:
    p, q = np.array([[30, 7, 2, 0, 1, 1]]), np.array([[9, 0, 1, 1, 0, 2]])
    null = statistics.distances(p, q)[name][0].null
    rows = np.repeat(np.arange(6), (p + q)[0])
    random = np.random.default_rng(0)
    dealt = np.array([np.bincount(random.permutation(rows)[: q.sum()], minlength=6) for _ in range(5_000)])
    distances = statistics.distances(p + q - dealt, dealt)[name]
    # PSI smooths where a bin is empty, as here in about all deals.
    assert null == pytest.approx(np.mean([one.value for one in distances]), rel=0.1)


def test_one_row_and_one_bin_have_values_by_chance() -> None:
    for p, q in (([9, 0], [0, 1]), ([9, 3], [1, 0]), ([9], [4]), ([1], [1]), ([0, 5], [0, 7])):
        for each in statistics.distances(np.array([p]), np.array([q])).values():
            assert each[0].null is not None
            assert 0 <= each[0].null < 4
    alone = statistics.distances(np.array([[9]]), np.array([[4]]))
    assert [each[0].null for each in alone.values()] == pytest.approx([0] * 5)
