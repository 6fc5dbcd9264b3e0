"""Blocks of CUDA threads that share the work on many rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_kernels import ROUNDING, SIMULATED, back, bin_counts, examples, moments, there
from numpy.lib.stride_tricks import as_strided

from driftline_kernels import bins, rows, sharing
from driftline_kernels.device import BLOCKS, THREADS

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the simulator warns as Python does


@examples(200)
@given(st.integers(0, 3_000_000), st.integers(0, 300), st.integers(4, 256), st.sampled_from("CF"))
def test_blocks_cover_all_columns_and_fit_in_their_memory(
    number: int, columns: int, cells: int, order: Any
) -> None:
    strides = (4, 4 * max(number, 1)) if order == "F" else (4 * columns, 4)
    values = as_strided(np.zeros(1, np.float32), (number, columns), strides)  # nobody reads it
    (across, down), width = sharing.columns_layout(values, cells)
    if not number or not columns:
        assert across == down == 0
        return
    assert width * down >= columns > width * (down - 1)
    assert 1 <= width <= THREADS
    assert width * cells <= sharing.HISTOGRAM
    assert 1 <= across <= BLOCKS
    if order == "F" and columns > 1:
        assert width == 1


@given(st.integers(0, 3_000_000), st.integers(0, 65), st.integers(0, 100))
def test_blocks_cover_all_products_and_features(number: int, columns: int, features: int) -> None:
    (deep, tiles), side = sharing.products_layout(number, columns), -(-columns // sharing.SIDE)
    assert THREADS * tiles >= side * (side + 1) // 2 or not number
    assert (deep > 0) == (tiles > 0) == (number > 0 and columns > 0)
    (long, tiles) = sharing.features_layout(number, features)
    assert sharing.WARP * tiles >= features or not number
    assert (long > 0) == (tiles > 0) == (number > 0 and features > 0)
    assert max(deep, long) <= BLOCKS


@pytest.mark.skipif(not SIMULATED, reason="about CUDA")
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("number", "columns", "features"),
    [(0, 3, 5), (1, 1, 5), (150, 3, 5), (40, 3, 0), (40, 7, 70), (10, 40, 5), (10, 40, 0)],
)
def test_many_blocks_find_what_is_there(
    monkeypatch: pytest.MonkeyPatch, number: int, columns: int, features: int, order: Any
) -> None:
    """Twice, so that what they leave for each other is left as it was; more rows than count are there."""
    monkeypatch.setattr(sharing, "MIN_COLUMN_VALUES", 2)
    random = np.random.default_rng(columns)
    values = random.normal(size=(number + 5, columns)).astype(np.float32, order=order)
    values[::7], values[3::9] = np.nan, np.inf
    edges = np.sort(random.normal(size=(columns, 9)).astype(np.float32))
    weights = random.normal(size=(columns + 1, features)).astype(np.float32)
    state = rows.start(bins.prepare(edges), 9, np.tile([0.1, 1.5], (columns, 1)), weights, columns < 9)
    expected = rows.State(*(array.copy() for array in state))
    device = rows.to_device(state, there)
    parts = rows.Parts.of(device)
    for _ in range(2):
        rows.observe_on_device(there(values), number, parts)
        rows.observe(np.ascontiguousarray(values[:number]), expected)
    rows.settle(parts)
    twice = np.concatenate([values[:number]] * 2)
    np.testing.assert_array_equal(back(device.counts), bin_counts(twice, edges))
    np.testing.assert_allclose(back(device.moments), moments(twice), rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(back(device.sums), expected.sums, rtol=ROUNDING, atol=1e-5)


@pytest.mark.skipif(not SIMULATED, reason="about CUDA")
@pytest.mark.parametrize(("mean", "sd"), [(1.7e9, 540), (8.0, 4e-6), (3e5, 0.1), (0.0, 1e-20)])
def test_what_has_moved_far_is_summed_from_where_it_is_from_the_next_time_on(mean: float, sd: float) -> None:
    values = np.random.default_rng(0).normal(mean, sd, (200, 2)).astype(np.float32)
    nothing = np.zeros((3, 0), np.float32)
    state = rows.start(bins.prepare(np.empty((2, 0), np.float32)), 0, np.zeros((2, 2)), nothing, False)
    parts = rows.Parts.of(rows.to_device(state, there))
    for _ in range(2):
        parts.moments[:] = state.moments
        rows.observe_on_device(there(values), 200, parts)
        rows.settle(parts)
    np.testing.assert_allclose(back(parts.moments), moments(values), rtol=1e-5)
