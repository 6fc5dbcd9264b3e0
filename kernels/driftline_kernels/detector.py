"""One look of the two drift detectors, at all columns at once: Shiryaev-Roberts e-detectors on rank bins.

A column's bins are cut at fixed ranks of its reference, so their true masses are Dirichlet(gaps) if nothing
has changed. M of a detector is a sum, over every possible start of the drift, of bets that are fair until
then: the expected number of rows before M passes A is at least A (Shin, Ramdas, Rinaldo: E-detectors, 2022).
Each detector runs once for every half-life of its memory; averages of M are valid, too.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from driftline_kernels.device import blocks_for, body, driver, grid, on_cpu

cuda: Any = None  # numba.cuda, bound before the first launch

KAPPA = 50.0
"""The weight of the null hypothesis in a bet, in rows, beside the rows seen lately."""


class State(NamedTuple):
    """What the detectors remember of each column; float64, except `recent`, on one device.

    Each detector has its own memory, since a signal of one must not make the other forget.

    recent  (columns, 2, H, K) float32, decayed counts of past looks, C: those of `change`, then those of
            `alarm`; a bet may be any that is made before, so rounding it leaves it fair
    seen    (columns, K) counts of past looks, N
    change  (columns, H) log M of `change`
    alarm   (columns, H) log M of `alarm`
    """

    recent: Any
    seen: Any
    change: Any
    alarm: Any


def start(columns: int, half_lives: int, bins: int) -> State:
    """Return the state before the first look, on the CPU."""
    return State(
        np.zeros((columns, 2, half_lives, bins), np.float32),
        np.zeros((columns, bins)),
        np.full((columns, half_lives), -np.inf),
        np.full((columns, half_lives), -np.inf),
    )


def look(counts: Any, gaps: Any, floored: Any, radius: Any, half_lives: Any, state: State) -> None:
    """Bet once on every column and update `state`, in place; a column without new rows is unchanged.

    counts      (columns, K) int64, the rows in each rank bin since the last look; on cpu or cuda, as the rest
    gaps        (columns, K) float64, reference ranks that each bin spans; they sum to m + 1
    floored     (columns, K) float64, the reference's shares, floored above 0 and summing to 1
    radius      (columns,) float64 above 0, the distance from `floored` up to which a distribution is
                harmless, as sqrt(sum (p - b)^2 / b)
    half_lives  (H,) float64, in rows
    state       of these columns and half-lives
    """
    if on_cpu(counts):
        _look(counts, gaps, floored, radius, half_lives, *state)
    else:
        _look_cuda(blocks_for(len(counts)), counts, gaps, floored, radius, half_lives, *state)


@body
def log_rising(a: float, n: float) -> float:
    """Return lgamma(a + n) - lgamma(a), by Stirling's series where the terms would cancel."""
    if a < 16:
        return math.lgamma(a + n) - math.lgamma(a)
    return (a - 0.5) * math.log1p(n / a) + n * (math.log(a + n) - 1) + _stirling(a + n) - _stirling(a)


@body
def _stirling(x: float) -> float:
    """lgamma(x) - (x - 1/2) log x + x - log(2 pi) / 2, to 1e-15 for x >= 16 (Abramowitz, Stegun 6.1.41)."""
    y = 1 / (x * x)
    return (1 / 12 - y * (1 / 360 - y * (1 / 1260 - y * (1 / 1680 - y / 1188)))) / x


@body
def log_sum(a: float, b: float) -> float:
    """Return log(exp(a) + exp(b)), b finite."""
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


@body
def fair_price(counts: Any, gaps: Any, seen: Any) -> float:
    """Return the log probability of the counts, in order, if live and reference rows are exchangeable."""
    price, ranks, rows = 0.0, 0.0, 0.0
    for k in range(len(counts)):
        a, n = gaps[k] + seen[k], float(counts[k])
        if n > 0:
            price += log_rising(a, n)
        ranks += a
        rows += n
    return price - log_rising(ranks, rows)


@body
def bet(recent: float, expected: float, total: float) -> float:
    """Return the share bet on a bin: the one seen lately, shrunk towards the one expected under the null."""
    return (recent + KAPPA * expected) / (total + KAPPA)


@body
def projected_share(q: float, b: float, multiplier: float, radius: float) -> float:
    """Return a bin's share in the reverse information projection, given the ball constraint's multiplier L.

    The p that minimises sum q log(q / p) within sum (p - b)^2 / b <= radius^2 satisfies L p^2 / b - s p = q,
    with s for sum p = 1; summed over the bins this says s = L (1 + radius^2) - 1. L = 0 leaves q as it is.
    """
    s = multiplier * (1 + radius * radius) - 1
    root = math.sqrt(s * s + 4 * multiplier * q / b)
    return b * (s + root) / (2 * multiplier) if s > 0 else 2 * q / (root - s)  # neither form cancels


@body
def multiplier_of(recent: Any, floored: Any, total: float, radius: float) -> float:
    """Return L of the projection of a column's bet; 0, for no bet, if the bet is within the ball.

    With s as above, sum p = 1 + L f(L), f(L) = sum p (1 + radius^2 - p / b). f(0) is radius^2 minus the bet's
    squared distance. If that is negative, f has one root above 0; there L radius^2 = 1 - sum q b / p, which
    is at most 1. Newton's method, kept between the bounds, starts from p on the line from b to q.
    """
    square = radius * radius
    distance = 0.0
    for k in range(len(recent)):
        b = floored[k]
        distance += (bet(recent[k], b, total) - b) ** 2 / b
    if distance <= square:
        return 0.0
    shrink, initial = radius / math.sqrt(distance), 1.0
    for k in range(len(recent)):
        b = floored[k]
        q = bet(recent[k], b, total)
        initial -= q * b / (b + shrink * (q - b))
    low, high = 0.0, 1 / square
    multiplier = min(initial / square, high)
    for _ in range(60):
        excess, slope = 0.0, 0.0
        for k in range(len(recent)):
            b = floored[k]
            q = bet(recent[k], b, total)
            p = projected_share(q, b, multiplier, radius)
            term = p * (1 + square - p / b)
            excess += term
            slope += term * (1 + square - 2 * p / b) / (1 + multiplier * (2 * p / b - 1 - square))
        if excess < 0:
            low = multiplier
        else:
            high = multiplier
        candidate = multiplier - excess / slope if slope > 0 else high
        if not low < candidate < high:
            candidate = (low + high) / 2
        step = abs(candidate - multiplier)
        multiplier = candidate
        if step <= 1e-12 * multiplier + 1e-15:
            break
    return multiplier


@body
def change_gain(counts: Any, gaps: Any, seen: Any, recent: Any, total: float, fair: float) -> float:
    """Return the log of what a unit bet of `change` returns."""
    ranks = 0.0
    for k in range(len(counts)):
        ranks += gaps[k] + seen[k]
    gain = -fair
    for k in range(len(counts)):
        if counts[k] > 0:
            gain += counts[k] * math.log(bet(recent[k], (gaps[k] + seen[k]) / ranks, total))
    return gain


@body
def alarm_gain(
    counts: Any, floored: Any, recent: Any, total: float, radius: float, multiplier: float
) -> float:
    """Return the log of what a unit bet of `alarm` returns, in the worst case within the ball."""
    gain, rows, mass = 0.0, 0.0, 0.0
    for k in range(len(counts)):
        q = bet(recent[k], floored[k], total)
        p = projected_share(q, floored[k], multiplier, radius)
        mass += p
        if counts[k] > 0:
            rows += counts[k]
            gain += counts[k] * math.log(q / p)
    return gain + rows * math.log(mass)


@body
def total_of(recent: Any) -> float:
    """Return the number of rows remembered."""
    total = 0.0
    for k in range(len(recent)):
        total += np.float64(recent[k])
    return total


@body
def remember(counts: Any, decay: float, recent: Any) -> None:
    """Decay the remembered counts, and add those of a look."""
    for k in range(len(counts)):
        recent[k] = decay * recent[k] + counts[k]


@body
def look_at_column(
    column: int,
    counts: Any,
    gaps: Any,
    floored: Any,
    radius: Any,
    half_lives: Any,
    recent: Any,
    seen: Any,
    change: Any,
    alarm: Any,
) -> None:
    """Do one look at one column."""
    n, g, b, seen_counts = counts[column], gaps[column], floored[column], seen[column]
    rows = 0.0
    for k in range(len(n)):
        rows += n[k]
    if rows == 0:
        return
    fair = fair_price(n, g, seen_counts)
    for h in range(len(half_lives)):
        decay = 0.5 ** (rows / half_lives[h])
        recent_rows = recent[column, 0, h]
        gain = change_gain(n, g, seen_counts, recent_rows, total_of(recent_rows), fair)
        change[column, h] = log_sum(change[column, h], math.log(rows)) + gain
        remember(n, decay, recent_rows)
        recent_rows = recent[column, 1, h]
        total = total_of(recent_rows)
        multiplier = multiplier_of(recent_rows, b, total, radius[column])
        if multiplier > 0:
            gain = alarm_gain(n, b, recent_rows, total, radius[column], multiplier)
            alarm[column, h] = log_sum(alarm[column, h], math.log(rows)) + gain
        remember(n, decay, recent_rows)
    for k in range(len(n)):
        seen_counts[k] += n[k]


@driver
def _look(
    counts: Any,
    gaps: Any,
    floored: Any,
    radius: Any,
    half_lives: Any,
    recent: Any,
    seen: Any,
    change: Any,
    alarm: Any,
) -> None:
    for column in range(len(counts)):
        look_at_column(column, counts, gaps, floored, radius, half_lives, recent, seen, change, alarm)


@grid
def _look_cuda(
    counts: Any,
    gaps: Any,
    floored: Any,
    radius: Any,
    half_lives: Any,
    recent: Any,
    seen: Any,
    change: Any,
    alarm: Any,
) -> None:
    column = cuda.grid(1)
    if column < len(counts):
        look_at_column(column, counts, gaps, floored, radius, half_lives, recent, seen, change, alarm)
