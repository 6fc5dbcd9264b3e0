"""Tails of distributions in elementary functions: scipy has them, but takes 0.5 s and 14 MB to load."""

from __future__ import annotations

from math import erfc, lgamma, log, sqrt

import numpy as np

from driftline.tensors import Array


def chi_square_tail(value: float, freedom: int) -> float:
    """Return the probability that chi-square with `freedom` degrees of freedom exceeds `value`.

    Repeated integration by parts (Abramowitz, Stegun: Handbook of Mathematical Functions, 26.4.4 and 26.4.5).
    """
    half = value / 2
    if half <= 0:
        return 1.0
    exponents = np.arange(freedom % 2 / 2, freedom / 2)
    logarithms = exponents * log(half) - half - np.array([lgamma(power + 1) for power in exponents])
    return min(1.0, (erfc(sqrt(half)) if freedom % 2 else 0.0) + float(np.exp(logarithms).sum()))


def chi_square_upper_quantile(probability: float, freedom: int) -> float:
    """Return the value that chi-square with `freedom` degrees of freedom exceeds with this chance."""
    low, high = 0.0, 1.0
    while chi_square_tail(high, freedom) > probability:
        low, high = high, 2 * high
    middle = (low + high) / 2
    while low < middle < high:
        if chi_square_tail(middle, freedom) > probability:
            low = middle
        else:
            high = middle
        middle = (low + high) / 2
    return middle


def kolmogorov_tail(values: Array) -> Array:
    """Return the upper tail probability of Kolmogorov's limit distribution at each value, from 0 on.

    Its two series, each where it converges fast (Feller: On the Kolmogorov-Smirnov limit theorems, 1948).
    """
    x = np.asarray(values, np.float64)[..., None]
    k = np.arange(1, 6)
    clipped = np.maximum(x, 0.05)  # below, the tail is 1
    series = np.exp(-((2 * k - 1) ** 2) * np.pi**2 / (8 * clipped**2)).sum(axis=-1)
    below = np.sqrt(2 * np.pi) / clipped[..., 0] * series
    above = 2 * ((-1.0) ** (k - 1) * np.exp(-2 * k**2 * x**2)).sum(axis=-1)
    tail: Array = np.where(x[..., 0] < 1, 1 - below, above)
    return tail


def normal_tail(values: Array) -> Array:
    """Return the upper tail probability of the standard normal at each value, from 0 on, within 1e-7.

    Abramowitz, Stegun: Handbook of Mathematical Functions, 26.2.17.
    """
    t = 1 / (1 + 0.2316419 * values)
    series = 0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429)))
    return np.asarray(np.exp(-(np.minimum(values, 40.0) ** 2) / 2) / np.sqrt(2 * np.pi) * t * series)
