"""Looks of the detectors, against the formulas in plain numpy with a slow projection."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from naive_kernels import SIMULATED, back, distance, examples, there
from scipy.special import gammaln

from driftline_kernels import detector

HALF_LIVES = np.array([500.0, 5000.0])
BINS = 17


def gaps_of(m: int) -> np.ndarray:
    return np.diff([0, *np.round(np.arange(1, 16) * (m + 1) / 16), m, m + 1])


def project(q: np.ndarray, b: np.ndarray, rho: float) -> np.ndarray:
    """Reverse information projection on the ball, by two nested bisections."""

    def at(multiplier: float) -> np.ndarray:
        low, high = -100 * (1 + multiplier), 100 * (1 + multiplier)
        for _ in range(90):
            s = (low + high) / 2
            p = b * (s + np.sqrt(s * s + 4 * multiplier * q / b)) / (2 * multiplier)
            low, high = (low, s) if p.sum() > 1 else (s, high)
        return np.asarray(p)

    low, high = 1e-6, 1e6
    for _ in range(64):
        middle = np.sqrt(low * high)
        far = ((at(middle) - b) ** 2 / b).sum() > rho**2
        low, high = (middle, high) if far else (low, middle)
    p = at(high)
    return np.asarray(p / p.sum())


class Naive:
    """Both detectors of one column, as the design writes them."""

    def __init__(self, g: np.ndarray, b: np.ndarray, rho: float) -> None:
        self.g, self.b, self.rho = g, b, rho
        self.recent = np.zeros((2, BINS))
        self.seen = np.zeros(BINS)
        self.change, self.alarm = np.full(2, -np.inf), np.full(2, -np.inf)

    def look(self, n: np.ndarray) -> None:
        rows = n.sum()
        if not rows:
            return
        a = self.g + self.seen
        fair = (gammaln(a + n) - gammaln(a)).sum() - (gammaln(a.sum() + rows) - gammaln(a.sum()))
        for h, half_life in enumerate(HALF_LIVES):
            total = self.recent[h].sum() + 50
            q = (self.recent[h] + 50 * a / a.sum()) / total
            self.change[h] = np.logaddexp(self.change[h], np.log(rows)) + (n * np.log(q)).sum() - fair
            q = (self.recent[h] + 50 * self.b) / total
            if ((q - self.b) ** 2 / self.b).sum() > self.rho**2:
                gain = (n * np.log(q / project(q, self.b, self.rho))).sum()
                self.alarm[h] = np.logaddexp(self.alarm[h], np.log(rows)) + gain
            self.recent[h] = 0.5 ** (rows / half_life) * self.recent[h] + n
        self.seen += n


@pytest.mark.parametrize("m", [500, 10_000])
@pytest.mark.parametrize("drift", [0.0, 0.3, 8.0])
def test_looks_are_the_formulas(m: int, drift: float) -> None:
    random = np.random.default_rng(int(m + 10 * drift))
    columns = 2
    g = np.tile(gaps_of(m), (columns, 1))
    b = np.maximum(g / (m + 1), 0.005)
    b /= b.sum(axis=1, keepdims=True)
    rho = np.full(columns, 0.05 + np.sqrt(0.02))
    state = there(detector.start(columns, 2, BINS))
    given = [there(array) for array in (g, b, rho, HALF_LIVES)]
    naive = [Naive(g[column], b[column], rho[column]) for column in range(columns)]
    shares = np.exp(drift * np.linspace(0, 1, BINS)) * gaps_of(m)
    for _ in range(8 if SIMULATED else 12):
        size = random.choice([0, 1, 7, 100, 1000])
        n = random.multinomial(size, shares / shares.sum(), columns)
        detector.look(there(n), *given, state)
        for column in range(columns):
            naive[column].look(n[column])
    state = back(state)
    for column, one in enumerate(naive):
        np.testing.assert_allclose(state.change[column], one.change, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.alarm[column], one.alarm, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.recent[column], [one.recent, one.recent], rtol=1e-6)
        np.testing.assert_allclose(state.seen[column], one.seen)
    assert (state.alarm > 10).any() == (drift == 8.0)


def test_a_look_without_rows_leaves_all_as_it_was() -> None:
    random = np.random.default_rng(0)
    b = np.full((1, BINS), 1 / BINS)
    given = [there(array) for array in (500 * b, b, np.array([0.1]), HALF_LIVES)]
    state = there(detector.start(1, 2, BINS))
    for _ in range(3):
        detector.look(there(random.multinomial(300, (np.eye(BINS)[:1] + b) / 2)), *given, state)
    before = [back(array).copy() for array in state]
    detector.look(there(np.zeros((1, BINS), np.int64)), *given, state)
    for was, array in zip(before, state, strict=True):
        np.testing.assert_array_equal(back(array), was)


@st.composite
def bets(draw: st.DrawFn) -> tuple[Any, ...]:
    """Recent counts and their total, the bet, the reference, and a radius that the bet is beyond."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    bins = draw(st.integers(2, BINS))
    b = np.maximum(random.dirichlet(np.full(bins, draw(st.sampled_from([0.3, 1.0, 30.0])))), 0.005)
    b /= b.sum()
    recent = random.dirichlet(np.full(bins, draw(st.sampled_from([0.3, 1.0, 30.0]))))
    recent *= 10 ** draw(st.floats(0, 7))
    total = recent.sum()
    q = (recent + detector.KAPPA * b) / (total + detector.KAPPA)
    nearness = draw(st.sampled_from([1 - 1e-15, 1 - 1e-12, 1 - 1e-8, 1 - 1e-4, 0.9, 0.5, 0.1, 0.01]))
    radius = nearness * float(distance(q, b))
    assume(radius > 1e-3)
    return recent, total, q, b, radius, nearness


def projected(recent: np.ndarray, total: float, q: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    multiplier = detector.multiplier_of(recent, b, total, radius)
    return np.array([detector.projected_share(q[k], b[k], multiplier, radius) for k in range(len(q))])


@examples(300)
@given(bets(), st.integers(0, 2**32))
def test_no_distribution_in_the_ball_gains_by_a_bet_against_the_projection(bet: Any, seed: int) -> None:
    recent, total, q, b, radius, _ = bet
    p = projected(recent, total, q, b, radius)
    assert abs(p.sum() - 1) < 1e-10
    assert distance(p, b) <= radius + 1e-10
    others = np.random.default_rng(seed).dirichlet(np.ones(len(b)), 50)
    far = np.maximum(distance(others, b), radius)  # those within the ball stay where they are
    within = b + (others - b) * (radius / far)[:, None]
    assert (within @ (q / p) <= 1 + 1e-9).all()


@examples(60)
@given(bets())
def test_the_projection_is_that_of_two_bisections(bet: Any) -> None:
    recent, total, q, b, radius, nearness = bet
    assume(nearness < 1 - 1e-9)  # nearer, the bisections lose their way
    p = projected(recent, total, q, b, radius)
    # The error in log-likelihood is of the second order in p's: at most 1e-9 a row.
    assert abs(q @ np.log(p / project(q, b, radius))) < 1e-9


def test_a_bet_within_the_ball_is_none() -> None:
    b = np.full(4, 0.25)
    assert detector.multiplier_of(np.zeros(4), b, 0.0, 0.1) == 0
    assert detector.multiplier_of(np.array([3.0, 2, 2, 2]), b, 9.0, 0.1) == 0


@pytest.mark.parametrize("a", [1e-9, 0.5, 1.0, 15.9, 16.0, 300.0, 1e5])
@pytest.mark.parametrize("n", [1.0, 2.0, 50.0, 1000.0])
def test_log_rising_is_the_log_of_a_product(a: float, n: float) -> None:
    expected = math.fsum(math.log(a + i) for i in range(int(n)))
    assert detector.log_rising(a, n) == pytest.approx(expected, rel=1e-13, abs=1e-13)
