"""Fourier features of rows."""

from __future__ import annotations

from typing import Any

import naive_rows
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from naive_kernels import ROUNDING, SIMULATED, examples, observed

from driftline_kernels import bins, fourier

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # inf - inf, on purpose


def weights_of(columns: int, number: int = 8) -> np.ndarray:
    """Random weights, and phases as the last row."""
    random = np.random.default_rng(1)
    weights = random.standard_normal((columns + 1, number)).astype(np.float32)
    weights[-1] = random.uniform(0, 2 * np.pi, number)
    return weights


def summed(values: np.ndarray, scaling: np.ndarray, weights: np.ndarray) -> np.ndarray:
    if SIMULATED:
        edges = np.empty((len(scaling), 0), values.dtype)
        return np.asarray(observed([values], bins.prepare(edges), 0, scaling, weights).features)
    sums = np.zeros(weights.shape[1])
    fourier.update(values, scaling, weights, sums)
    return sums


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("rows", [0, 1, 60 if SIMULATED else 3000])
def test_sums_of_cosines(rows: int, order: Any, dtype: Any) -> None:
    values = np.random.default_rng(0).normal(3, 2, (rows, 5)).astype(dtype, order=order)
    values[::7, 2], values[::5, 3] = np.nan, -np.inf
    scaling = np.tile([3, 0.5], (5, 1))
    expected = naive_rows.features(values, scaling, weights_of(5))
    np.testing.assert_allclose(summed(values, scaling, weights_of(5)), expected, atol=1e-6 * max(rows, 1))


def test_more_than_a_stripe_of_rows() -> None:
    values = np.random.default_rng(0).standard_normal((1030, 1))
    expected = naive_rows.features(values, np.array([[0.0, 1.0]]), weights_of(1, 2))
    result = summed(values, np.array([[0.0, 1.0]]), weights_of(1, 2))
    np.testing.assert_allclose(result, expected, atol=1e-3)


def test_what_is_not_finite_counts_as_the_mean() -> None:
    scaling = np.array([[7.0, 2.0]])
    odd = summed(np.array([[np.nan], [np.inf], [-np.inf]]), scaling, weights_of(1))
    np.testing.assert_allclose(
        odd, 3 * summed(np.array([[7.0]]), scaling, weights_of(1)), rtol=ROUNDING if SIMULATED else 1e-12
    )


@examples(60)
@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.just(2)), elements=st.floats(width=32)))
def test_no_row_counts_for_more_than_one(values: np.ndarray) -> None:
    total = summed(values, np.array([[0.0, 1e20], [0.0, 1.0]]), weights_of(2))
    assert (abs(total) <= len(values) * (1 + 1e-6)).all()


def test_cosines() -> None:
    x = np.linspace(-50, 50, 2001, dtype=np.float32)
    result = np.array([fourier.cosine(value) for value in x])
    np.testing.assert_allclose(result, np.cos(x.astype(np.float64)), atol=5e-6)
    near = abs(x) < np.pi
    np.testing.assert_allclose(result[near], np.cos(x[near].astype(np.float64)), atol=4e-7)
