"""Expected distances between the shares of bins if nothing has changed.

Then chance alone decides which rows are the reference's m and which the window's n: all are dealt from one
pool. Of the t rows of a bin, the smaller sample gets d, a hypergeometric number. In bins with large expected
counts, the means of a distance's terms follow from d's variance; in the others they are sums over all d.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, sqrt

import numpy as np

from driftline.monitor.comparison.distributions import normal_tail
from driftline.tensors import Array

_MAX_EXACT = 5
"""Expected rows of a bin up to which its hypergeometric count is not approximated as normal."""

_DISTANCE_GRID = np.linspace(0.0, 1.0, 6)[:, None, None]


def by_chance(p: Array, q: Array) -> dict[str, Array]:
    """Return each distance's mean over all ways to deal the rows: (columns,), by its name in `statistics`.

    p, q  counts (columns, bins) of the same bins, at least one row in each column

    In simulations, the means are within a tenth of the truth. Only the largest difference of a thousand
    categories' shares, in windows of fewer than a hundred rows, is up to 0.4 of it too large.
    """
    pooled = (p + q).astype(np.float64)
    m, n = p.sum(axis=1, keepdims=True), q.sum(axis=1, keepdims=True)
    variance_scale = 1 / m + 1 / n
    occupied, share = pooled > 0, pooled / (m + n)
    expected = share * np.minimum(m, n)
    freedom = np.maximum(np.minimum(expected, 1.0).sum(axis=1) - 1.0, 0.5)
    bins = occupied.sum(axis=1, keepdims=True)
    sparse = (occupied & ((p == 0) | (q == 0))).any(axis=1)
    # Terms where d is about normal: of PSI, of the squared Jensen-Shannon and Hellinger distances, and of
    # total variation.
    spread = np.sqrt(share * (1 - share) * variance_scale)
    squared = occupied * (1 - share) * variance_scale / 8
    terms = np.stack([8 * squared, squared, squared, spread / np.sqrt(2 * np.pi)])
    is_few = occupied & (expected <= _MAX_EXACT)
    arguments = np.stack(np.broadcast_arrays(pooled, m + n, np.minimum(m, n), bins))
    if is_few.any():
        terms[:, is_few] = _exact_terms(*arguments[:, is_few])
    is_many = occupied & ~is_few & sparse[:, None]
    if is_many.any():
        terms[0, is_many] = _normal_psi_term(*arguments[:, is_many])
    psi, entropy, root, total = terms.sum(axis=2)
    # The mean of a root is less than the root of the mean; the factor is that of chi-square.
    correction = np.sqrt(1 - 1 / (2 * freedom) + 1 / (8 * freedom**2))
    return {
        "psi": np.where(sparse, psi, ((bins - 1) * variance_scale)[:, 0]),
        "jensen_shannon": correction * np.sqrt(entropy),
        "hellinger": correction * np.sqrt(root),
        "total_variation": total,
        "l_infinity": _mean_largest(pooled, m, n, spread, is_few),
    }


def _exact_terms(t: Array, rows: Array, dealt: Array, bins: Array) -> Array:
    """Return the means of a bin's four terms, (4, bins), if it has t of all rows and d of those dealt."""
    expected = (t * dealt / rows).max()
    lowest = np.maximum(0, dealt + t - rows)
    d = lowest + np.arange(ceil(expected + 4 * sqrt(expected) + 4))[:, None]
    ratios = (t - d) * (dealt - d) / ((d + 1) * (rows - t - dealt + d + 1))
    weights = np.ones_like(d)
    np.cumprod(np.maximum(ratios[:-1], 0), axis=0, out=weights[1:])
    weights /= weights.sum(axis=0)
    terms = _terms(np.minimum(d, np.minimum(t, dealt)), t, rows, dealt, bins)
    return np.stack([np.einsum("ij,ij->j", weights, term) for term in terms])


def _terms(d: Array, t: Array, rows: Array, dealt: Array, bins: Array) -> Iterator[Array]:
    """Yield what a bin adds to each distance if d of its t rows are among those dealt."""
    yield _smoothed_psi_term(d, t, rows, dealt, bins)
    a, b = d / dealt, (t - d) / (rows - dealt)
    middle = (a + b) / 2
    entropy = a * np.log(np.where(a > 0, a / middle, 1.0)) + b * np.log(np.where(b > 0, b / middle, 1.0))
    yield entropy / 2
    root = np.sqrt(a) - np.sqrt(b)
    yield root * root / 2
    yield np.abs(a - b) / 2


def _normal_psi_term(t: Array, rows: Array, dealt: Array, bins: Array) -> Array:
    """Return the mean of a bin's smoothed PSI term where d is about normal, by Gauss-Hermite quadrature."""
    share = dealt / rows
    offset = np.sqrt(3 * t * share * (1 - share) * (rows - t) / (rows - 1))
    low, high = np.maximum(t * share - offset, 0), np.minimum(t * share + offset, np.minimum(t, dealt))
    middle = _smoothed_psi_term(t * share, t, rows, dealt, bins)
    ends = _smoothed_psi_term(low, t, rows, dealt, bins) + _smoothed_psi_term(high, t, rows, dealt, bins)
    return np.asarray((ends + 4 * middle) / 6)


def _smoothed_psi_term(d: Array, t: Array, rows: Array, dealt: Array, bins: Array) -> Array:
    """Return a bin's PSI term, smoothed as in every column that has an empty bin."""
    a, b = (d + 0.5) / (dealt + bins / 2), (t - d + 0.5) / (rows - dealt + bins / 2)
    return np.asarray((b - a) * np.log(b / a))


def _mean_largest(pooled: Array, m: Array, n: Array, spread: Array, is_few: Array) -> Array:
    """Return the mean of the largest difference of a bin's shares, from the chance that all are smaller.

    On Gumbel's scale, that chance is nearly a straight line. Since shares sum to 1, the others determine one
    bin's difference.
    """
    smaller, larger = np.minimum(m, n), np.maximum(m, n)
    largest_spread = spread.max(axis=1, keepdims=True)
    # Bins that have few rows matter only if theirs may be the largest difference.
    is_few = ((is_few * spread).max(axis=1, keepdims=True) > largest_spread / 3)[:, 0]
    distances = largest_spread / 2 + _DISTANCE_GRID * (4 * largest_spread + is_few[:, None] / smaller)
    probability = 2 * normal_tail(distances / np.maximum(spread, 1e-300))
    if is_few.any():
        probability[:, is_few] = _probability_beyond(
            distances[:, is_few], pooled[is_few], smaller[is_few], larger[is_few]
        )
    bins = np.maximum((pooled > 0).sum(axis=1), 1)
    within = -np.log(np.maximum(1 - probability, 1e-300)).sum(axis=2) * (1 - 1 / bins)
    scale = -np.log(np.maximum(within, 1e-300))
    means = [np.interp(np.euler_gamma, scale[:, row], distances[:, row, 0]) for row in range(len(pooled))]
    return np.where(bins > 1, means, 0.0)


def _probability_beyond(distances: Array, pooled: Array, smaller: Array, larger: Array) -> Array:
    """Return the probability that the shares of a bin differ by more than `far`, in either direction."""
    expected = np.where(pooled > 0, pooled * (smaller / (smaller + larger)), 1.0)
    rows = distances / (1 / smaller + 1 / larger)
    return _tail_probability(expected + rows, pooled, expected, smaller, larger) + _tail_probability(
        expected - rows, pooled, expected, smaller, larger
    )


def _tail_probability(d: Array, t: Array, expected: Array, smaller: Array, larger: Array) -> Array:
    """Return the probability that a bin has d of the dealt rows, or a number still farther from `expected`.

    Uses the signed root of its deviance (Zubkov, Serov: A complete proof of universal inequalities for the
    distribution function of the binomial law, 2013), as of a binomial number with less spread.
    """
    possible = (d >= 0) & (d <= np.minimum(t, smaller)) & (t > 0)
    d = np.where(possible, d, expected)
    remaining = t - d
    deviance = d * np.log(np.maximum(d, 1e-300) / expected)
    deviance += remaining * np.log(np.maximum(remaining, 1e-300) / np.maximum(t - expected, 1e-300))
    root = np.sqrt(2 * np.maximum(deviance, 0.0) / np.maximum(1 - t / (smaller + larger), 1e-9))
    return np.where(possible, normal_tail(root), 0.0)
