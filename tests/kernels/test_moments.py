"""Moments, against exact sums on float64, in whatever pieces the rows come."""

from __future__ import annotations

from typing import Any

import naive_kernels
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from naive_kernels import ROUNDING, SIMULATED, back, examples, observed, there

from driftline_kernels import bins, moments

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # inf - inf, on purpose


def updated(*batches: np.ndarray) -> np.ndarray:
    """The moments of some batches, one after the other."""
    columns = batches[0].shape[1]
    if SIMULATED:
        edges, nothing = np.empty((columns, 0), batches[0].dtype), np.zeros((columns + 1, 0), np.float32)
        rows = np.concatenate(batches).astype(np.float64)
        near = [next((x + 7 for x in column if np.isfinite(x)), 0.0) for column in rows.T]
        scaling = np.stack([near, np.ones(columns)], axis=1)
        return np.asarray(observed([*batches], bins.prepare(edges), 0, scaling, nothing).moments)
    result = moments.start(columns)
    for batch in batches:
        moments.update(batch, result)
    return result


def merged(*parts: np.ndarray) -> np.ndarray:
    """Moments, merged from the left."""
    result = there(moments.start(len(parts[0])))
    for part in parts:
        moments.merge(result, there(part))
    return np.asarray(back(result))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [0, 1, 257] if SIMULATED else [0, 1, 2, 255, 257, 1000, 2100])
@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("mean", [5, -1e6])
def test_parts_merge_to_the_whole(dtype: type, rows: int, parts: int, mean: float) -> None:
    values = (mean + 3 * np.random.default_rng(rows).standard_normal((rows, 3))).astype(dtype)
    values[::7, 1] = np.nan
    values[::11, 2] = np.inf
    expected = naive_kernels.moments(values.astype(np.float64))
    pieces = [np.ascontiguousarray(piece) for piece in np.array_split(values, parts)]
    one_by_one = [updated(piece) for piece in pieces]
    for result in (updated(*pieces), merged(*one_by_one), merged(*one_by_one[::-1])):
        near = ROUNDING if SIMULATED and dtype is np.float32 else 1e-9
        np.testing.assert_allclose(result, expected, rtol=near, atol=near)


@examples(200)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 12), st.integers(1, 3)),
        elements=st.floats(width=32) | st.sampled_from([0.0, 1.0, 1e6, np.nan, np.inf, -np.inf]),
    ),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from("CF"),
)
def test_any_floats_in_any_order(values: np.ndarray, dtype: Any, order: Any) -> None:
    values = np.asarray(values, dtype, order=order)
    result, expected = updated(values), naive_kernels.moments(values.astype(np.float64))
    np.testing.assert_array_equal(result[:, [0, 3, 4]], expected[:, [0, 3, 4]])
    largest = np.maximum(abs(expected[:, 3]), abs(expected[:, 4])) * (expected[:, 0] > 0)
    largest = np.where(np.isfinite(largest), largest, 0)
    assert (abs(result[:, 1] - expected[:, 1]) <= 1e-14 * largest).all()
    slack = 1e-14 * largest * np.sqrt(expected[:, 2] * expected[:, 0]) + (1e-14 * largest) ** 2
    assert (abs(result[:, 2] - expected[:, 2]) <= 1e-12 * expected[:, 2] + slack).all()


def test_a_constant_column_has_no_spread() -> None:
    result = updated(np.full((1000, 1), 1e9 + 0.1), np.full((7, 1), 1e9 + 0.1))
    assert result[0, [0, 2, 3, 4]].tolist() == [1007, 0, 1e9 + 0.1, 1e9 + 0.1]
    assert result[0, 1] == (pytest.approx(1e9 + 0.1, rel=1e-15) if SIMULATED else 1e9 + 0.1)
