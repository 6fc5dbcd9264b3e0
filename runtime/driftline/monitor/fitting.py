"""From data to a reference, all of it in memory or batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from driftline.errors import BadRequest
from driftline.monitor.columns import Column, Columns
from driftline.monitor.quantiles import Exact, Sketch
from driftline.monitor.reference import Categorical, Numeric, Reference, categorical, numeric
from driftline.monitor.whole import Whole, WholeFit
from driftline.tensors import Array

FEW_INTEGERS = 20
"""An integer column with at most so many values is categorical, if nobody says otherwise."""

MOST_DISTINCT = 100_000
"""Categories kept while fitting; of more, those that occurred least so far are forgotten."""


class Fit:
    """Takes batches of the same columns, then makes their references.

    exact  keep all values and sort them; else sketch their quantiles, in memory that does not grow
    kinds  by column name 'numeric' or 'categorical', where the rule's choice is not wanted: strings and
           booleans are categorical, and integers if the first batch has at most FEW_INTEGERS values
    """

    def __init__(self, exact: bool, kinds: Mapping[str, str] | None = None) -> None:
        self._exact = exact
        self._kinds = dict(kinds or {})
        self._columns: dict[str, _Numbers | _Categories] = {}
        self._whole = WholeFit([], [], [])

    def update(self, columns: Columns) -> None:
        """Add a batch; BadRequest names a column that differs from the batches before."""
        if not self._columns:
            self._start(columns)
        if columns.keys() != self._columns.keys():
            odd = ", ".join(sorted(columns.keys() ^ self._columns.keys()))
            raise BadRequest(f"expected the columns of the first batch; came more or fewer: {odd}")
        for name, column in columns.items():
            self._columns[name].update(column)
        self._whole.update(columns)

    def _start(self, columns: Columns) -> None:
        for name, kind in self._kinds.items():
            if name not in columns or kind not in ("numeric", "categorical"):
                raise BadRequest(
                    f"column {name!r} as {kind!r}: expected one of {', '.join(columns)} "
                    "as 'numeric' or 'categorical'"
                )
        for name, column in columns.items():
            if self._is_numeric(name, column):
                self._columns[name] = _Numbers(name, self._exact)
            else:
                self._columns[name] = _Categories(name, kind_of(column))
        numbers = {name: columns[name] for name, one in self._columns.items() if isinstance(one, _Numbers)}
        first = [Moments.of(values) for values in numbers.values()]
        self._whole = WholeFit(list(numbers), [one.mean for one in first], [one.sd for one in first])

    def _is_numeric(self, name: str, column: Column) -> bool:
        kind, wanted = kind_of(column), self._kinds.get(name)
        if wanted == "numeric" and kind == "string":
            raise BadRequest(f"column {name!r}: expected numbers, came strings")
        if wanted is not None:
            return wanted == "numeric"
        return kind == "float" or (kind == "integer" and len(np.unique(column)) > FEW_INTEGERS)

    def references(self) -> tuple[Reference, ...]:
        """The reference of each column."""
        return tuple(column.reference() for column in self._columns.values())

    def whole(self) -> Whole:
        """What is known of whole rows."""
        return self._whole.result()


class Moments:
    """Rows, mean and sum of squared deviations; merged by Chan, Golub and LeVeque's formula (1979)."""

    def __init__(self) -> None:
        self.rows = 0
        self.mean = 0.0
        self.m2 = 0.0

    def update(self, values: Array) -> None:
        """Add values."""
        if not len(values):
            return
        values = values.astype(np.float64)
        mean = float(values.mean())
        rows = self.rows + len(values)
        shift = mean - self.mean
        self.m2 += float(((values - mean) ** 2).sum()) + shift * shift * self.rows * len(values) / rows
        self.mean += shift * len(values) / rows
        self.rows = rows

    @classmethod
    def of(cls, column: Column) -> Moments:
        """Those of a column's finite values, as float32."""
        moments, values = cls(), np.asarray(column, np.float32)
        moments.update(values[np.isfinite(values)])
        return moments

    @property
    def sd(self) -> float:
        """The standard deviation; NaN of nothing."""
        return float(np.sqrt(self.m2 / self.rows)) if self.rows else float("nan")


class _Numbers:
    """What is seen of a numeric column."""

    def __init__(self, name: str, exact: bool) -> None:
        self._name = name
        self._moments = Moments()
        self._values: list[Array] = []
        self._sketch = None if exact else Sketch()
        self._missing = self._minus = self._plus = 0

    def update(self, column: Column) -> None:
        if kind_of(column) == "string":
            raise BadRequest(f"column {self._name!r}: expected numbers as before, came strings")
        values = np.asarray(column, np.float32)
        finite = values[np.isfinite(values)]
        self._missing += int(np.isnan(values).sum())
        self._minus += int(np.isneginf(values).sum())
        self._plus += int(np.isposinf(values).sum())
        self._moments.update(finite)
        if self._sketch is None:
            self._values.append(finite)
        else:
            self._sketch.update(finite)

    def reference(self) -> Numeric:
        order = self._sketch or Exact(np.concatenate(self._values))
        infinite = (self._minus, self._plus)
        return numeric(self._name, order, self._missing, infinite, self._moments.mean, self._moments.sd)


class _Categories:
    """What is seen of a categorical column, in even and in odd rows."""

    def __init__(self, name: str, kind: str) -> None:
        self._name = name
        self._kind = kind
        self._rows = self._missing = 0
        self._halves: tuple[Counter[Any], Counter[Any]] = (Counter(), Counter())

    def update(self, column: Column) -> None:
        if (kind_of(column) == "string") != (self._kind == "string"):
            raise BadRequest(
                f"column {self._name!r}: expected {self._kind}s as before, came {kind_of(column)}s"
            )
        for parity, half in enumerate(self._halves):
            half.update(value_counts(column[(parity + self._rows) % 2 :: 2]))
            if len(half) > 2 * MOST_DISTINCT:
                kept = half.most_common(MOST_DISTINCT)
                half.clear()
                half.update(dict(kept))
        self._rows += len(column)

    def reference(self) -> Categorical:
        missing = self._rows - sum(half.total() for half in self._halves)
        even, odd = ({str(value): count for value, count in half.items()} for half in self._halves)
        return categorical(self._name, (even, odd), missing, self._kind)


def kind_of(column: Column) -> str:
    """'float', 'integer', 'boolean' or 'string'."""
    if not isinstance(column, np.ndarray):
        return "string"
    return {"f": "float", "b": "boolean"}.get(column.dtype.kind, "integer")


def value_counts(column: Column) -> dict[Any, int]:
    """How often each value occurs, missing ones apart."""
    if isinstance(column, np.ndarray):
        values, counts = np.unique(
            column[~np.isnan(column)] if column.dtype.kind == "f" else column, return_counts=True
        )
        return dict(zip(values.tolist(), counts.tolist(), strict=True))
    counted = column.drop_null().value_counts()
    return dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))
