"""Whole rows: random Fourier features and correlations of the numeric columns, all standardised alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from driftline.monitor.columns import Columns
from driftline.tensors import Array

FEATURES = 32
"""Random Fourier features."""

_CHUNK_ROWS = 16_384


@dataclass(frozen=True, slots=True, eq=False)
class Whole:
    """The reference of whole rows, over F numeric columns.

    names          of the columns, (F,)
    center, scale  what columns are standardised by, (F,); what is missing or infinite counts as the center
    features       sum over the rows of sqrt(2 / D) cos(z W + b), (D,)
    sums           sum over the rows of the standardised columns z, (F,)
    products       sum over the rows of their products, (F, F)
    rows           how many rows there are
    seed           of W and b
    """

    names: tuple[str, ...]
    center: Array
    scale: Array
    features: Array
    sums: Array
    products: Array
    rows: int
    seed: int = 0

    def weights(self) -> tuple[Array, Array]:
        """W (F, D) and b (D,), float32."""
        return weights(len(self.names), self.seed)

    @property
    def mean(self) -> Array:
        """The mean features, (D,)."""
        return self.features / max(self.rows, 1)

    @property
    def correlation(self) -> Array:
        """Pearson's correlations of the columns, (F, F)."""
        return correlation(self.sums, self.products, max(self.rows, 1))


class WholeFit:
    """Sums over the rows of the reference.

    names           of the numeric columns
    centers, scales  what to standardise them by: means and standard deviations, of a first batch at least
    """

    def __init__(self, names: Sequence[str], centers: Sequence[float], scales: Sequence[float]) -> None:
        self._names = tuple(names)
        self._center = np.nan_to_num(np.array(centers, np.float32))
        scale = np.nan_to_num(np.array(scales, np.float32))
        self._scale = np.where(scale > 0, scale, np.float32(1))
        self._weights = weights(len(names), 0)
        self._features = np.zeros(FEATURES)
        self._sums = np.zeros(len(names))
        self._products = np.zeros((len(names), len(names)))
        self._rows = 0

    def update(self, columns: Columns) -> None:
        """Add a batch of columns."""
        rows = len(next(iter(columns.values()), ()))
        for start in range(0, rows if self._names else 0, _CHUNK_ROWS):
            stop = min(start + _CHUNK_ROWS, rows)
            z = np.stack([np.asarray(columns[name][start:stop], np.float32) for name in self._names], axis=1)
            z = standardise(z, self._center, self._scale)
            self._features += features(z, *self._weights).sum(axis=0, dtype=np.float64)
            self._sums += z.sum(axis=0, dtype=np.float64)
            self._products += (z.T @ z).astype(np.float64)
        self._rows += rows

    def result(self) -> Whole:
        """What is known of whole rows now."""
        return Whole(
            self._names, self._center, self._scale, self._features, self._sums, self._products, self._rows
        )


def weights(columns: int, seed: int) -> tuple[Array, Array]:
    """Frequencies W (columns, D) and phases b (D,) of a Gaussian kernel as wide as a row is long.

    Rahimi and Recht, "Random features for large-scale kernel machines", 2007.
    """
    random = np.random.default_rng(seed)
    frequencies = random.standard_normal((columns, FEATURES)) / np.sqrt(max(columns, 1))
    phases = random.uniform(0, 2 * np.pi, FEATURES)
    return frequencies.astype(np.float32), phases.astype(np.float32)


def standardise(values: Array, center: Array, scale: Array) -> Array:
    """(values - center) / scale, float32; 0 for what is missing or infinite."""
    z = (values - center) / scale
    z[~np.isfinite(z)] = 0
    return np.asarray(z, np.float32)


def features(z: Array, frequencies: Array, phases: Array) -> Array:
    """sqrt(2 / D) cos(z W + b), (rows, D), whose square norm is 1 on average."""
    return np.asarray(np.sqrt(2 / len(phases)) * np.cos(z @ frequencies + phases))


def correlation(sums: Array, products: Array, rows: float) -> Array:
    """Pearson's correlations from sums (F,) and sums of products (F, F); 0 where a column is constant."""
    covariance = products / rows - np.outer(sums, sums) / rows**2
    sd = np.sqrt(np.maximum(np.diag(covariance), 0))
    both = np.outer(sd, sd)
    shift = np.where(both > 1e-12, covariance / np.where(both > 1e-12, both, 1), 0.0)
    np.fill_diagonal(shift, 1.0)
    return np.clip(shift, -1.0, 1.0)
