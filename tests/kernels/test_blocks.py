"""Blocks of CUDA threads that share the work on many rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_kernels import SIMULATED, back, bin_counts, examples, moments, there
from numpy.lib.stride_tricks import as_strided

from driftline_kernels import bins, blocks, moving, rows
from driftline_kernels.device import BLOCKS, THREADS

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the simulator warns as Python does


@examples(200)
@given(st.integers(0, 3_000_000), st.integers(0, 300), st.integers(4, 256), st.sampled_from("CF"))
def test_blocks_cover_all_columns_and_fit_in_their_memory(
    number: int, columns: int, cells: int, order: Any
) -> None:
    strides = (4, 4 * max(number, 1)) if order == "F" else (4 * columns, 4)
    values = as_strided(np.zeros(1, np.float32), (number, columns), strides)  # nobody reads it
    (across, down), width = blocks.layout(values, cells)
    if not number or not columns:
        assert across == down == 0
        return
    assert width * down >= columns > width * (down - 1)
    assert 1 <= width <= THREADS
    assert width * cells <= blocks.HISTOGRAM
    assert 1 <= across <= BLOCKS
    if order == "F" and columns > 1:
        assert width == 1


@pytest.mark.skipif(not SIMULATED, reason="about CUDA")
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("number", "columns"), [(0, 3), (1, 1), (40, 3), (10, 40)])
def test_many_blocks_find_what_is_there(
    monkeypatch: pytest.MonkeyPatch, number: int, columns: int, order: Any
) -> None:
    """Twice, so that what they leave for each other is left as it was; more rows than count are there."""
    monkeypatch.setattr(blocks, "DEPTH", 2)
    random = np.random.default_rng(columns)
    values = random.normal(size=(number + 5, columns)).astype(np.float32, order=order)
    values[::7], values[3::9] = np.nan, np.inf
    edges = np.sort(random.normal(size=(columns, 9)).astype(np.float32))
    weights = random.normal(size=(columns + 1, 5)).astype(np.float32)
    state = rows.start(bins.prepare(edges), 9, np.tile([0.1, 1.5], (columns, 1)), weights, columns < 9)
    expected = rows.State(*(array.copy() for array in state))
    device = rows.sent(state, there)
    for _ in range(2):
        rows.observe_there(there(values), number, rows.Parts.of(device))
        rows.observe(np.ascontiguousarray(values[:number]), expected)
    some = np.concatenate([values[:number]] * 2)
    np.testing.assert_array_equal(back(device.counts), bin_counts(some, edges))
    np.testing.assert_allclose(back(device.moments), moments(some), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(back(device.sums), expected.sums, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("number", [0, 1, 20])
def test_columns_are_moved(number: int, dtype: Any) -> None:
    source = np.arange(30 * 3).reshape(30, 3).astype(dtype)
    if dtype == np.float64:
        source[0] = 1e300, -1e300, np.nan
    moves = np.array([[2, 0], [0, 3]], np.int64)
    expected = np.full((30, 4), 7, np.float32)
    expected[:number, 0], expected[:number, 3] = source[:number, 2], source[:number, 0]
    for across in (False, True):
        given = np.ascontiguousarray(source.T) if across else source
        matrix = there(np.full((30, 4), 7, np.float32))
        moving.move(there(given), number, there(moves), matrix, across)
        np.testing.assert_array_equal(back(matrix), expected)
