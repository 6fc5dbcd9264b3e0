"""Tails of distributions against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from driftline.monitor.comparison.distributions import (
    chi_square_tail,
    chi_square_upper_quantile,
    kolmogorov_tail,
    normal_tail,
)


@given(st.floats(0, 3000), st.integers(1, 300))
def test_the_tail_of_chi_square_is_scipys(value: float, freedom: int) -> None:
    assert chi_square_tail(value, freedom) == pytest.approx(special.chdtrc(freedom, value), 1e-11, 1e-300)


@given(st.floats(1e-12, 0.999999), st.integers(1, 300))
def test_the_value_of_a_tail_is_scipys(chance: float, freedom: int) -> None:
    assert chi_square_upper_quantile(chance, freedom) == pytest.approx(special.chdtri(freedom, chance), 1e-9)


@given(st.lists(st.one_of(st.floats(0, 20), st.floats(0.9, 1.1)), max_size=5))
def test_kolmogorovs_tail_is_scipys(values: list[float]) -> None:
    actual = kolmogorov_tail(np.array(values))
    np.testing.assert_allclose(actual, special.kolmogorov(np.array(values)), rtol=1e-11, atol=1e-300)


def test_the_normal_tail_is_scipys() -> None:
    values = np.linspace(0, 50, 1_001)
    np.testing.assert_allclose(normal_tail(values), special.ndtr(-values), rtol=1e-4, atol=1e-7)
