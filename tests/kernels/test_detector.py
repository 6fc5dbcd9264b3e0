"""Looks of the detectors, against the formulas in plain numpy with a slow projection."""

from __future__ import annotations

import numpy as np
import pytest
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
        for _ in range(200):
            s = (low + high) / 2
            p = b * (s + np.sqrt(s * s + 4 * multiplier * q / b)) / (2 * multiplier)
            low, high = (low, s) if p.sum() > 1 else (s, high)
        return np.asarray(p)

    low, high = 1e-6, 1e6
    for _ in range(100):
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
@pytest.mark.parametrize("drift", [0.0, 0.3, 3.0])
def test_looks_are_the_formulas(m: int, drift: float) -> None:
    random = np.random.default_rng(int(m + 10 * drift))
    columns = 3
    g = np.tile(gaps_of(m), (columns, 1))
    b = np.maximum(g / (m + 1), 0.005)
    b /= b.sum(axis=1, keepdims=True)
    rho = np.full(columns, 0.05 + np.sqrt(0.02))
    state = detector.start(columns, 2, BINS)
    naive = [Naive(g[column], b[column], rho[column]) for column in range(columns)]
    shares = np.exp(drift * np.linspace(0, 1, BINS)) * gaps_of(m)
    for _ in range(20):
        size = random.choice([0, 1, 7, 100, 1000])
        n = random.multinomial(size, shares / shares.sum(), columns)
        detector.look(n, g, b, rho, HALF_LIVES, state)
        for column in range(columns):
            naive[column].look(n[column])
    for column, one in enumerate(naive):
        np.testing.assert_allclose(state.change[column], one.change, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(state.alarm[column], one.alarm, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.recent[column], one.recent)
        np.testing.assert_allclose(state.seen[column], one.seen)
    assert (state.alarm > 10).any() == (drift == 3.0)
