"""Windows add up; signals can be told in JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import BadRequest
from driftline.monitor.comparison.statistics import Statistic
from driftline.monitor.detection.signals import Signal
from driftline.monitor.window import Window

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EDGES = np.array([-1.0, 0.0, 1.0])


def moment(values: np.ndarray) -> np.ndarray:
    if not len(values):
        return np.array([0, 0, 0, np.inf, -np.inf])
    return np.array([len(values), values.mean(), values.var() * len(values), values.min(), values.max()])


def window(values: np.ndarray, minute: int = 0) -> Window:
    """Counted the plain way: one numeric column, one of its signs."""
    finite = values[np.isfinite(values)]
    inner = np.bincount(np.searchsorted(EDGES, finite, side="right"), minlength=len(EDGES) + 1)
    special = [np.isnan(values).sum(), np.isposinf(values).sum(), np.isneginf(values).sum()]
    signs = [(values < 0).sum(), (values >= 0).sum(), 0, np.isnan(values).sum()]
    return Window(
        NOON + timedelta(minutes=minute),
        NOON + timedelta(minutes=minute + 1),
        len(values),
        {"x": np.array([*inner, *special], np.int64), "sign": np.array(signs, np.int64)},
        {"x": moment(finite)},
        np.array([np.cos(finite).sum(), np.sin(finite).sum()]),
        np.array([[(finite**2).sum(), finite.sum()], [finite.sum(), len(values)]]),
    )


numbers = st.floats(-1e6, 1e6) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 1.0])


@given(st.lists(st.lists(numbers, max_size=30), min_size=1, max_size=8))
def test_windows_add_up_to_the_window_of_all_rows(parts: list[list[float]]) -> None:
    arrays = [np.array(part, np.float64) for part in parts]
    first, *others = [window(part, minute) for minute, part in enumerate(arrays)]
    merged = first
    for other in others:
        merged = merged.merge(other)
    whole = window(np.concatenate(arrays))
    assert merged.rows == whole.rows
    assert (merged.began, merged.ended) == (NOON, NOON + timedelta(minutes=len(parts)))
    for name, counts in whole.counts.items():
        np.testing.assert_array_equal(merged.counts[name], counts)
    expected = whole.moments["x"]
    spread = max(expected[2], 1.0)
    np.testing.assert_allclose(merged.moments["x"], expected, rtol=1e-9, atol=1e-9 * spread)
    np.testing.assert_allclose(merged.features, whole.features, atol=1e-9)
    np.testing.assert_allclose(merged.comoments, whole.comoments, rtol=1e-9, atol=1e-3)


def test_merging_changes_neither_window_and_any_order_is_the_same() -> None:
    random = np.random.default_rng(0)
    one, two = window(random.standard_normal(100), 5), window(random.standard_normal(50))
    before = one.moments["x"].copy(), one.counts["x"].copy()
    merged, other = one.merge(two), two.merge(one)
    np.testing.assert_array_equal(one.moments["x"], before[0])
    np.testing.assert_array_equal(one.counts["x"], before[1])
    assert (merged.began, merged.ended) == (other.began, other.ended) == (two.began, one.ended)
    np.testing.assert_allclose(merged.moments["x"], other.moments["x"], rtol=1e-12)


def test_windows_without_numeric_columns_add_up() -> None:
    none = Window(NOON, NOON, 2, {"a": np.array([1, 1, 0])}, {}, np.zeros(0), np.zeros((0, 0)))
    assert none.merge(none).rows == 4
    assert none.merge(none).moments == {}


def test_windows_of_other_bins_do_not_add_up() -> None:
    one = window(np.zeros(3))
    other = Window(NOON, NOON, 2, {"x": np.zeros(4, np.int64)}, {}, one.features, one.comoments)
    with pytest.raises(BadRequest, match="expected the same columns and bins"):
        one.merge(other)


def test_a_signal_is_told_in_json() -> None:
    statistics = {
        "psi": Statistic(np.float64(0.3), 0.01, 0.2),
        "mean_shift": Statistic(np.inf, interval=(0.1, np.inf)),
    }
    signal = Signal("alarm", "m", 2, "x", NOON, 500, 13.5, (), statistics, "mean up")
    document = json.loads(json.dumps(signal.to_dict(), allow_nan=False))
    assert document == {
        "kind": "alarm",
        "model": "m",
        "version": 2,
        "column": "x",
        "when": "2026-03-01T12:00:00+00:00",
        "rows": 500,
        "evidence": 13.5,
        "columns": [],
        "statistics": {
            "psi": {"value": 0.3, "null": 0.01, "threshold": 0.2},
            "mean_shift": {"value": None, "interval": [0.1, None]},
        },
        "words": "mean up",
        "onset": None,
    }
