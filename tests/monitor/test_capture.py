"""Rows of traffic, kept for a profile."""

from __future__ import annotations

import numpy as np
import pytest

from driftline.errors import BadRequest
from driftline.monitor import capture as module
from driftline.monitor.capture import Capture


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
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    capture = Capture(1000)
    for _ in range(5):
        capture.add({"x": np.zeros(100)}, 100)
    assert capture.full
    assert capture.rows == 200


def test_a_profile_of_nothing_is_none() -> None:
    with pytest.raises(BadRequest, match="expected columns with rows, came none"):
        Capture(10).profile()
