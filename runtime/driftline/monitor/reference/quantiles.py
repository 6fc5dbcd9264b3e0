"""The order of a column's finite values: exact, or from a sketch when they don't fit in memory."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from driftline.tensors import Array

SKETCH_K = 4096
"""The size of a KLL sketch: its ranks are within 0.07 % of the rows (Karnin, Lang, Liberty 2016)."""


class Order(Protocol):
    """Values in order; ranks start at 1."""

    @property
    def rows(self) -> int:
        """How many values there are."""
        ...

    @property
    def trusted_rows(self) -> int:
        """The number of rows of a sample with equally accurate ranks."""
        ...

    @property
    def resolution(self) -> int:
        """A value that occurs more often than this is known to repeat."""
        ...

    def value_at(self, rank: int) -> float:
        """The value of a rank."""
        ...

    def count_below(self, value: float) -> int:
        """How many values are less."""
        ...

    def count_up_to(self, value: float) -> int:
        """How many values are less or equal."""
        ...


class Exact:
    """All values, sorted."""

    def __init__(self, values: Array) -> None:
        self._values = np.sort(values)

    @property
    def rows(self) -> int:
        """How many values there are."""
        return len(self._values)

    @property
    def trusted_rows(self) -> int:
        """All of them."""
        return len(self._values)

    @property
    def resolution(self) -> int:
        """Every value is kept: 1."""
        return 1

    def value_at(self, rank: int) -> float:
        """The value of a rank."""
        return float(self._values[rank - 1])

    def count_below(self, value: float) -> int:
        """How many values are less."""
        return int(np.searchsorted(self._values, value, side="left"))

    def count_up_to(self, value: float) -> int:
        """How many values are less or equal."""
        return int(np.searchsorted(self._values, value, side="right"))


class Sketch:
    """A KLL sketch of the values.

    Its ranks are off by a share e of the rows. So are those of a sample of 1 / (4 e^2) rows: its ranks are
    trusted as much as that sample's, see `trusted_rows`.
    """

    def __init__(self) -> None:
        from datasketches import kll_floats_sketch

        self._sketch: Any = kll_floats_sketch(SKETCH_K)

    def update(self, values: Array) -> None:
        """Add values."""
        if len(values):
            self._sketch.update(np.require(values, np.float32, ["C", "W"]))

    @property
    def rows(self) -> int:
        """How many values there are."""
        return int(self._sketch.n)

    @property
    def trusted_rows(self) -> int:
        """The number of rows of a sample with equally accurate ranks."""
        return min(self.rows, round(1 / (4 * self._error**2))) if self._error else self.rows

    @property
    def resolution(self) -> int:
        """Some values stand for many others: twice the error."""
        return max(1, round(2 * self._error * self.rows))

    @property
    def _error(self) -> float:
        return float(self._sketch.normalized_rank_error(False)) if self._sketch.is_estimation_mode() else 0.0

    def value_at(self, rank: int) -> float:
        """Return the approximate value of a rank; the least and the greatest are exact."""
        if rank == 1:
            return float(self._sketch.get_min_value())
        return float(self._sketch.get_quantile(min(1.0, rank / self.rows)))

    def count_below(self, value: float) -> int:
        """Return about how many values are less."""
        return round(float(self._sketch.get_rank(value, False)) * self.rows)

    def count_up_to(self, value: float) -> int:
        """Return about how many values are less or equal."""
        return round(float(self._sketch.get_rank(value, True)) * self.rows)
