"""Wasserstein's distance from bins, against scipy's from the values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from driftline.monitor.comparison.comparing import ColumnCounts, compare_columns
from driftline.monitor.comparison.statistics import Statistic
from driftline.monitor.comparison.tails import distribution_functions
from driftline.monitor.reference.column import Numeric
from driftline.monitor.reference.profile import Profile
from driftline_kernels import bins, moments

Random = np.random.Generator
Make = Callable[[Random, int], np.ndarray]

REPEATS = 30


def wasserstein(before: np.ndarray, after: np.ndarray) -> tuple[Statistic, float]:
    """By the bins of a profile, and by the values."""
    values = after.astype(np.float32)
    reference = Profile.fit({"x": before})["x"]
    assert isinstance(reference, Numeric)
    counts = np.zeros((1, len(reference.counts)), np.int64)
    bins.count(values[:, None], bins.prepare(reference.edges[None]), counts)
    moment = moments.start(1)
    moments.update(values[:, None], moment)
    statistic = compare_columns([ColumnCounts(reference, counts[0], moment[0])])[0]["wasserstein"]
    return statistic, wasserstein_distance(before, values) / reference.sd


def mixture(random: Random, rows: int, share: float = 0.01) -> np.ndarray:
    return np.where(random.random(rows) < share, random.normal(50, 1, rows), random.normal(0, 1, rows))


SAME: dict[str, Make] = {
    "normal": lambda random, rows: random.normal(size=rows),
    "uniform": lambda random, rows: random.random(rows),
    "exponential": lambda random, rows: random.exponential(size=rows),
    "lognormal": lambda random, rows: random.lognormal(0, 1.5, rows),
    "cauchy": lambda random, rows: random.standard_cauchy(rows),
    "pareto": lambda random, rows: random.pareto(1.5, rows),
    "below": lambda random, rows: -random.pareto(1.5, rows),
    "student": lambda random, rows: random.standard_t(3, rows),
    "mixture": mixture,
}

CHANGED: dict[str, tuple[str, Make]] = {
    "up": ("normal", lambda random, rows: random.normal(0.1, 1, rows)),
    "far up": ("normal", lambda random, rows: random.normal(1_000, 1, rows)),
    "wider": ("normal", lambda random, rows: random.normal(0, 1.5, rows)),
    "narrower": ("uniform", lambda random, rows: 0.5 * random.random(rows)),
    "three times": ("uniform", lambda random, rows: 3 * random.random(rows)),
    "more": ("lognormal", lambda random, rows: random.lognormal(0.3, 1.5, rows)),
    "longer": ("lognormal", lambda random, rows: random.lognormal(0, 2, rows)),
    "moved": ("cauchy", lambda random, rows: 1 + random.standard_cauchy(rows)),
    "twice": ("cauchy", lambda random, rows: 2 * random.standard_cauchy(rows)),
    "heavier": ("pareto", lambda random, rows: random.pareto(1.2, rows)),
    "wider tails": ("student", lambda random, rows: 1.3 * random.standard_t(3, rows)),
    "more outliers": ("mixture", lambda random, rows: mixture(random, rows, 0.02)),
    "other outliers": ("mixture", lambda random, rows: -mixture(random, rows)),
}


@pytest.mark.parametrize("name", SAME)
def test_of_what_has_not_changed_it_is_that_of_the_values_and_about_as_by_chance(name: str) -> None:
    """Values that lie evenly in bins made 2 to 12 times too much of lognormal, Cauchy and Pareto columns."""
    random = np.random.default_rng(1)
    results = [wasserstein(SAME[name](random, 10_000), SAME[name](random, 2_000)) for _ in range(REPEATS)]
    value, null = (
        np.median([one.value for one, _ in results]),
        np.median([one.null or 0 for one, _ in results]),
    )
    assert value == pytest.approx(np.median([true for _, true in results]), rel=1 / 3)
    assert null == pytest.approx(value, rel=1 / 3)


@pytest.mark.parametrize("name", CHANGED)
def test_of_a_change_it_is_about_that_of_the_values(name: str) -> None:
    random = np.random.default_rng(2)
    before, after = SAME[CHANGED[name][0]], CHANGED[name][1]
    results = [wasserstein(before(random, 20_000), after(random, 4_000)) for _ in range(REPEATS)]
    value, true = np.mean([(one.value, true) for one, true in results], axis=0)
    assert value == pytest.approx(true, rel=0.2)


def test_points_are_in_order_and_distribution_functions_rise_from_0_to_1() -> None:
    random = np.random.default_rng(3)
    for _ in range(300):
        edges = np.unique(np.round(random.standard_cauchy(random.integers(1, 12)), random.integers(0, 3)))
        counts = random.integers(0, random.choice([2, 50]), (2, 1, len(edges) + 1))
        counts[:, 0, random.integers(len(edges) + 1)] += 1
        ends = [edges[0] - random.exponential(5, (2, 1)), edges[-1] + random.exponential(5, (2, 1))]
        points, below = distribution_functions(edges[None], np.array([len(edges) - 1]), counts, *ends)
        assert np.isfinite(points).all()
        assert (np.diff(points[0]) >= -1e-9 * np.abs(points).max()).all()
        assert (np.diff(below, axis=2) >= -1e-9).all()
        assert below.min() >= 0
        assert below.max() <= 1 + 1e-12
        for edge, share in zip(edges, np.cumsum(counts[:, 0], axis=1).T[:-1], strict=False):
            at = np.flatnonzero(np.isclose(points[0], edge))
            assert np.isclose(below[:, 0, at], (share / counts[:, 0].sum(axis=1))[:, None]).any(axis=1).all()
