"""Rows of traffic, kept for a profile."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from driftline.errors import BadRequest
from driftline.monitor.reference import capture as module
from driftline.monitor.reference.capture import Capture


def test_so_many_rows_are_kept_and_no_more() -> None:
    capture = Capture(250)
    for start in range(0, 400, 100):
        capture.add({"x": np.arange(start, start + 100.0), "s": np.array(["a"] * 100, object)}, 100)
    assert capture.full
    assert capture.rows == 250
    profile = capture.profile()
    assert profile.rows == 250
    assert profile.names == ("x", "s")


def test_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    capture = Capture(1000)
    for _ in range(5):
        capture.add({"x": np.zeros(100)}, 100)
    assert capture.full
    assert capture.rows == 200


def test_so_are_those_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    capture = Capture(1000)
    for _ in range(5):
        capture.add({"s": np.array(["a" * 600], object)}, 1)
    assert capture.full
    assert capture.rows == 2


def test_texts_may_be_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    capture = Capture(1000)
    for _ in range(5):
        capture.add({"s": np.array(["a" * 100, np.nan, 5, None], object)}, 4)
    assert capture.rows == 16


def test_columns_of_arrow_are_kept() -> None:
    capture = Capture(3)
    capture.add({"s": pa.array(["a", "b", None, "a"])}, 4)  # type: ignore[dict-item]
    assert capture.rows == 3
    assert capture.profile().rows == 3


def test_a_profile_of_nothing_is_none() -> None:
    with pytest.raises(BadRequest, match="expected columns with rows, got none"):
        Capture(10).profile()


def test_what_is_taken_is_passed_on_once_and_counts_still() -> None:
    source, target = Capture(5), Capture(250)
    for rows in (2, 2, 2):
        source.add({"x": np.arange(float(rows))}, rows)
        for columns, count in source.take():
            target.add(columns, count)
    assert source.take() == []
    assert source.full
    assert target.rows == target.profile().rows == 5
