"""Values as a person reads them."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reporting.report import Report
from driftline.monitor.values import span, text

HOUR = 3.6e9
DAY = 24 * HOUR
MARCH = 20_513 * DAY
"""The first of March 2026."""


@pytest.mark.parametrize(
    ("value", "step", "told"),
    [
        (0.0, 0, "0"),
        (7.0, 0, "7"),
        (-0.0001, 1, "0"),
        (0.25, 0, "0.25"),
        (1_013.2512, 0.1, "1013.25"),
        (1_234_567.8, 0, "1,234,570"),
        (1_234_567.8, 100_000, "1,230,000"),
        (2_019.0, 5, "2019"),
        (12_345.0, 0, "12,345"),
        (-98_765.4, 1, "-98,765.4"),
        (0.000_12, 0, "0.00012"),
        (0.000_02, 0, "2e-05"),
        (2e-7, 1e-8, "2e-07"),
        (1.7e15, 1e3, "1.7e+15"),
        (np.inf, 0, "inf"),
        (np.nan, 0, "nan"),
    ],
)
def test_numbers(value: float, step: float, told: str) -> None:
    assert text(value, step=step) == told


@pytest.mark.parametrize(
    ("value", "temporal", "step", "told"),
    [
        (MARCH, "date", 0, "2026-03-01"),
        (float(np.float32(MARCH)), "date", 0, "2026-03-01"),
        (MARCH + 12.5 * HOUR, "timestamp", 0, "2026-03-01 12:30"),
        (MARCH + 12.5 * HOUR, "timestamp", 3 * DAY, "2026-03-01"),
        (-DAY, "date", 0, "1969-12-31"),
        (12.5 * HOUR, "time", 0, "12:30:00"),
        (36 * HOUR, "duration", 0, "1.5 days"),
        (1e30, "timestamp", 0, "1e+30"),
    ],
)
def test_dates_and_times(value: float, temporal: str, step: float, told: str) -> None:
    assert text(value, temporal, step) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (2.5 * HOUR, "2.5 h"),
        (-20 * 6e7, "-20 min"),
        (1.5e6, "1.5 s"),
        (2e3, "2 ms"),
        (3, "3 us"),
        (0, "0 us"),
        (4_000 * DAY, "4000 days"),
    ],
)
def test_spans(value: float, told: str) -> None:
    assert span(value) == told


@given(
    st.floats(allow_nan=True, width=32),
    st.sampled_from(["", "date", "timestamp", "time", "duration"]),
    st.one_of(st.just(0.0), st.floats(1e-30, 1e30)),
)
def test_every_value_is_told_shortly(value: float, temporal: str, step: float) -> None:
    assert 1 <= len(text(value, temporal, step)) <= 20


@given(st.floats(0.001, 1e11))
def test_a_number_is_what_it_is_told_as(value: float) -> None:
    assert float(text(value).replace(",", "")) == pytest.approx(value, rel=1e-5)


def table(days: int) -> pd.DataFrame:
    random = np.random.default_rng(days)
    moments = pd.Timestamp("2026-03-01") + pd.to_timedelta(random.uniform(0, 30, 2_000) + days, "D")
    return pd.DataFrame(
        {
            "booked": moments,
            "zoned": moments.tz_localize("Asia/Tokyo"),
            "day": [moment.date() for moment in moments],
            "wait": pd.to_timedelta(random.exponential(3 + days, 2_000), "h"),
        }
    )


@pytest.fixture(scope="module")
def found() -> Report:
    monitor = Monitor(Profile.fit(table(0)))
    monitor.observe(table(20))
    return monitor.report()


def test_dates_are_read_as_such_wherever_a_person_reads_them(found: Report) -> None:
    words = {column.name: column.words for column in found.columns}
    for name in ("booked", "zoned", "day"):
        assert "sd, 2026-03-1" in words[name]
        assert "-> 2026-04-0" in words[name]
    assert " h -> " in words["wait"]
    assert "sd, 2026-03-1" in next(one.words for one in found.alarms if one.column == "day")
    page = found.to_html()
    assert "2026-03-02" in page
    assert re.search(r'<span class="n">2026-04-0\d</span>', page)
    assert "e+15" not in page + str(found) + str(Profile.fit(table(0)))


def test_programs_are_given_numbers(found: Report) -> None:
    for column in found.to_dict()["columns"]:
        assert all(isinstance(edge, float) for edge in column["bins"]["edges"])
        assert isinstance(column["facts"]["mean"], float)


def test_notes_and_a_profile_tell_dates(tmp_path: Any) -> None:
    always = Profile.fit({"day": pd.Series([dt.date(2026, 3, 1)] * 200), "x": np.arange(200.0)})
    always.save(tmp_path / "profile.arrow")
    loaded = Profile.load(tmp_path / "profile.arrow")
    assert "always 2026-03-01" in str(loaded)
    assert loaded.fingerprint == always.fingerprint
    monitor = Monitor(loaded)
    monitor.observe({"day": np.array(["2026-03-02"], "datetime64[D]"), "x": np.ones(1)})
    assert monitor.report()["day"].note == "the reference has one value only, 2026-03-01; here 2026-03-02"
