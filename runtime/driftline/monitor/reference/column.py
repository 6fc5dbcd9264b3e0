"""The reference of one column: its natural bins, the number of rows in each, and its rank bins.

Values are always compared as float32: training data in float64 and requests in float32 must fall into the
same bins. Live rows are counted in natural bins. Those of a numeric column are half-open intervals between
reference quantiles, a separate bin for every value that repeats at a quantile, and bins for missing and
infinite values and those beyond the extremes. Those of a categorical column are its categories, all other
values, and missing ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from driftline.monitor.reference.quantiles import Order
from driftline.monitor.reference.ranks import Group, cut_ranks, seed_of, split
from driftline.tensors import Array

BINS = 32
"""Natural bins of a numeric column, apart from the special ones; a multiple of ranks.CUTS."""

MAX_CATEGORIES = 1_000
"""Categories that are counted one by one; the rest are pooled."""

MIN_CATEGORY_ROWS = 5
"""A set of categories is closed if each occurs at least this often in the reference."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Numeric:
    """The reference of a numeric column.

    edges   (E,) float32, ascending; bin k is [edges[k - 1], edges[k]), the outer two unbounded
    counts  (E + 4,) int64: reference rows in bins 0 .. E, then missing, +inf, -inf
    split   (E + 4, 17): the share of each bin's rows that each rank bin gets
    gaps    (17,): the reference's gaps in each rank bin
    moments (5,) float64: count, mean, M2, least, greatest of the finite values; see driftline_kernels.moments
    source  the column's name in batches; the same as `name` if not given
    temporal what its microseconds are, as in driftline.columns.temporal_of; '' for numbers
    rows    number of reference rows
    """

    name: str
    edges: Array
    counts: Array
    split: Array
    gaps: Array
    moments: Array
    source: str = ""
    temporal: str = ""
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", self.source or self.name)
        object.__setattr__(self, "rows", int(self.counts.sum()))

    def __repr__(self) -> str:
        return _describe(self)

    @property
    def missing(self) -> int:
        """The bin of missing values."""
        return len(self.edges) + 1

    @property
    def mean(self) -> float:
        """The mean of the finite values; NaN if there are none."""
        return float(self.moments[1]) if self.moments[0] else float("nan")

    @property
    def sd(self) -> float:
        """The standard deviation of the finite values; NaN if there are none."""
        return float(np.sqrt(self.moments[2] / self.moments[0])) if self.moments[0] else float("nan")

    @property
    def minimum(self) -> float:
        """The least finite value; NaN if there is none."""
        return float(self.moments[3]) if self.moments[0] else float("nan")

    @property
    def maximum(self) -> float:
        """The greatest finite value; NaN if there is none."""
        return float(self.moments[4]) if self.moments[0] else float("nan")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Categorical:
    """The reference of a categorical column.

    categories  in a fixed order: sorted by text
    counts      (categories + 2,) int64: reference rows in each category, in none of them, and missing
    split       (categories + 2, 17): the share of each bin's rows that each rank bin gets
    gaps        (17,): the reference's gaps in each rank bin
    kind        of the values: 'string', 'integer' or 'boolean'
    source      the column's name in batches; the same as `name` if not given
    rows        number of reference rows
    """

    name: str
    categories: tuple[str, ...]
    counts: Array
    split: Array
    gaps: Array
    kind: str = "string"
    source: str = ""
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", self.source or self.name)
        object.__setattr__(self, "rows", int(self.counts.sum()))

    def __repr__(self) -> str:
        return _describe(self)

    @property
    def unseen(self) -> int:
        """The bin of values that are none of the categories."""
        return len(self.categories)

    @property
    def missing(self) -> int:
        """The bin of missing values."""
        return len(self.categories) + 1


Reference = Numeric | Categorical


def _describe(reference: Reference) -> str:
    """Return a reference's repr: its line in the profile's table."""
    from driftline.monitor.reference.summary import cells

    name, kind, rows, missing, values = cells(reference)
    suffix = f", {missing} missing" if missing else ""
    return f"{type(reference).__name__}({name!r}, {kind}, {rows} rows{suffix}: {values})"


def numeric(name: str, order: Order, special: Array, moments: Array) -> Numeric:
    """Return the reference of a numeric column.

    order    its finite values
    special  (3,) how many values are missing, +inf and -inf
    moments  (5,) of the finite values
    """
    missing, plus, minus = (int(count) for count in special)
    rows = order.rows + minus + plus + missing
    edges = _edges(order, rows, minus)
    below = np.array([0, *(order.count_below(edge) for edge in edges), order.rows])
    inner = np.maximum(np.diff(np.maximum.accumulate(below)), 0)
    counts = np.array([*inner, missing, plus, minus], np.int64)
    # A sketch counts for as many rows as a sample of the same accuracy.
    trust = order.trusted_rows / order.rows if order.rows else 1.0
    single_bins = [False, *(right == _next_float32(left) for left, right in pairwise(edges))]
    groups = [
        Group(_trusted_rows(minus, trust), single=True),
        *(
            Group(_trusted_rows(int(count), trust), is_single)
            for count, is_single in zip(inner, [*single_bins, False][: len(inner)], strict=True)
        ),
        Group(_trusted_rows(plus, trust), single=True),
        Group(_trusted_rows(missing, trust), single=True),
    ]
    shares, gaps = split(groups, seed_of(name, edges, counts))
    return Numeric(
        name,
        edges,
        counts,
        # Reorder from the column's order, -inf first and missing last, to that of the bins.
        np.concatenate([shares[1:-2], shares[[-1, -2, 0]]]),
        gaps,
        moments,
    )


def _edges(order: Order, rows: int, minus: int) -> Array:
    """Return edges at the ranks that cut the rows, around values repeating there, and around the extremes."""
    edges: set[float] = set()
    for rank in cut_ranks(rows, BINS) if rows else ():
        if 1 <= rank - minus <= order.rows:
            value = order.value_at(rank - minus)
            edges.add(value)
            if order.count_up_to(value) - order.count_below(value) > order.resolution:
                edges.add(_next_float32(value))
    if order.rows:
        edges.add(order.value_at(1))
        edges.add(_next_float32(order.value_at(order.rows)))
    return np.array(sorted(edge for edge in edges if np.isfinite(edge)), np.float32)


def _next_float32(value: float) -> float:
    """Return the next float32; infinity after the greatest."""
    with np.errstate(over="ignore"):
        return float(np.nextafter(np.float32(value), np.float32(np.inf)))


def _trusted_rows(rows: int, trust: float) -> int:
    return rows if trust == 1.0 else round(rows * trust)


def categorical(
    name: str,
    halves: tuple[Mapping[str, int], Mapping[str, int]],
    missing: int,
    kind: str = "string",
    dropped: tuple[int, int] = (0, 0),
) -> Categorical:
    """Return the reference of a categorical column.

    halves   how often each category occurs in one half of the rows and in the other
    missing  how many values are missing
    dropped  rows in each half whose categories were dropped because there were too many

    If every category occurs at least MIN_CATEGORY_ROWS times, the set is closed: all rows are counted, and
    any other value was never seen. Otherwise the reference has likely missed some, and how many can't be
    estimated from the rows that named the others. So one half of the rows names the categories and only the
    other half is counted, including its values that the first half did not name.
    """
    first, second = halves
    totals = {value: first.get(value, 0) + second.get(value, 0) for value in {*first, *second}}
    all_kept = len(totals) <= MAX_CATEGORIES and not any(dropped)
    is_closed = all_kept and all(count >= MIN_CATEGORY_ROWS for count in totals.values())
    naming, counted = (totals, totals) if is_closed else (first, second)
    if not is_closed:
        missing = missing // 2
    most_frequent = sorted(naming, key=lambda value: (-naming[value], value))[:MAX_CATEGORIES]
    categories = tuple(sorted(most_frequent))
    category_counts = [counted.get(value, 0) for value in categories]
    others = sum(counted.values()) - sum(category_counts) + dropped[1]
    counts = np.array([*category_counts, others, missing], np.int64)
    seed = seed_of(name, *categories, counts)
    shares, gaps = split([Group(int(count), single=True) for count in counts], seed)
    return Categorical(name, categories, counts, shares, gaps, kind)
