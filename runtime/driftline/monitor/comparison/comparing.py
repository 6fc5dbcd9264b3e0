"""Compute all statistics of many columns at a time: numpy's calls cost more than its arithmetic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from driftline.monitor.comparison import statistics
from driftline.monitor.comparison.statistics import Statistic
from driftline.monitor.comparison.tails import distribution_functions
from driftline.monitor.comparison.wording import count_special
from driftline.monitor.reference.column import Numeric, Reference
from driftline.monitor.reference.whole import Whole, correlation, mean_features
from driftline.tensors import Array


class ColumnCounts(NamedTuple):
    """A column of a window: its reference, its counts (bins,) and, if it is numeric, its moments (5,)."""

    reference: Reference
    counts: Array
    moments: Array | None


Statistics = dict[str, Statistic]


def compare_columns(columns: Sequence[ColumnCounts]) -> list[Statistics]:
    """Return the statistics of each column, by name; none if window or reference has no rows of it."""
    results: list[Statistics] = [{} for _ in columns]
    groups: defaultdict[tuple[bool, int], list[int]] = defaultdict(list)
    for index, column in enumerate(columns):
        if column.reference.rows and column.counts.any():
            # Columns of about as many bins go together, so that padding is less than data.
            size = len(column.counts).bit_length()
            groups[isinstance(column.reference, Numeric), size].append(index)
    for (is_numeric, _), indices in groups.items():
        add_statistics = _add_numeric if is_numeric else _add_categorical
        add_statistics([columns[index] for index in indices], [results[index] for index in indices])
    return results


def compare_rows(whole: Whole, rows: int, features: Array, comoments: Array) -> Statistics:
    """Return the statistics of whole rows: mmd of at least one numeric column, correlations of at least two.

    features, comoments  of the window's rows, as in `whole`
    """
    results: Statistics = {}
    if not rows or not whole.rows or not whole.names:
        return results
    p, q = mean_features(whole.features, whole.rows), mean_features(features, rows)
    results["mmd"] = statistics.mean_embedding(p, q, whole.rows, rows)
    if len(comoments) > 2 and rows > 2:  # two rows always correlate
        shift = statistics.correlation_shift(
            correlation(whole.comoments), correlation(comoments), whole.rows, rows
        )
        results["correlation_max"], results["correlation_norm"] = shift
    return results


def _add_categorical(columns: list[ColumnCounts], results: list[Statistics]) -> None:
    width = max(len(column.counts) for column in columns)
    p, q = np.zeros((2, len(columns), width))
    for row, column in enumerate(columns):
        p[row, : len(column.counts)] = column.reference.counts
        q[row, : len(column.counts)] = column.counts
    _add_distances(p, q, results)
    _add_chi_square(p, q, results)
    _add_rates(columns, results)


def _add_numeric(columns: list[ColumnCounts], results: list[Statistics]) -> None:
    """Add statistics of numeric columns; those that need the order of values leave out missing ones."""
    width = max(len(column.counts) for column in columns)
    p, q = np.zeros((2, len(columns), width))
    for row, column in enumerate(columns):
        _put_in_order(column.reference.counts, p[row])
        _put_in_order(column.counts, q[row])
    _add_distances(p, q, results)
    present = np.flatnonzero(p[:, :-1].any(axis=1) & q[:, :-1].any(axis=1))
    distances = statistics.kolmogorov_smirnov(p[present, :-1], q[present, :-1])
    _store("kolmogorov_smirnov", distances, [results[row] for row in present])
    varied = [row for row, column in enumerate(columns) if _has_spread(column)]
    if varied:
        varied_columns = [columns[row] for row in varied]
        varied_results = [results[row] for row in varied]
        _add_moments(varied_columns, p[varied, 1:-2], q[varied, 1:-2], varied_results)
    _add_chi_square(p, q, results)
    _add_rates(columns, results)


def _put_in_order(counts: Array, row: Array) -> None:
    """Write the counts in order: -inf, the bins of finite values, zeros as padding, +inf, missing."""
    row[0] = counts[-1]
    row[1 : len(counts) - 2] = counts[:-3]
    row[-2] = counts[-2]
    row[-1] = counts[-3]


def _has_spread(column: ColumnCounts) -> bool:
    """Return whether the reference's finite values differ and the window has finite values, too."""
    reference, moments = column.reference, column.moments
    assert isinstance(reference, Numeric)
    assert moments is not None
    return reference.maximum > reference.minimum and bool(moments[0])


def _add_moments(columns: list[ColumnCounts], p: Array, q: Array, results: list[Statistics]) -> None:
    """Add what needs moments of the finite values; their bins are padded in p and q (columns, bins)."""
    references = [column.reference for column in columns if isinstance(column.reference, Numeric)]
    before = np.stack([reference.moments for reference in references], axis=1)
    after = np.stack([column.moments for column in columns if column.moments is not None], axis=1)
    sd = np.sqrt(before[2] / before[0])
    m, n = p.sum(axis=1), after[0]
    edges = np.full((len(columns), p.shape[1] - 1), np.inf)
    last = np.array([len(reference.edges) - 1 for reference in references])
    for row, reference in enumerate(references):
        edges[row, : last[row] + 1] = reference.edges
    points, (below_p, below_q) = distribution_functions(
        edges, last, np.stack([p, q]), np.stack([before[3], after[3]]), np.stack([before[4], after[4]])
    )
    shift = (after[1] - before[1]) / sd
    _store("wasserstein", statistics.wasserstein(below_p, below_q, points, sd, m, n, shift), results)
    # Add one row of the reference's spread: few rows, or equal ones, don't make a mean certain.
    spread = np.sqrt((after[2] + sd**2) / n)
    _store("mean_shift", statistics.mean_shift(before[1], sd, m, after[1], spread, n), results)


def _add_distances(p: Array, q: Array, results: list[Statistics]) -> None:
    for name, values in statistics.distances(p, q).items():
        _store(name, values, results)


def _add_chi_square(p: Array, q: Array, results: list[Statistics]) -> None:
    for statistic, result in zip(statistics.chi_square(p, q), results, strict=True):
        if statistic.null:  # with one bin there is nothing to test, and 0 would mean no difference
            result["chi_square"] = statistic


def _add_rates(columns: list[ColumnCounts], results: list[Statistics]) -> None:
    before = [count_special(column.reference, column.reference.counts) for column in columns]
    after = [count_special(column.reference, column.counts) for column in columns]
    m = np.array([column.reference.rows for column in columns])
    n = np.array([column.counts.sum() for column in columns])
    for name in before[0]:
        c, d = (np.array([special[name] for special in side]) for side in (before, after))
        extremes = 2 if name == "out_of_range" else 0
        _store(name, statistics.rate_change(c, m, d, n, extremes), results)


def _store(name: str, values: Iterable[Statistic], results: Iterable[Statistics]) -> None:
    for statistic, result in zip(values, results, strict=True):
        result[name] = statistic
