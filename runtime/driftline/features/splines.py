"""Basis functions of scikit-learn's SplineTransformer as polynomials, one for each piece between knots."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from driftline.tensors import Array


def edges_of(basis: Any) -> Array:
    """Return the knots of a scipy BSpline between which it was fitted, each once."""
    return np.unique(basis.t[basis.k : len(basis.t) - basis.k])


def pieces_of(basis: Any, extrapolation: str) -> Iterator[list[list[float]]]:
    """Yield the coefficients of each basis function, as `Piecewise` has them: of its Taylor polynomials.

    basis          a BSpline that returns all basis functions
    extrapolation  SplineTransformer's `extrapolation`
    """
    orders = np.arange(basis.k + 1)
    edges = edges_of(basis)
    series = np.array([basis(edges, nu=order) / math.factorial(order) for order in orders])
    count, degree = int(series.shape[2]), int(basis.k)
    outside = orders < {"constant": 1, "linear": 2}.get(extrapolation, len(orders))
    # Only so many functions are extrapolated, which tells if the outer knots are repeated.
    reach = {"constant": degree, "linear": max(degree, 2)}.get(extrapolation, count)
    below = 0 if extrapolation == "continue" and basis.t[degree] == basis.t[degree + 1] else reach
    for function in range(count):
        at_edges = series[:, :, function].T
        first = at_edges[0] * (outside & (function < below))
        last = at_edges[-1] * (outside & (function >= count - reach))
        yield [piece.tolist() for piece in (first, *at_edges[:-1], last)]
