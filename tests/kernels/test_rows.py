"""All kernels of rows in one call: what each gives on its own, and no array allocated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from naive_kernels import ROUNDING, SIMULATED, observed

from driftline_kernels import bins, comoments, fourier, moments, rows

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # what overflows does so on purpose


def reference(dtype: Any, features: int = 8) -> tuple[bins.Bins, int, np.ndarray, np.ndarray]:
    """Bins, their edges, scaling and weights of three columns."""
    random = np.random.default_rng(0)
    edges = np.sort(random.standard_normal((3, 9)).astype(dtype))
    weights = random.standard_normal((4, features)).astype(np.float32)
    return bins.prepare(edges), 9, np.tile([0.1, 1.5], (3, 1)), weights


def batch(size: int, dtype: Any, order: Any = "C") -> np.ndarray:
    """Rows with some values that are not finite."""
    values = np.random.default_rng(1).standard_normal((size, 3)).astype(dtype, order=order)
    values[::5, 1], values[::6, 2] = np.nan, np.inf
    return values


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("size", [0, 30] if SIMULATED else [0, 1, 255, 257, 1000])
@pytest.mark.parametrize("correlate", [True, False])
@pytest.mark.parametrize("features", [0, 8])
def test_one_call_gives_what_the_kernels_give(
    features: int, correlate: bool, size: int, order: Any, dtype: Any
) -> None:
    prepared, edges, scaling, weights = reference(dtype, features)
    state, alone = (rows.start(prepared, edges, scaling, weights, correlate) for _ in range(2))
    values = batch(size, dtype, order)
    if SIMULATED:
        state = observed([values, values], prepared, edges, scaling, weights, correlate)
    for _ in range(2):
        if not SIMULATED:
            rows.observe(values, state)
        bins.count(values, prepared, alone.counts)
        moments.update(values, alone.moments)
        fourier.update(values, alone.scaling, alone.weights, alone.features)
        if correlate:
            comoments.update(values, alone.scaling, alone.comoments)
    near = {"rtol": ROUNDING, "atol": ROUNDING * size} if SIMULATED else {"rtol": 1e-12}
    np.testing.assert_array_equal(state.counts, alone.counts)
    np.testing.assert_allclose(state.sums, alone.sums, **near)
    assert state.moments.shape == (3, 5)
    assert state.comoments.shape == ((4, 4) if correlate else (0, 0))
    assert state.features.shape == (features,)
    assert state.counts.sum() == 2 * size * 3


@pytest.mark.skipif(SIMULATED, reason="about the compiled driver")
def test_nothing_is_allocated_for_a_row() -> None:
    from numba.core.runtime import _nrt_python, rtsys

    state = rows.start(*reference(np.float32))
    values = batch(1, np.float32)
    rows.observe(values, state)
    _nrt_python.memsys_enable_stats()
    before = rtsys.get_allocation_stats()
    rows.observe(values, state)
    after = rtsys.get_allocation_stats()
    # Numba notes each array that comes from Python in a header of its own, and takes no memory besides.
    assert after.alloc - before.alloc == after.mi_alloc - before.mi_alloc == 1 + len(state)
