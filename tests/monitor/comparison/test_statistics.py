"""Every distance against scipy or a plain reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency, ks_2samp

from driftline.monitor.comparison import statistics
from driftline.monitor.comparison.statistics import Statistic

Counts = tuple[np.ndarray, np.ndarray]

Distance = Callable[..., list[Statistic]]


def named(name: str) -> Distance:
    """One of the distances of shares."""
    return lambda p, q: statistics.distances(p, q)[name]


OF_SHARES = ["psi", "jensen_shannon", "hellinger", "total_variation", "l_infinity"]

DISTANCES = [*map(named, OF_SHARES), statistics.kolmogorov_smirnov, statistics.chi_square]


@st.composite
def counts(draw: st.DrawFn, least: int = 0) -> Counts:
    """Counts of the same bins, both of one row at least."""
    bins = draw(st.integers(2, 40))
    bin_counts = st.lists(st.integers(least, 500), min_size=bins, max_size=bins)
    p, q = np.array(draw(bin_counts)), np.array(draw(bin_counts))
    assume(p.sum() and q.sum())
    return p, q


def one(distance: Callable[..., list[Statistic]], *columns: object) -> Statistic:
    """The statistic of one column, of what would be one row of each argument."""
    (statistic,) = distance(*(np.asarray(column)[None] for column in columns))
    return statistic


@given(counts(least=1))
def test_psi_is_its_formula(both: Counts) -> None:
    p, q = both
    a, b = p / p.sum(), q / q.sum()
    statistic = one(named("psi"), p, q)
    assert statistic.value == pytest.approx(sum((b - a) * np.log(b / a)))
    assert statistic.null == pytest.approx((len(p) - 1) * (1 / p.sum() + 1 / q.sum()))


@given(counts())
def test_jensen_shannon_is_scipys(both: Counts) -> None:
    p, q = both
    assert one(named("jensen_shannon"), p, q).value == pytest.approx(jensenshannon(p, q), abs=1e-7)


@given(counts())
def test_kolmogorov_smirnov_is_scipys_on_values_at_the_edges(both: Counts) -> None:
    p, q = both
    places = np.arange(len(p))
    oracle = ks_2samp(np.repeat(places, p), np.repeat(places, q), method="asymp")
    statistic = one(statistics.kolmogorov_smirnov, p, q)
    assert statistic.value == pytest.approx(oracle.statistic, abs=1e-12)
    m, n = p.sum(), q.sum()
    if min(m, n) > 1000:
        assert statistic.p == pytest.approx(oracle.pvalue, abs=0.02)
    assert 0 <= (statistic.p or 0) <= 1


@given(counts(least=20))
def test_chi_square_is_scipys(both: Counts) -> None:
    p, q = both
    assume(((p + q) * min(p.sum(), q.sum()) / (p.sum() + q.sum()) >= 5).all())
    oracle = chi2_contingency(np.array([p, q]), correction=False)
    statistic = one(statistics.chi_square, p, q)
    assert statistic.value == pytest.approx(oracle.statistic, rel=1e-9, abs=1e-9)
    assert statistic.p == pytest.approx(oracle.pvalue, rel=1e-6, abs=1e-12)
    assert statistic.null == oracle.dof


def test_chi_square_pools_bins_of_few_rows() -> None:
    p, q = np.array([500, 400, 6, 2, 0]), np.array([450, 420, 3, 0, 1])
    oracle = chi2_contingency(np.array([[500, 400, 8], [450, 420, 4]]), correction=False)
    assert one(statistics.chi_square, p, q).value == pytest.approx(oracle.statistic)
    assert one(statistics.chi_square, p, q).null == 2


def test_chi_square_takes_a_pool_of_few_rows_with_the_next_bin() -> None:
    p, q = np.array([500, 400, 200, 1, 2, 0]), np.array([450, 420, 180, 3, 0, 1])
    oracle = chi2_contingency(np.array([[500, 400, 203], [450, 420, 184]]), correction=False)
    assert one(statistics.chi_square, p, q).value == pytest.approx(oracle.statistic)
    assert one(statistics.chi_square, p, q).null == 2
    alone = one(statistics.chi_square, np.array([9_990, 10]), np.array([99, 1]))
    assert (alone.value, alone.null, alone.p) == (0, 0, 1)


@given(counts())
def test_hellinger_total_variation_and_l_infinity_are_their_formulas(both: Counts) -> None:
    p, q = both
    a, b = p / p.sum(), q / q.sum()
    assert one(named("hellinger"), p, q).value == pytest.approx(
        np.sqrt(max(1 - np.sqrt(a * b).sum(), 0)), abs=1e-6
    )
    assert one(named("total_variation"), p, q).value == pytest.approx(np.maximum(b - a, 0).sum())
    assert one(named("l_infinity"), p, q).value == pytest.approx(max(abs(b - a)))


@given(counts(), st.floats(0.1, 10), st.integers(0, 10))
def test_wasserstein_is_the_area_between_the_distribution_functions(
    both: Counts, sd: float, shift: int
) -> None:
    p, q = both
    points = np.cumsum(np.random.default_rng(len(p)).uniform(0.1, 2, len(p) + 1))
    before, after = (np.append(0, np.cumsum(each) / each.sum()) for each in both)
    grid = np.linspace(points[0], points[-1], 200_001)
    area = np.trapezoid(np.abs(np.interp(grid, points, after) - np.interp(grid, points, before)), grid)
    found = one(statistics.wasserstein, before, after, points, sd, p.sum(), q.sum(), -shift)
    assert found.value == pytest.approx(max(area / sd, shift), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
@given(both=counts())
def test_nothing_is_far_from_itself_and_all_is_finite(
    distance: Callable[..., list[Statistic]], both: Counts
) -> None:
    p, q = both
    assert one(distance, p, p).value == pytest.approx(0, abs=1e-7)
    assert np.isfinite(one(distance, p, q).value)
    assert one(distance, p, q).value >= -1e-12


def test_the_interval_of_a_rate_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        c, d = random.binomial(2000, 0.02), random.binomial(300, 0.05)
        low, high = one(statistics.rate_change, c, 2000, d, 300).interval or (0, 0)
        covered += low <= 0.03 <= high
    assert 0.92 <= covered / 1000 <= 0.985


def test_a_mean_shift_is_in_standard_deviations_of_the_reference() -> None:
    statistic = one(statistics.mean_shift, 10.0, 2.0, 10_000, 11.0, 4.0, 100)
    assert statistic.value == 0.5
    low, high = statistic.interval or (0, 0)
    assert (low + high) / 2 == pytest.approx(0.5)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(1 / 10_000 + 4 / 100))


@given(counts(), st.integers(1, 5))
def test_bins_that_are_empty_in_both_say_nothing(both: Counts, more: int) -> None:
    p, q = both
    longer = np.append(p, [0] * more), np.append(q, [0] * more)
    for distance in DISTANCES:
        alone, padded = one(distance, p, q), one(distance, *longer)
        assert padded.value == pytest.approx(alone.value, rel=1e-9, abs=1e-9)
        assert padded.null == pytest.approx(alone.null)
        assert padded.p == pytest.approx(alone.p)


@given(counts())
def test_psi_smooths_a_column_with_an_empty_bin(both: Counts) -> None:
    p, q = both
    occupied = (p > 0) | (q > 0)
    p, q = p[occupied], q[occupied]
    assume((p == 0).any() or (q == 0).any())
    a, b = (p + 0.5) / (p.sum() + len(p) / 2), (q + 0.5) / (q.sum() + len(q) / 2)
    assert one(named("psi"), p, q).value == pytest.approx(((b - a) * np.log(b / a)).sum(), abs=1e-12)


@given(st.lists(counts(), min_size=2, max_size=5))
def test_columns_together_are_what_they_are_alone(columns: list[Counts]) -> None:
    width = max(len(p) for p, _ in columns)
    p, q = (np.array([np.pad(column[i], (0, width - len(column[i]))) for column in columns]) for i in (0, 1))
    for distance in DISTANCES:
        for together, column in zip(distance(p, q), columns, strict=True):
            alone = one(distance, *column)
            assert together.value == pytest.approx(alone.value, rel=1e-9, abs=1e-9)
            assert together.p == (None if alone.p is None else pytest.approx(alone.p, rel=1e-6, abs=1e-12))


@pytest.mark.parametrize("columns", [2, 3, 10, 30])
def test_changes_of_correlations_are_at_their_null_expectations(columns: int) -> None:
    random = np.random.default_rng(0)
    shifts = [
        statistics.correlation_shift(
            np.corrcoef(random.standard_normal((columns, 2_000))),
            np.corrcoef(random.standard_normal((columns, 500))),
            2_000,
            500,
        )
        for _ in range(300)
    ]
    for same in zip(*shifts, strict=True):
        value, null = np.mean([each.value for each in same]), np.mean([each.null or 0 for each in same])
        assert value == pytest.approx(null, rel=0.1)


def test_a_statistic_is_told_with_what_it_has() -> None:
    assert Statistic(0.5, 0.0, p=0.1).to_dict() == {"value": 0.5, "null": 0.0, "p": 0.1}
    assert Statistic(np.nan, interval=(0.0, np.inf)).to_dict() == {"value": None, "interval": [0.0, None]}
