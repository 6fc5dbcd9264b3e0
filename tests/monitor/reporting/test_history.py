"""Finished windows on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from driftline.errors import BadRequest
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reporting.history import History

RANDOM = np.random.default_rng(0)
PROFILE = Profile.fit({"x": RANDOM.standard_normal((500, 2)).astype(np.float32)})


def test_every_window_is_a_file_that_says_what_its_report_said(tmp_path: Path) -> None:
    history = History(tmp_path / "history", PROFILE, "m", 3)
    monitor = Monitor(PROFILE, window_rows=100, on_window=history.write)
    monitor.observe({"x": RANDOM.standard_normal((250, 2)).astype(np.float32)})
    expected = monitor.report(3)
    monitor.finish()
    assert len(list((tmp_path / "history").iterdir())) == 3
    table = pq.read_table(tmp_path / "history").to_pylist()
    assert {(row["model"], row["version"]) for row in table} == {("m", 3)}
    psi = {(row["began"], row["column"]): row for row in table if row["statistic"] == "psi"}
    assert {column for _, column in psi} == {"x_0", "x_1"}
    assert sorted(row["rows"] for row in psi.values()) == [50, 50, 100, 100, 100, 100]
    assert all(row["null"] > 0 for row in psi.values())
    assert expected.rows == 150  # one finished window is kept unless more are wanted


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadRequest, match=r"history .*file/history"):
        History(tmp_path / "file/history", PROFILE)
