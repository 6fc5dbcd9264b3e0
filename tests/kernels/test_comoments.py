"""Products of standardised columns, and the correlations that come of them."""

from __future__ import annotations

from typing import Any

import naive_rows
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from naive_kernels import ROUNDING, SIMULATED, examples, observed

from driftline_kernels import bins, comoments

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # inf - inf, on purpose

SCALING = np.array([[1.0, 2.0], [0.0, 1e-3], [5.0, 0.0]])


def updated(values: np.ndarray, scaling: np.ndarray, before: np.ndarray) -> np.ndarray:
    columns = len(scaling)
    if SIMULATED:
        edges, nothing = np.empty((columns, 0), values.dtype), np.zeros((columns + 1, 0), np.float32)
        result = observed([values], bins.prepare(edges), 0, scaling, nothing, correlate=True)
        return np.asarray(before + result.comoments)
    sums = before.copy()
    comoments.update(values, scaling, sums)
    return sums


@examples(100)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 10), st.just(3)), elements=st.floats(width=32)),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from("CF"),
)
def test_sums_of_products(values: np.ndarray, dtype: Any, order: Any) -> None:
    values = np.asarray(values, dtype, order=order)
    before = np.ones((4, 4))
    expected = before + naive_rows.comoments(values, SCALING)
    near = ROUNDING * 1e6 * len(values) if SIMULATED else 1e-6  # products are up to a million
    np.testing.assert_allclose(updated(values, SCALING, before), expected, rtol=1e-9, atol=near)


def test_correlations_of_many_rows() -> None:
    rows = 1500 if SIMULATED else 20_000  # more than one stripe of a GPU's
    values = np.random.default_rng(0).multivariate_normal([3, 4], [[4, 1], [1, 1]], rows)
    sums = updated(values, np.array([[3, 0.5], [4, 1]]), np.zeros((3, 3)))
    means = sums[:2, 2] / sums[2, 2]
    covariance = sums[:2, :2] / sums[2, 2] - np.outer(means, means)
    sd = np.sqrt(np.diag(covariance))
    assert sums[2, 2] == rows
    np.testing.assert_allclose(
        covariance / np.outer(sd, sd), np.corrcoef(values.T), rtol=ROUNDING if SIMULATED else 1e-9
    )
