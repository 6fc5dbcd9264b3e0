"""Whole rows of a reference: random Fourier features and correlations of its numeric columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from driftline.tensors import Array
from driftline_kernels import bins, rows
from driftline_kernels.bins import Bins
from driftline_kernels.rows import State

FEATURES = 32
"""Random Fourier features."""

MAX_CORRELATED = 64
"""Correlations are kept for at most this many numeric columns: they take columns^2 operations a row."""


class Tables(NamedTuple):
    """What rows are counted by and compared with; read-only.

    bins     of the numeric columns
    edges    number of edges of each, padding included
    weights  of the features
    """

    bins: Bins
    edges: int
    weights: Array


@dataclass(frozen=True, slots=True, eq=False)
class Whole:
    """The reference of whole rows, over F numeric columns, as the kernels make it.

    names      of the columns, (F,)
    scaling    (F, 2) float64; mean and 1 / sd to standardise columns by, 0 for one that never varied
    features   (D,) float64; sums over the rows, see driftline_kernels.fourier; D = 0 if none are kept
    comoments  (F + 1, F + 1) float64; sums over the rows, see driftline_kernels.comoments; (0, 0) if none
               are kept, as with more than MAX_CORRELATED columns
    rows       number of rows
    seed       of the features' weights
    """

    names: tuple[str, ...]
    scaling: Array
    features: Array
    comoments: Array
    rows: int
    seed: int = 0

    @classmethod
    def start(cls, names: Sequence[str], spread: Array) -> Whole:
        """Return one of no rows; `spread` (F, 5), the columns' moments, is what they are standardised by."""
        columns = len(names)
        side = columns + 1 if 0 < columns <= MAX_CORRELATED else 0
        return cls(
            tuple(names),
            scaling(spread),
            np.zeros(FEATURES if columns else 0),
            np.zeros((side, side)),
            rows=0,
        )

    def weights(self) -> Array:
        """Return weights of a Gaussian kernel as wide as a row's usual norm: (F + 1, D) float32, phases last.

        Rahimi, Recht: Random features for large-scale kernel machines (2007).
        """
        columns, features = len(self.names), len(self.features)
        random = np.random.default_rng(self.seed)
        frequencies = random.standard_normal((columns, features)) / np.sqrt(max(columns, 1))
        phases = random.uniform(0, 2 * np.pi, features)
        return np.concatenate([frequencies, phases[None]]).astype(np.float32)

    def tables(self, edges: Array) -> Tables:
        """Return the tables of columns with edges (F, E) float32, see driftline_kernels.bins.prepare."""
        return Tables(bins.prepare(edges), edges.shape[1], self.weights())

    def state(self, tables: Tables) -> State:
        """Return the state from which kernels count rows and compare them with this reference."""
        correlate = self.comoments.size > 0
        return rows.start(tables.bins, tables.edges, self.scaling, tables.weights, correlate)


def scaling(spread: Array) -> Array:
    """Return mean and 1 / sd, 0 for a column that never varied, (F, 2), from moments (F, 5)."""
    count, mean, squares = spread[:, 0], spread[:, 1], spread[:, 2]
    varied = squares > 0
    inverse = np.zeros(len(spread))
    inverse[varied] = np.sqrt(count[varied] / squares[varied])
    return np.stack([mean, inverse], axis=1)


def mean_features(features: Array, rows: int) -> Array:
    """Return the mean of sqrt(2 / D) cos(z W + b), of mean square norm 1, from sums of cosines (D,)."""
    mean: Array = np.sqrt(2 / max(len(features), 1)) * features / max(rows, 1)
    return mean


def correlation(comoments: Array) -> Array:
    """Return Pearson's correlations (F, F) from comoments (F + 1, F + 1); 0 where a column is constant."""
    count = max(comoments[-1, -1], 1.0) if comoments.size else 1.0
    sums, products = comoments[-1:, :-1] / count, comoments[:-1, :-1] / count
    covariance = products - sums.T @ sums
    sd = np.sqrt(np.maximum(np.diag(covariance), 0))
    scale = np.outer(sd, sd)
    correlations = np.where(scale > 1e-12, covariance / np.where(scale > 1e-12, scale, 1), 0.0)
    np.fill_diagonal(correlations, 1.0)
    return np.clip(correlations, -1.0, 1.0)
