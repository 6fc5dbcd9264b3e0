"""The change of a column in words: what has changed most, and how much."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import asin, floor, log, log10, sqrt
from statistics import NormalDist, median

import numpy as np

from driftline.monitor.comparison.statistics import Z_95, Statistic, rate_interval
from driftline.monitor.reference.column import Categorical, Numeric, Reference
from driftline.monitor.values import text
from driftline.tensors import Array

NONE = "no single change stands out"

CLOSER = "closer to the reference than chance allows, as a replay of its own rows is"

_MAX_CHANGES = 3
_MAX_NAME_LENGTH = 40
_MIN_CLOSER_PROBABILITY = 0.9999
"""A column is closer than chance allows if independent rows would be farther with this probability."""

_MIN_CLOSER_MEDIAN = 0.95
"""The same for half the columns of a model that has certainly changed."""

_MIN_FREEDOM = 5
"""Least degrees of freedom of chi-square: in fewer bins, counts are often alike by chance."""

KINDS = 4
"""Kinds of changes looked for in a column: missing, infinite, out of range or unseen, and the values."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def count_special(reference: Reference, counts: Array) -> dict[str, int]:
    """Count missing rows; of numbers, infinite ones and those out of range; of categories, unseen ones.

    A reference without rows has no range and no categories, so the counts that need these are left out.
    """
    counted = {"missing": int(counts[reference.missing])}
    outside_name = "unseen"
    bins = {reference.unseen} if isinstance(reference, Categorical) else {0, len(reference.edges)}
    if isinstance(reference, Numeric):
        outside_name = "out_of_range"
        if reference.maximum == _FLOAT32_MAX:  # nothing finite is beyond
            bins.remove(len(reference.edges))
        counted["infinite"] = int(counts[reference.missing + 1]) + int(counts[reference.missing + 2])
    if reference.rows:
        counted[outside_name] = sum(int(counts[bin_]) for bin_ in bins)
    return counted


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
        *_special_changes(reference, counts, statistics, chance),
        *(_value_changes(reference, counts, statistics, chance) if isinstance(reference, Numeric) else ()),
        *(_category_changes(reference, counts, chance) if isinstance(reference, Categorical) else ()),
    ]
    changes.sort(key=lambda change: -change[0])
    return "; ".join(words for _, words in changes[:_MAX_CHANGES]) or (
        CLOSER if _farther_by_chance(statistics) > _MIN_CLOSER_PROBABILITY else NONE
    )


def describe_all(
    descriptions: Sequence[tuple[str, str]], statistics: Sequence[Mapping[str, Statistic]]
) -> str:
    """Return how all columns together have changed: 'temp: mean up 0.4 sd; visib: missing 0 % -> 6 %'.

    descriptions  names of columns and their changes in words, most evidence first
    statistics    of all columns

    Rows may also be closer to the reference than independent ones would be: all columns together show this
    before any single one does.
    """
    changes = [f"{name}: {words}" for name, words in descriptions if words not in (NONE, CLOSER)]
    if changes:
        return "; ".join(changes)
    return CLOSER if median(map(_farther_by_chance, statistics)) > _MIN_CLOSER_MEDIAN else NONE


def _farther_by_chance(statistics: Mapping[str, Statistic]) -> float:
    """Return the chance that independent rows would be farther from the reference; 0 if bins are too few."""
    chi_square = statistics.get("chi_square")
    if chi_square is None or chi_square.p is None or (chi_square.null or 0) < _MIN_FREEDOM:
        return 0.0
    return chi_square.p


def _special_changes(
    reference: Reference, counts: Array, statistics: Mapping[str, Statistic], chance: float
) -> Iterator[tuple[float, str]]:
    certain = [
        name
        for name in ("missing", "infinite", "out_of_range", "unseen")
        if name in statistics and statistics[name].value and _is_certain(statistics[name], chance)
    ]
    if certain:
        before, after = count_special(reference, reference.counts), count_special(reference, counts)
        m, n = reference.rows, int(counts.sum())
        for name in certain:
            label, rows = name.replace("_", " "), after[name]
            if isinstance(reference, Numeric) and name == "out_of_range" and len(reference.edges):
                label, rows = _side_out_of_range(reference, counts)
            yield _rate_change(label, before[name] / m, rows / n)


def _side_out_of_range(reference: Numeric, counts: Array) -> tuple[str, int]:
    """Return on which side rows are out of range, and how many; both sides if neither has nine in ten."""
    below, above = int(counts[0]), int(counts[len(reference.edges)])
    least, greatest = (
        text(extreme, reference.temporal, reference.sd / 10)
        for extreme in (reference.minimum, reference.maximum)
    )
    if below >= 9 * above:
        return f"below {least}, the reference minimum:", below
    if above >= 9 * below:
        return f"above {greatest}, the reference maximum:", above
    return f"out of {least} to {greatest}:", below + above


def _value_changes(
    reference: Numeric, counts: Array, statistics: Mapping[str, Statistic], chance: float
) -> Iterator[tuple[float, str]]:
    """Yield the change of the mean and, if there is none or its effect is smaller, the change of the share
    of values below the inner edge where it differs most."""
    shift = statistics.get("mean_shift")
    finite = int(counts[: reference.missing].sum())
    shift_effect = 0.0
    # A few values from a long tail mostly spread less than it, so a lower mean seems certain.
    if (
        shift is not None
        and _is_certain(shift, chance)
        and abs(shift.value) > _z_score(chance) * sqrt(1 / reference.moments[0] + 1 / finite)
    ):
        shift_effect = abs(shift.value)
        yield shift_effect, _mean_change(reference, shift.value)
    farthest = statistics.get("kolmogorov_smirnov")  # over all edges
    if farthest is not None and (farthest.p or 0.0) < chance and len(reference.edges) > 2:
        effect, words = _share_below(reference, counts, chance)
        if effect > shift_effect:
            yield effect, words


def _share_below(reference: Numeric, counts: Array, chance: float) -> tuple[float, str]:
    """Return the largest change of a share below an inner edge; effect 0 if it may be chance."""
    inner_edges = slice(1, len(reference.edges) - 1)  # beyond the outer two is out of range
    m, n = (int(binned.sum() - binned[reference.missing]) for binned in (reference.counts, counts))
    p, q = (
        (binned[-1] + np.cumsum(binned[: reference.missing])[inner_edges]) / rows
        for binned, rows in ((reference.counts, m), (counts, n))
    )
    edge = int(np.abs(q - p).argmax())
    # If two samples are alike, the largest difference of their distribution functions exceeds this with
    # probability `chance` (Kolmogorov and Smirnov).
    if abs(q[edge] - p[edge]) > sqrt(-log(chance / 2) / 2) * sqrt(1 / m + 1 / n):
        return _rate_change(_below_edge(reference, edge + 1), p[edge], q[edge])
    return 0.0, ""


def _mean_change(reference: Numeric, shift: float) -> str:
    """Return 'mean up 0.4 sd, 12.1 -> 14'."""
    before, after = reference.mean, reference.mean + shift * reference.sd
    difference = abs(after - before)
    # Two digits of the old mean too, unless it is about 0.
    step = min(difference, max(abs(before), difference / 10))
    ends = (text(value, reference.temporal, step) for value in (before, after))
    return f"mean {'up' if shift > 0 else 'down'} {_short_number(abs(shift))} sd, {' -> '.join(ends)}"


def _category_changes(reference: Categorical, counts: Array, chance: float) -> Iterator[tuple[float, str]]:
    category_count = len(reference.categories)
    if not category_count:
        return
    m, n = reference.rows, int(counts.sum())
    before, after = reference.counts[:category_count], counts[:category_count]
    low, high = rate_interval(before, m, after, n, _z_score(chance / category_count))
    certain = np.flatnonzero((low > 0) | (high < 0))
    effects = np.abs(np.arcsin(np.sqrt(after[certain] / n)) - np.arcsin(np.sqrt(before[certain] / m)))
    for index in certain[np.argsort(-effects, kind="stable")[:_MAX_CHANGES]]:
        yield _rate_change(
            f"category {quoted(reference.categories[index])}", before[index] / m, after[index] / n
        )


def quoted(name: str) -> str:
    """Return a category in quotes on one line, shortened if it is long; what is not visible is escaped."""
    name = name if len(name) <= _MAX_NAME_LENGTH else name[: _MAX_NAME_LENGTH - 1] + "…"
    encoded = json.dumps(name, ensure_ascii=False)
    return "".join(
        character if character.isprintable() else json.dumps(character)[1:-1] for character in encoded
    )


def _is_certain(statistic: Statistic, chance: float) -> bool:
    """Return whether an interval that misses the truth with this chance, not 5 %, excludes zero."""
    if statistic.interval is None:
        return False
    low, high = statistic.interval
    return abs(low + high) > (high - low) * _z_score(chance) / Z_95


def _z_score(chance: float) -> float:
    """Return the standard errors that a normal variable exceeds, in either direction, with this chance."""
    return -NormalDist().inv_cdf(chance / 2)


def _rate_change(subject: str, before: float, after: float) -> tuple[float, str]:
    """Return Cohen's h, and the words."""
    return 2 * abs(asin(sqrt(after)) - asin(sqrt(before))), f"{subject} {percents(before, after)}"


def _below_edge(reference: Numeric, edge: int) -> str:
    """Say what lies below an edge: 'below' a value or, where a bin holds that value alone, 'up to' it."""
    edges, temporal, step = reference.edges, reference.temporal, reference.sd / 10
    if edge and edges[edge] == np.nextafter(edges[edge - 1], np.float32(np.inf)):
        return f"up to {text(float(edges[edge - 1]), temporal, step)}:"
    return f"below {text(float(edges[edge]), temporal, step)}:"


def percents(before: float, after: float) -> str:
    """Return '31 % -> 44 %', with as many digits as it takes to tell the two apart."""
    percentages = ("", "")
    for digits in range(7):
        percentages = _percent(before, digits), _percent(after, digits)
        if percentages[0] != percentages[1]:
            break
    return f"{percentages[0]} % -> {percentages[1]} %"


def _percent(share: float, digits: int) -> str:
    """Return a share in percent, with enough digits, six at most, not to be rounded to 0 or 100."""
    percent = 100 * share
    least = min(percent, 100 - percent)
    if 0 < least < 1:
        digits = max(digits, min(-floor(log10(least)), 6))
    return f"{percent:.{digits}f}"


def _short_number(value: float) -> str:
    if value < 1:
        return f"{value:.1g}"
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}" if value < 1e6 else f"{value:.1g}"
