"""How far a window is from its reference: each distance beside its expectation if nothing had changed.

Functions take many columns at once and return a Statistic for each. They take counts (columns, bins) of the
same bins, `p` of the reference's m rows and `q` of the window's n; each column has rows in both. Bins empty
in both contribute nothing, so columns with fewer bins are padded with zeros. If a bin is empty in one of
them, PSI, which divides, uses the shares (c + 1/2) / (rows + bins / 2) instead of c / rows (Jeffreys' prior)
in all the column's bins, so that it stays finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat
from math import exp, isfinite, nan, sqrt
from statistics import NormalDist
from typing import Any, Self

import numpy as np

from driftline.monitor.comparison.chance import by_chance
from driftline.monitor.comparison.distributions import chi_square_tail, kolmogorov_tail
from driftline.tensors import Array

MIN_EXPECTED = 5.0
"""Bins with a smaller expected count are pooled for the chi-square test (Cochran 1954)."""

_COMMON_THRESHOLDS = {"psi": 0.2, "jensen_shannon": 0.1, "hellinger": 0.1}
"""Thresholds commonly taken for drift."""

Z_95 = 1.96
"""Standard errors on either side of its mean that hold a normal variable with 95 % probability."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """A value, and what to compare it with.

    null       the expected value if nothing had changed, or None
    threshold  the value commonly taken for drift, or None
    p          the probability of at least this value if nothing had changed, or None
    interval   the 95 % confidence interval of the value, or None
    """

    value: float
    null: float | None = None
    threshold: float | None = None
    p: float | None = None
    interval: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set, in JSON's types; a number that is not finite is None."""
        fields: dict[str, Any] = {"value": number(self.value)}
        for name in ("null", "threshold", "p"):
            value = getattr(self, name)
            if value is not None:
                fields[name] = number(value)
        if self.interval is not None:
            fields["interval"] = [number(end) for end in self.interval]
        return fields

    @classmethod
    def of_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Return the statistic that `to_dict` wrote; None was a number that is not finite."""
        values: dict[str, Any] = {name: nan if value is None else value for name, value in fields.items()}
        if (ends := fields.get("interval")) is not None:
            values["interval"] = tuple(nan if end is None else end for end in ends)
        return cls(**values)


def number(value: float) -> float | None:
    """Return a plain float, or None for a number that JSON can't represent."""
    return float(value) if isfinite(value) else None


def distances(p: Array, q: Array) -> dict[str, list[Statistic]]:
    """Return distances between the shares of bins, each with its expectation by chance (see `chance`).

    psi             population stability index, sum (q - p) ln(q / p); expected (K - 1)(1/n + 1/m) (Yurdakul
                    2018) or, where a bin is empty, the mean over all ways to deal the rows of both samples:
                    for a thousand categories in a hundred rows, the formula is seven times too large
    jensen_shannon  the square root of the divergence, in natural logarithms (Lin 1991)
    hellinger       sqrt(1/2 sum (sqrt q - sqrt p)^2)
    total_variation 1/2 sum |q - p|: the share of rows that would have to change bins
    l_infinity      the largest difference of a bin's shares

    Thresholds are folklore: with few rows, chance alone exceeds them; with many, much less is certain drift.
    """
    a, b = _shares(p), _shares(q)
    difference = np.abs(b - a)
    roots = np.sqrt(b) - np.sqrt(a)
    values = {
        "psi": _psi(p, q),
        "jensen_shannon": _jensen_shannon(a, b),
        "hellinger": np.sqrt((roots * roots).sum(axis=1) / 2),
        "total_variation": difference.sum(axis=1) / 2,
        "l_infinity": difference.max(axis=1),
    }
    null = by_chance(p, q)
    return {
        name: _statistics(value, null=null[name], threshold=_COMMON_THRESHOLDS.get(name))
        for name, value in values.items()
    }


def _psi(p: Array, q: Array) -> Array:
    occupied = (p > 0) | (q > 0)
    bins = occupied.sum(axis=1, keepdims=True)
    prior = np.where((occupied & ((p == 0) | (q == 0))).any(axis=1, keepdims=True), 0.5, 0.0)
    m, n = p.sum(axis=1, keepdims=True), q.sum(axis=1, keepdims=True)
    a, b = (p + prior) / (m + prior * bins), (q + prior) / (n + prior * bins)
    a, b = np.where(occupied, a, 1.0), np.where(occupied, b, 1.0)
    return np.asarray(((b - a) * np.log(b / a)).sum(axis=1))


def _jensen_shannon(a: Array, b: Array) -> Array:
    total = a + b
    total[total == 0] = 1.0
    # 0 ln 0 is 0, so an empty bin takes the logarithm of 1.
    terms = a * np.log(np.where(a > 0, 2 * a / total, 1.0)) + b * np.log(np.where(b > 0, 2 * b / total, 1.0))
    return np.asarray(np.sqrt(np.maximum(terms.sum(axis=1) / 2, 0.0)))


def kolmogorov_smirnov(p: Array, q: Array) -> list[Statistic]:
    """Return the largest difference of the distribution functions at the edges, and its asymptotic p value.

    Bins are in order. The distance is exact at the edges, so it is a lower bound of the true one, off by at
    most the largest bin's share. The p value holds for continuous columns; with ties it errs on the side of
    no drift (Kolmogorov 1933).
    """
    m, n = p.sum(axis=1), q.sum(axis=1)
    distance = np.abs(np.cumsum(_shares(q), axis=1) - np.cumsum(_shares(p), axis=1)).max(axis=1)
    return _statistics(distance, p=kolmogorov_tail(distance * np.sqrt(n * (m / (n + m)))))


def chi_square(p: Array, q: Array) -> list[Statistic]:
    """Return Pearson's chi-square test of two samples; `null` is its degrees of freedom.

    Bins with an expected count below 5 in either sample are pooled, with the next smallest bin if that is
    still too few. If one bin is left, there is nothing to test: 0 degrees of freedom.
    """
    m, n = p.sum(axis=1, keepdims=True), q.sum(axis=1, keepdims=True)
    share = n / (m + n)
    pooled = p + q
    min_pooled = MIN_EXPECTED / np.minimum(share, 1 - share)
    is_few = pooled < min_pooled
    pool = (pooled * is_few).sum(axis=1, keepdims=True)
    next_smallest = np.where(is_few, np.inf, pooled).argmin(axis=1)
    is_few[np.arange(len(is_few)), next_smallest] |= ((pool > 0) & (pool < min_pooled))[:, 0]
    pool = (pooled * is_few).sum(axis=1, keepdims=True)
    pooled = np.concatenate([pooled * ~is_few, pool], axis=1)
    observed = np.concatenate([q * ~is_few, (q * is_few).sum(axis=1, keepdims=True)], axis=1)
    squares = (observed - pooled * share) ** 2 / np.maximum(pooled, 1)
    value = squares.sum(axis=1) / (share * (1 - share))[:, 0]
    freedom = (pooled > 0).sum(axis=1) - 1.0
    value[freedom == 0] = 0.0
    tails = [
        chi_square_tail(*value_and_freedom)
        for value_and_freedom in zip(value.tolist(), freedom.astype(int).tolist(), strict=True)
    ]
    return _statistics(value, null=freedom, p=np.array(tails))


def wasserstein(
    p: Array, q: Array, points: Array, sd: Array, m: Array, n: Array, shift: Array
) -> list[Statistic]:
    """Return the Wasserstein-1 distance between finite values, in standard deviations of the reference.

    p, q    distribution functions at the points, linear between them
    points  (columns, points) ascending
    sd      (columns,) of the reference, above 0
    m, n    (columns,) number of values of each
    shift   (columns,) of the means, in standard deviations

    This is the integral of the difference of the distribution functions, or the distance of the means if
    that is larger: for the values themselves it never is (Kantorovich), but bins hide where a value lies.
    By chance, the difference at a point is that of a normal variable or, where values are rare, twice the
    probability of one there; the distance of the means is that of two samples.
    """
    width = np.diff(points, axis=1) / sd[:, None]
    difference = q - p
    left, right = difference[:, :-1], difference[:, 1:]
    magnitude = np.abs(left) + np.abs(right)
    crossing = (left * left + right * right) / np.where(magnitude > 0, magnitude, 1.0)
    area = np.where(left * right >= 0, magnitude, crossing) / 2
    pooled = (m[:, None] * p + n[:, None] * q) / (m + n)[:, None]
    variance = pooled * (1 - pooled)
    error = np.minimum(np.sqrt(2 / np.pi * (1 / m + 1 / n)[:, None] * variance), 2 * variance)
    area_by_chance = ((error[:, :-1] + error[:, 1:]) / 2 * width).sum(axis=1)
    null = np.maximum(area_by_chance, np.sqrt(2 / np.pi * (1 / m + 1 / n)))
    return _statistics(np.maximum((area * width).sum(axis=1), np.abs(shift)), null=null, threshold=0.1)


def mean_shift(mean_p: Array, sd_p: Array, m: Array, mean_q: Array, sd_q: Array, n: Array) -> list[Statistic]:
    """Return (mean_q - mean_p) / sd_p of finite values, with its 95 % interval by Welch's standard error.

    All (columns,), of m and n finite values; sd_p is above 0.
    """
    shift = (mean_q - mean_p) / sd_p
    error = Z_95 * np.sqrt(1 / m + (sd_q / sd_p) ** 2 / n)
    return _statistics(shift, null=np.zeros(len(shift)), interval=(shift - error, shift + error))


def rate_change(c: Array, m: Array, d: Array, n: Array, extremes: int = 0) -> list[Statistic]:
    """Return d / n - c / m, the change of a rate, with its 95 % interval; all (columns,).

    extremes  how many extremes of the m rows the rate counts beyond: none of these rows is there, but a new
              row is as likely to be beyond an extreme as in any other of the m + 1 gaps between the rows
    """
    value = d / n - c / m
    if not extremes:
        return _statistics(value, null=np.zeros(len(value)), interval=rate_interval(c, m, d, n))
    null = (c + extremes) / (m + 1) - c / m
    return _statistics(value, null=null, interval=rate_interval(c + extremes, m + 1, d, n))


def rate_interval(c: Array, m: Array | int, d: Array, n: Array | int, z: float = Z_95) -> tuple[Array, Array]:
    """Return bounds of d / n - c / m, `z` standard errors on either side (Agresti and Caffo 2000)."""
    a, b = (c + 1) / (m + 2), (d + 1) / (n + 2)
    error = z * np.sqrt(a * (1 - a) / (m + 2) + b * (1 - b) / (n + 2))
    return b - a - error, b - a + error


def mean_embedding(mean_p: Array, mean_q: Array, m: float, n: float) -> Statistic:
    """Return the maximum mean discrepancy by random Fourier features: the norm of their means' difference.

    Features sqrt(2/D) cos(Wx + b) (Rahimi and Recht 2007) have a squared norm of 1 on average, so the
    null expectation is sqrt((1/m + 1/n)(1 - |mean_p|^2)).
    """
    spread = max(1.0 - float(mean_p @ mean_p), 0.0)
    return Statistic(float(np.linalg.norm(mean_q - mean_p)), float(np.sqrt((1 / m + 1 / n) * spread)))


def correlation_shift(p: Array, q: Array, m: float, n: float) -> tuple[Statistic, Statistic]:
    """Return the largest change of a correlation, and the Frobenius norm of all changes above the diagonal.

    Null expectations use Fisher's standard error (1 - r^2) sqrt(1/m + 1/n), which is that of normal columns.
    The mean of the largest of that many normal variables is about its quantile at exp(-exp(-g)), g Euler's
    constant (Gumbel 1935); their norm has a chi distribution.
    """
    above = np.triu_indices(len(p), 1)
    change = (q - p)[above]
    if not len(change):
        return Statistic(0.0), Statistic(0.0)
    errors = (1 - p[above] ** 2) * np.sqrt(1 / m + 1 / n)
    count = len(errors)
    largest = NormalDist().inv_cdf((1 + exp(-exp(-np.euler_gamma)) ** (1 / count)) / 2)
    chi_mean = sqrt(1 - 1 / (2 * count) + 1 / (8 * count**2))
    return (
        Statistic(float(np.abs(change).max()), float(errors.max() * largest)),
        Statistic(float(np.linalg.norm(change)), float(np.linalg.norm(errors) * chi_mean)),
    )


def _shares(counts: Array) -> Array:
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _statistics(
    value: Array,
    *,
    null: Array | None = None,
    threshold: float | None = None,
    p: Array | None = None,
    interval: tuple[Array, Array] | None = None,
) -> list[Statistic]:
    """Return arrays of the columns' numbers as a Statistic of each column, in plain Python floats."""
    none = repeat(None)
    return [
        Statistic(*fields)
        for fields in zip(
            value.tolist(),
            none if null is None else null.tolist(),
            repeat(threshold),
            none if p is None else p.tolist(),
            none if interval is None else zip(*(end.tolist() for end in interval), strict=True),
            strict=False,
        )
    ]
