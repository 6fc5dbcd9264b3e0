"""What several tests of features start from."""

from __future__ import annotations

import pytest

import driftline as dl


@pytest.fixture
def small() -> dl.Transform:
    steps = [dl.Standardise("x"), dl.OneHot("s", unknown="error"), dl.DatePart("t", "day")]
    return dl.Transform(steps).fit({"x": [1.0, 2.0], "s": ["a", "b"], "t": ["2024-01-01", "2024-01-02"]})
