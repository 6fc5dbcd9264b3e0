"""The change of a column in words: what has changed most, and how much."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import asin, floor, log, log10, sqrt
from statistics import NormalDist, median

import numpy as np

from driftline.monitor.comparison.statistics import NORMAL, Statistic, rate_interval
from driftline.monitor.reference.column import Categorical, Numeric, Reference
from driftline.monitor.values import text
from driftline.tensors import Array

NONE = "no single change stands out"

CLOSER = "closer to the reference than chance allows, as a replay of its own rows is"

_MOST = 3
_NAME_LENGTH = 40
_CLOSER = 0.9999
"""A column is closer than chance allows if independent rows would be farther with this probability."""

_CLOSER_TOGETHER = 0.95
"""The same for half the columns of a model that has certainly changed."""

_LEAST_FREEDOM = 5
"""Least degrees of freedom of chi-square: in fewer bins, counts are often alike by chance."""

KINDS = 4
"""Kinds of changes looked for in a column: missing, infinite, out of range or unseen, and the values."""

_GREATEST = float(np.finfo(np.float32).max)


def special(reference: Reference, counts: Array) -> dict[str, int]:
    """Count missing rows; of numbers, infinite ones and those out of range; of categories, unseen ones.

    A reference without rows has no range and no categories, so the counts that need these are left out.
    """
    found = {"missing": int(counts[reference.missing])}
    outside = "unseen"
    bins = {reference.unseen} if isinstance(reference, Categorical) else {0, len(reference.edges)}
    if isinstance(reference, Numeric):
        outside = "out_of_range"
        if reference.maximum == _GREATEST:  # nothing finite is beyond
            bins.remove(len(reference.edges))
        found["infinite"] = int(counts[reference.missing + 1]) + int(counts[reference.missing + 2])
    if reference.rows:
        found[outside] = sum(int(counts[bin_]) for bin_ in bins)
    return found


def describe(
    reference: Reference, counts: Array, statistics: Mapping[str, Statistic], chance: float = 0.05
) -> str:
    """Return 'mean up 0.4 sd, 12.1 -> 14; missing 0 % -> 6 %': up to three changes that are not chance.

    counts      the window's, in the reference's bins
    statistics  of the column, as `driftline.monitor.reporting.report` makes them
    chance      the probability of reporting each change if nothing has changed

    A change counts if its interval excludes zero; for many categories, or many edges, the interval holds for
    all of them at once. The largest effect comes first: Cohen's d for means, and for rates Cohen's h, which
    is made to be comparable with d (Cohen: Statistical power analysis, 1988).
    """
    changes = [
        *_special_rates(reference, counts, statistics, chance),
        *(_shift(reference, counts, statistics, chance) if isinstance(reference, Numeric) else ()),
        *(_categories(reference, counts, chance) if isinstance(reference, Categorical) else ()),
    ]
    changes.sort(key=lambda change: -change[0])
    return "; ".join(text for _, text in changes[:_MOST]) or (
        CLOSER if _farther_by_chance(statistics) > _CLOSER else NONE
    )


def describe_all(told: Sequence[tuple[str, str]], statistics: Sequence[Mapping[str, Statistic]]) -> str:
    """Return how all columns together have changed: 'temp: mean up 0.4 sd; visib: missing 0 % -> 6 %'.

    told        names of columns and their changes in words, most evidence first
    statistics  of all columns

    Rows may also be closer to the reference than independent ones would be: all columns together show this
    before any single one does.
    """
    changes = [f"{name}: {words}" for name, words in told if words not in (NONE, CLOSER)]
    if changes:
        return "; ".join(changes)
    return CLOSER if median(map(_farther_by_chance, statistics)) > _CLOSER_TOGETHER else NONE


def _farther_by_chance(statistics: Mapping[str, Statistic]) -> float:
    """Return the chance that independent rows would be farther from the reference; 0 if bins are too few."""
    found = statistics.get("chi_square")
    if found is None or found.p is None or (found.null or 0) < _LEAST_FREEDOM:
        return 0.0
    return found.p


def _special_rates(
    reference: Reference, counts: Array, statistics: Mapping[str, Statistic], chance: float
) -> Iterator[tuple[float, str]]:
    certain = [
        name
        for name in ("missing", "infinite", "out_of_range", "unseen")
        if name in statistics and statistics[name].value and _certain(statistics[name], chance)
    ]
    if certain:
        before, after = special(reference, reference.counts), special(reference, counts)
        m, n = reference.rows, int(counts.sum())
        for name in certain:
            told, rows = name.replace("_", " "), after[name]
            if isinstance(reference, Numeric) and name == "out_of_range" and len(reference.edges):
                told, rows = _side(reference, counts)
            yield _rate(told, before[name] / m, rows / n)


def _side(reference: Numeric, counts: Array) -> tuple[str, int]:
    """Return on which side rows are out of range, and how many; both sides if neither has nine in ten."""
    below, above = int(counts[0]), int(counts[len(reference.edges)])
    least, greatest = (
        text(end, reference.temporal, reference.sd / 10) for end in (reference.minimum, reference.maximum)
    )
    if below >= 9 * above:
        return f"below {least}, the reference minimum:", below
    if above >= 9 * below:
        return f"above {greatest}, the reference maximum:", above
    return f"out of {least} to {greatest}:", below + above


def _shift(
    reference: Numeric, counts: Array, statistics: Mapping[str, Statistic], chance: float
) -> Iterator[tuple[float, str]]:
    """Yield the change of the mean and, if there is none or its effect is smaller, the change of the share
    of values below the inner edge where it differs most."""
    shift = statistics.get("mean_shift")
    finite = int(counts[: reference.missing].sum())
    size = 0.0
    # A few values from a long tail mostly spread less than it, so a lower mean seems certain.
    if (
        shift is not None
        and _certain(shift, chance)
        and abs(shift.value) > _errors(chance) * sqrt(1 / reference.moments[0] + 1 / finite)
    ):
        size = abs(shift.value)
        yield size, _mean(reference, shift.value)
    farthest = statistics.get("kolmogorov_smirnov")  # over all edges
    if farthest is not None and (farthest.p or 0.0) < chance and len(reference.edges) > 2:
        effect, text = _share_below(reference, counts, chance)
        if effect > size:
            yield effect, text


def _share_below(reference: Numeric, counts: Array, chance: float) -> tuple[float, str]:
    """Return the largest change of a share below an inner edge; effect 0 if it may be chance."""
    inner = slice(1, len(reference.edges) - 1)  # beyond the outer two is out of range
    m, n = (int(each.sum() - each[reference.missing]) for each in (reference.counts, counts))
    p, q = (
        (each[-1] + np.cumsum(each[: reference.missing])[inner]) / rows
        for each, rows in ((reference.counts, m), (counts, n))
    )
    at = int(np.abs(q - p).argmax())
    # If two samples are alike, the largest difference of their distribution functions exceeds this with
    # probability `chance` (Kolmogorov and Smirnov).
    if abs(q[at] - p[at]) > sqrt(-log(chance / 2) / 2) * sqrt(1 / m + 1 / n):
        return _rate(_below(reference, at + 1), p[at], q[at])
    return 0.0, ""


def _mean(reference: Numeric, shift: float) -> str:
    """Return 'mean up 0.4 sd, 12.1 -> 14'."""
    before, after = reference.mean, reference.mean + shift * reference.sd
    apart = abs(after - before)
    step = min(apart, max(abs(before), apart / 10))  # two digits of the old mean too, unless it is about 0
    told = (text(value, reference.temporal, step) for value in (before, after))
    return f"mean {'up' if shift > 0 else 'down'} {_short(abs(shift))} sd, {' -> '.join(told)}"


def _categories(reference: Categorical, counts: Array, chance: float) -> Iterator[tuple[float, str]]:
    known = len(reference.categories)
    if not known:
        return
    m, n = reference.rows, int(counts.sum())
    before, after = reference.counts[:known], counts[:known]
    low, high = rate_interval(before, m, after, n, _errors(chance / known))
    certain = np.flatnonzero((low > 0) | (high < 0))
    effects = np.abs(np.arcsin(np.sqrt(after[certain] / n)) - np.arcsin(np.sqrt(before[certain] / m)))
    for index in certain[np.argsort(-effects, kind="stable")[:_MOST]]:
        yield _rate(f"category {quoted(reference.categories[index])}", before[index] / m, after[index] / n)


def quoted(name: str) -> str:
    """Return a category in quotes on one line, shortened if it is long; what is not visible is escaped."""
    name = name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"
    text = json.dumps(name, ensure_ascii=False)
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def _certain(statistic: Statistic, chance: float) -> bool:
    """Return whether an interval that misses the truth with this chance, not 5 %, excludes zero."""
    if statistic.interval is None:
        return False
    low, high = statistic.interval
    return abs(low + high) > (high - low) * _errors(chance) / NORMAL


def _errors(chance: float) -> float:
    """Return the standard errors that a normal variable exceeds, in either direction, with this chance."""
    return -NormalDist().inv_cdf(chance / 2)


def _rate(what: str, before: float, after: float) -> tuple[float, str]:
    """Return Cohen's h, and the words."""
    return 2 * abs(asin(sqrt(after)) - asin(sqrt(before))), f"{what} {percents(before, after)}"


def _below(reference: Numeric, at: int) -> str:
    """Say what lies below an edge: 'below' a value or, where a bin holds that value alone, 'up to' it."""
    edges, temporal, step = reference.edges, reference.temporal, reference.sd / 10
    if at and edges[at] == np.nextafter(edges[at - 1], np.float32(np.inf)):
        return f"up to {text(float(edges[at - 1]), temporal, step)}:"
    return f"below {text(float(edges[at]), temporal, step)}:"


def percents(before: float, after: float) -> str:
    """Return '31 % -> 44 %', with as many digits as it takes to tell the two apart."""
    texts = ("", "")
    for digits in range(7):
        texts = _percent(before, digits), _percent(after, digits)
        if texts[0] != texts[1]:
            break
    return f"{texts[0]} % -> {texts[1]} %"


def _percent(share: float, digits: int) -> str:
    """Return a share in percent, with enough digits, six at most, not to be rounded to 0 or 100."""
    percent = 100 * share
    least = min(percent, 100 - percent)
    if 0 < least < 1:
        digits = max(digits, min(-floor(log10(least)), 6))
    return f"{percent:.{digits}f}"


def _short(value: float) -> str:
    if value < 1:
        return f"{value:.1g}"
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}" if value < 1e6 else f"{value:.1g}"
