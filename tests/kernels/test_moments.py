"""Moments, against numpy on float64."""

from __future__ import annotations

import numpy as np
import pytest

from driftline_kernels import moments


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [0, 1, 2, 255, 257, 1000])
@pytest.mark.parametrize("parts", [1, 4])
def test_parts_merge_to_numpys(dtype: type, rows: int, parts: int) -> None:
    values = (5 + 3 * np.random.default_rng(rows).standard_normal((rows, 3))).astype(dtype)
    values[::7, 1] = np.nan
    values[::11, 2] = np.inf
    merged = moments.start(3)
    for part in np.array_split(values, parts):
        own = moments.start(3)
        moments.update(np.ascontiguousarray(part), own)
        moments.merge(merged, own)
    for found, column in zip(merged, values.astype(np.float64).T, strict=True):
        x = column[np.isfinite(column)]
        if len(x):
            expected = [len(x), x.mean(), ((x - x.mean()) ** 2).sum(), x.min(), x.max()]
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
        else:
            np.testing.assert_array_equal(found, [0, 0, 0, np.inf, -np.inf])
