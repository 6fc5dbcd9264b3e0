"""How far a window is from its reference: each distance beside what it would be if nothing had changed.

Every function takes counts of the same bins, `p` of the reference's m rows and `q` of the window's n. Where
a bin is empty in either, distances that divide use shares (c + 1/2) / (rows + bins / 2) instead of c / rows
(Jeffreys' prior), so that they stay finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from driftline.tensors import Array

EXPECTED_LEAST = 5.0
"""Bins with a smaller expected count are pooled for the chi-square test (Cochran 1954)."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """A value, and what to hold it against.

    null       what the value would be on average if nothing had changed, or None
    threshold  what people commonly take for drift, or None
    p          the probability of at least this value if nothing had changed, or None
    interval   where the value lies with 95 % confidence, or None
    """

    value: float
    null: float | None = None
    threshold: float | None = None
    p: float | None = None
    interval: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Those fields that say something, as what JSON knows; a number that is not finite is None."""
        fields: dict[str, Any] = {"value": number(self.value)}
        for name in ("null", "threshold", "p"):
            value = getattr(self, name)
            if value is not None:
                fields[name] = number(value)
        if self.interval is not None:
            fields["interval"] = [number(end) for end in self.interval]
        return fields


def number(value: float) -> float | None:
    """A plain float, or None for what JSON has no word for."""
    return float(value) if isfinite(value) else None


def shares(p: Array, q: Array) -> tuple[Array, Array]:
    """Counts as shares, smoothed if a bin is empty in either."""
    if (p == 0).any() or (q == 0).any():
        return (p + 0.5) / (p.sum() + len(p) / 2), (q + 0.5) / (q.sum() + len(q) / 2)
    return p / p.sum(), q / q.sum()


def psi(p: Array, q: Array) -> Statistic:
    """Population stability index, sum (q - p) ln(q / p); null expectation (K - 1)(1/n + 1/m) (Yurdakul 2018).

    0.1 and 0.2 are folklore: at few rows chance alone exceeds them, at many rows much less is certain drift.
    """
    p, q = _occupied(p, q)
    a, b = shares(p, q)
    null = (len(p) - 1) * (1 / q.sum() + 1 / p.sum())
    return Statistic(float(((b - a) * np.log(b / a)).sum()), null, 0.2)


def jensen_shannon(p: Array, q: Array) -> Statistic:
    """Jensen-Shannon distance: the root of the divergence, in natural logarithms (Lin 1991)."""
    a, b = p / p.sum(), q / q.sum()
    middle = (a + b) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(a > 0, a * np.log(a / middle), 0) + np.where(b > 0, b * np.log(b / middle), 0)
    return Statistic(float(np.sqrt(max(terms.sum() / 2, 0.0))), threshold=0.1)


def hellinger(p: Array, q: Array) -> Statistic:
    """Hellinger distance, sqrt(1/2 sum (sqrt q - sqrt p)^2)."""
    a, b = p / p.sum(), q / q.sum()
    return Statistic(float(np.sqrt(((np.sqrt(b) - np.sqrt(a)) ** 2).sum() / 2)), threshold=0.1)


def total_variation(p: Array, q: Array) -> Statistic:
    """Total variation, 1/2 sum |q - p|: the share of rows that would have to change bins."""
    return Statistic(float(np.abs(q / q.sum() - p / p.sum()).sum() / 2))


def l_infinity(p: Array, q: Array) -> Statistic:
    """The largest difference of a bin's shares."""
    return Statistic(float(np.abs(q / q.sum() - p / p.sum()).max()))


def kolmogorov_smirnov(p: Array, q: Array) -> Statistic:
    """The largest difference of the distribution functions at the edges, and its asymptotic p value.

    Exact at the edges, so a lower bound of the true distance, off by at most the largest bin's share. The
    p value holds for continuous columns; with ties it errs on the side of no drift (Kolmogorov 1933).
    """
    from scipy.special import kolmogorov

    m, n = p.sum(), q.sum()
    distance = float(np.abs(np.cumsum(q) / n - np.cumsum(p) / m).max())
    return Statistic(distance, p=float(kolmogorov(distance * np.sqrt(n * m / (n + m)))))


def chi_square(p: Array, q: Array) -> Statistic:
    """Pearson's chi-square test of two samples; `null` is its degrees of freedom.

    Bins of which either sample should have fewer than 5 rows are pooled.
    """
    from scipy.special import chdtrc

    m, n = p.sum(), q.sum()
    pooled = (p + q) * min(m, n) / (m + n) < EXPECTED_LEAST
    if pooled.any():
        p = np.append(p[~pooled], p[pooled].sum())
        q = np.append(q[~pooled], q[pooled].sum())
    p, q = _occupied(p, q)
    if len(p) < 2:
        return Statistic(0.0, 0.0, p=1.0)
    both = p + q
    value = float(((q - both * n / (m + n)) ** 2 / both).sum() * (m + n) ** 2 / (m * n))
    return Statistic(value, len(p) - 1.0, p=float(chdtrc(len(p) - 1, value)))


def wasserstein(p: Array, q: Array, points: Array, sd: float) -> Statistic:
    """Wasserstein-1 distance between finite values, in standard deviations of the reference.

    p, q    counts of the bins between the points, (points - 1,)
    points  ascending: the least value of either, the inner edges, the greatest of either

    The integral of the difference of the distribution functions, which run straight within a bin.
    """
    if not sd > 0:
        return Statistic(0.0 if np.array_equal(p > 0, q > 0) else float("inf"), threshold=0.1)
    difference = np.append(0.0, np.cumsum(q) / q.sum() - np.cumsum(p) / p.sum())
    left, right, width = difference[:-1], difference[1:], np.diff(points)
    apart = np.abs(left) + np.abs(right)
    with np.errstate(invalid="ignore", divide="ignore"):
        crossing = np.where(apart > 0, (left**2 + right**2) / (2 * apart), 0.0)
    area = np.where(left * right >= 0, apart / 2, crossing)
    return Statistic(float((area * width).sum() / sd), threshold=0.1)


def mean_shift(mean_p: float, sd_p: float, m: float, mean_q: float, sd_q: float, n: float) -> Statistic:
    """(mean_q - mean_p) / sd_p of the finite values, with its 95 % interval from Welch's standard error."""
    if not sd_p > 0:
        return Statistic(0.0 if mean_q == mean_p else float(np.copysign(np.inf, mean_q - mean_p)))
    shift = (mean_q - mean_p) / sd_p
    error = float(np.sqrt(1 / m + (sd_q / sd_p) ** 2 / n))
    return Statistic(shift, 0.0, interval=(shift - 1.96 * error, shift + 1.96 * error))


def rate_change(c: float, m: float, d: float, n: float) -> Statistic:
    """d / n - c / m, the change of a rate, with its 95 % interval (Agresti and Caffo 2000)."""
    a, b = (c + 1) / (m + 2), (d + 1) / (n + 2)
    error = 1.96 * float(np.sqrt(a * (1 - a) / (m + 2) + b * (1 - b) / (n + 2)))
    return Statistic(d / n - c / m, 0.0, interval=(b - a - error, b - a + error))


def mean_embedding(mean_p: Array, mean_q: Array, m: float, n: float) -> Statistic:
    """Maximum mean discrepancy by random Fourier features: the norm of the difference of their means.

    Features sqrt(2/D) cos(Wx + b) (Rahimi and Recht 2007) have square norm 1 on average, so the null
    expectation is sqrt((1/m + 1/n)(1 - |mean_p|^2)).
    """
    spread = max(1.0 - float(mean_p @ mean_p), 0.0)
    return Statistic(float(np.linalg.norm(mean_q - mean_p)), float(np.sqrt((1 / m + 1 / n) * spread)))


def correlation_shift(p: Array, q: Array, m: float, n: float) -> tuple[Statistic, Statistic]:
    """The largest change of a correlation, and the Frobenius norm of all changes above the diagonal.

    Null expectations from Fisher's standard error (1 - r^2) sqrt(1/m + 1/n); of the largest, that of the
    maximum of as many normal variables, sqrt(2 ln(2 count)).
    """
    above = np.triu_indices(len(p), 1)
    change = (q - p)[above]
    if not len(change):
        return Statistic(0.0), Statistic(0.0)
    errors = (1 - p[above] ** 2) * np.sqrt(1 / m + 1 / n)
    most = float(errors.max() * np.sqrt(2 * np.log(2 * len(errors))))
    return (
        Statistic(float(np.abs(change).max()), most),
        Statistic(float(np.linalg.norm(change)), float(np.linalg.norm(errors))),
    )


def _occupied(p: Array, q: Array) -> tuple[Array, Array]:
    """Without the bins that are empty in both."""
    some = (p > 0) | (q > 0)
    return p[some], q[some]
