"""What was counted since a moment in time: O(bins) numbers per column, no rows kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from driftline.errors import BadRequest
from driftline.tensors import Array
from driftline_kernels import moments


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Window:
    """A snapshot of the counts. Windows add up: tumbling ones to a sliding one, and those of replicas.

    began, ended  in UTC
    rows          how many were observed; a column may have fewer, such as an output not always computed
    counts        by column, (bins,) int64: rows in the natural bins, as the reference's own counts
    moments       by numeric column, (5,) float64: count, mean, M2, least and greatest of the finite values
    features      (D,) float64: sums over the rows, made by driftline_kernels.fourier
    comoments     (F + 1, F + 1) float64: sums over the rows, made by driftline_kernels.comoments, or (0, 0)
    """

    began: datetime
    ended: datetime
    rows: int
    counts: dict[str, Array]
    moments: dict[str, Array]
    features: Array
    comoments: Array

    def __repr__(self) -> str:
        began, ended = f"{self.began:%Y-%m-%d %H:%M:%S}", f"{self.ended:%Y-%m-%d %H:%M:%S}"
        return f"Window({self.rows:,} rows, {began} to {ended} UTC)"

    def merge(self, other: Window) -> Window:
        """Return the window of both windows' rows; counts are exact, moments up to rounding.

        Raises BadRequest if their columns or bins differ.
        """
        if _shapes(self) != _shapes(other):
            raise BadRequest("windows: expected the same columns and bins, got different ones")
        return Window(
            min(self.began, other.began),
            max(self.ended, other.ended),
            self.rows + other.rows,
            {name: counts + other.counts[name] for name, counts in self.counts.items()},
            _merge_moments(self.moments, other.moments),
            self.features + other.features,
            self.comoments + other.comoments,
        )


def _shapes(window: Window) -> tuple[object, ...]:
    bins = {name: len(counts) for name, counts in window.counts.items()}
    return bins, window.moments.keys(), window.features.shape, window.comoments.shape


def _merge_moments(first: Mapping[str, Array], second: Mapping[str, Array]) -> dict[str, Array]:
    if not first:
        return {}
    merged = np.stack(list(first.values()))
    moments.merge(merged, np.stack([second[name] for name in first]))
    return dict(zip(first, merged, strict=True))
