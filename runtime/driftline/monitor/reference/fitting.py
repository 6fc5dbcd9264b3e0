"""Fit a reference to data: exactly if it is small or in memory, else by sketches, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from driftline.columns import Column, Columns, float32, kind_of, matrices
from driftline.errors import BadRequest, listed
from driftline.monitor.reference.column import Categorical, Reference, categorical, numeric
from driftline.monitor.reference.quantiles import Exact, Sketch
from driftline.monitor.reference.whole import Whole
from driftline.tensors import Array, shorten
from driftline_kernels import moments, rows

FEW_INTEGERS = 20
"""An integer column with at most this many different values is categorical by default."""

MAX_DISTINCT = 100_000
"""Categories kept while fitting; beyond twice as many, the rarest so far are dropped."""

MAX_BYTES = 2**27
"""Batches up to this many bytes in all are kept, and fitted exactly if no more follow."""

FAMILIES = {"float": "numbers", "integer": "numbers", "boolean": "strings", "string": "strings"}
"""Kinds that one column's batches may mix: integers with nulls are floats, booleans with nulls strings."""


class Fit:
    """Takes batches of the same columns, then fits their references.

    most_bytes  batches are kept up to this size; beyond it, quantiles are sketched in memory that does not
                grow, and the kept batches decide which columns are numeric and how whole rows are scaled
    kinds       'numeric' or 'categorical' by column name, to override the rule. By it, categorical are:
                strings, booleans, whole numbers declared as categories, and integers without nulls of at
                most FEW_INTEGERS different values, except dates and times
    """

    def __init__(self, kinds: Mapping[str, str] | None = None, most_bytes: float | None = None) -> None:
        if not isinstance(kinds or {}, Mapping):
            raise BadRequest(
                f"kinds: expected 'numeric' or 'categorical' by column name, got {shorten(kinds)}"
            )
        self._wanted = dict(kinds or {})
        self._most_bytes = MAX_BYTES if most_bytes is None else most_bytes
        self._families: dict[str, str] = {}
        self._temporal: dict[str, str] = {}
        self._declared: set[str] = set()
        self._batches: list[Columns] = []
        self._batch_bytes = 0
        self._numbers: Numbers | None = None
        self._sketches: dict[str, Sketch] = {}
        self._categories: dict[str, Categories] = {}

    def update(
        self, columns: Columns, temporal: Mapping[str, str] | None = None, declared: Iterable[str] = ()
    ) -> None:
        """Add a batch; BadRequest names a column that differs from those of earlier batches.

        temporal  which columns hold dates and times, as in `driftline.columns.temporal_of`
        declared  which whole numbers are categories, as in `driftline.columns.declared_of`
        """
        self._check(columns)
        self._temporal |= temporal or {}
        self._declared.update(declared)
        if self._numbers is not None:
            self._add(columns)
            return
        self._batches.append(columns)
        self._batch_bytes += sum(column.nbytes for column in columns.values())
        if self._batch_bytes > self._most_bytes:
            numbers = self._start()
            self._sketches = {name: Sketch() for name in numbers.names}
            for batch in self._batches:
                self._add(batch)
            self._batches.clear()

    def result(self) -> tuple[tuple[Reference, ...], Whole]:
        """Return the reference of each column, and of whole rows."""
        exact = self._numbers is None
        numbers = self._numbers or self._start()
        if exact:
            for batch in self._batches:
                self._add(batch)
        references: dict[str, Reference] = {
            name: categories.reference(name) for name, categories in self._categories.items()
        }
        for index, name in enumerate(numbers.names):
            order = Exact(self._finite(name)) if exact else self._sketches[name]
            reference = numeric(name, order, numbers.special[index], numbers.moments[index])
            references[name] = replace(reference, temporal=self._temporal.get(name, ""))
        return tuple(references[name] for name in self._families), numbers.whole()

    def _check(self, columns: Columns) -> None:
        if "" in columns:  # the name that signals use for the model as a whole
            raise BadRequest(
                "a profile: expected columns with names, got one without; "
                "pandas writes its index as such a column, but for index=False"
            )
        families = {name: _family(column) for name, column in columns.items()}
        if not self._families:
            self._families = dict(families)
            for name, kind in self._wanted.items():
                if name not in columns or kind not in ("numeric", "categorical"):
                    raise BadRequest(
                        f"column {name!r} as {kind!r}: expected one of {listed(columns)} "
                        "as 'numeric' or 'categorical'"
                    )
        if families.keys() != self._families.keys():
            differing = ", ".join(sorted(families.keys() ^ self._families.keys()))
            raise BadRequest(f"expected the columns of the first batch; got more or fewer: {differing}")
        for name, family in families.items():
            earlier = self._families[name]
            if family and earlier and family != earlier:
                raise BadRequest(f"column {name!r}: expected {earlier} as before, got {family}")
            self._families[name] = earlier or family
            if self._wanted.get(name) == "numeric" and kind_of(columns[name]) == "string":
                raise BadRequest(f"column {name!r}: expected numbers, got strings")

    def _start(self) -> Numbers:
        """Decide from the kept batches which columns are numeric, and how they are scaled."""
        self._families = {name: family or "numbers" for name, family in self._families.items()}
        names = [name for name in self._families if self._is_numeric(name)]
        self._categories = {
            name: Categories(self._kinds(name)) for name in self._families if name not in names
        }
        spread = moments.start(len(names))
        for batch in self._batches if names else ():
            for matrix in matrices(batch, names):
                moments.update(matrix, spread)
        self._numbers = Numbers(Whole.start(names, spread))
        return self._numbers

    def _is_numeric(self, name: str) -> bool:
        if name in self._wanted:
            return self._wanted[name] == "numeric"
        if name in self._temporal:
            return True
        if name in self._declared:
            return False
        kinds = self._kinds(name)
        if kinds == {"integer"}:
            distinct: set[int] = set()
            for batch in self._batches:
                distinct.update(np.unique(batch[name]).tolist())
                if len(distinct) > FEW_INTEGERS:
                    return True
            return False
        return self._families[name] == "numbers" and "float" in kinds

    def _kinds(self, name: str) -> set[str]:
        return {kind_of(batch[name]) for batch in self._batches}

    def _add(self, columns: Columns) -> None:
        if self._numbers is not None:
            self._numbers.update(columns)
        for name, sketch in self._sketches.items():
            sketch.update(_finite(columns[name]))
        for name, categories in self._categories.items():
            categories.update(name, columns[name])

    def _finite(self, name: str) -> Array:
        return np.concatenate([np.empty(0, np.float32), *(_finite(batch[name]) for batch in self._batches)])


class Numbers:
    """The kernels' statistics of the numeric columns, in one pass over their rows."""

    def __init__(self, whole: Whole) -> None:
        self.names = whole.names
        self._whole = whole
        self._state = whole.state(whole.tables(np.empty((len(whole.names), 0), np.float32)))
        self._rows = 0

    def update(self, columns: Columns) -> None:
        """Add a batch."""
        for matrix in matrices(columns, self.names):
            rows.observe(matrix, self._state)
        self._rows += len(next(iter(columns.values()), ()))

    @property
    def special(self) -> Array:
        """How many values are missing, +inf and -inf: (F, 3)."""
        counts: Array = self._state.counts[:, 1:]
        return counts

    @property
    def moments(self) -> Array:
        """The moments of the finite values: (F, 5)."""
        result: Array = self._state.moments.copy()
        return result

    def whole(self) -> Whole:
        """Return the reference of whole rows."""
        state = self._state
        return replace(
            self._whole,
            features=state.features.copy(),
            comoments=state.comoments.copy(),
            rows=self._rows,
        )


class Categories:
    """Counts of a categorical column in two halves of its rows; a coin splits each pair between them.

    The halves are not the even and the odd rows, since rows may alternate: arrivals and departures, say.

    kinds  of its first batches, all of one family; 'float' beside 'integer' is a batch with nulls
    """

    def __init__(self, kinds: set[str]) -> None:
        self._kind = next(kind for kind in ("boolean", "string", "integer", "float") if kind in kinds)
        self._kind = "integer" if self._kind == "float" else self._kind
        self._rows = 0
        self._halves: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self._dropped_rows = [0, 0]

    def update(self, name: str, column: Column) -> None:
        """Add a batch; BadRequest names a column whose numbers aren't whole."""
        in_second = _in_second_half(self._rows, len(column))
        for index, half in enumerate(self._halves):
            rows = np.flatnonzero(in_second == index)
            half.update(value_counts(name, column.take(rows)))
            if len(half) > 2 * MAX_DISTINCT:
                kept = dict(half.most_common(MAX_DISTINCT))
                self._dropped_rows[index] += half.total() - sum(kept.values())
                half.clear()
                half.update(kept)
        self._rows += len(column)

    def reference(self, name: str) -> Categorical:
        """Return the reference of the rows so far."""
        first, second = self._dropped_rows
        missing = self._rows - sum(half.total() for half in self._halves) - first - second
        return categorical(name, self._halves, missing, self._kind, (first, second))


def _in_second_half(start: int, rows: int) -> Array:
    """Return (rows,) whether rows from `start` on are in the second half, whatever the batches."""
    row = np.arange(start, start + rows, dtype=np.uint64)
    coin = row >> np.uint64(1)  # the pair's number, mixed as in Steele, Lea, Flood: SplitMix (2014)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        coin += np.uint64(0x9E3779B97F4A7C15)
        coin = (coin ^ (coin >> np.uint64(shift))) * np.uint64(factor)
    return ((row ^ (coin >> np.uint64(63))) & np.uint64(1)).astype(np.bool_)


def value_counts(name: str, column: Column) -> dict[str, int]:
    """Count each value except missing ones; BadRequest if one is a number that isn't whole."""
    if not isinstance(column, np.ndarray):
        counted = column.drop_null().value_counts()
        return dict(
            zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)
        )
    if column.dtype.kind == "f":
        column = column[~np.isnan(column)]
        if not (np.isfinite(column) & (column == np.trunc(column))).all():
            raise BadRequest(f"column {name!r} as 'categorical': expected whole numbers, got fractions")
        column = column.astype(np.int64)
    values, counts = np.unique(column, return_counts=True)
    return dict(zip(map(str, values.tolist()), counts.tolist(), strict=True))


def _family(column: Column) -> str:
    """Return the family of a column's kind; '' if all is missing, which has no type in some formats."""
    kind = kind_of(column)
    is_empty = kind == "float" and np.isnan(column[:1]).all() and np.isnan(column).all()
    return "" if is_empty else FAMILIES[kind]


def _finite(column: Column) -> Array:
    values = float32(column)
    finite = np.isfinite(values)
    return values if finite.all() else values[finite]
