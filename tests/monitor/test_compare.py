"""Two sets of data, held against each other at once."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import polars as pl
import pytest

import driftline as dl
from driftline.errors import BadRequest

ROWS = 1_000


def frame(mean: float = 0, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame({"temp": random.normal(mean, 1, ROWS), "carrier": random.choice(["AA", "UA"], ROWS)})


def test_what_has_changed_is_told_of_all_rows() -> None:
    report = dl.compare(frame(), frame(mean=2, seed=1))
    assert (report.rows, report.reference_rows) == (ROWS, ROWS)
    assert [(alarm.column, alarm.rows) for alarm in report.alarms] == [("temp", ROWS)]
    assert report["temp"].statistics["mean_shift"].value == pytest.approx(2, abs=0.2)


def test_since_when_is_not_told_of_rows_that_came_at_once() -> None:
    """It once was: since the time of the process, the first rows watched, or before."""
    names = [f"x_{index}" for index in range(4)]
    before, after = (np.random.default_rng(seed).standard_normal((ROWS, 4)) for seed in (0, 1))
    report = dl.compare(dict(zip(names, before.T, strict=True)), dict(zip(names, after.T + 1, strict=True)))
    assert [alarm.column for alarm in report.alarms]
    assert {signal.onset for signal in (*report.alarms, *report.changes)} == {None}
    assert {alarm["onset"] for alarm in report.to_dict()["alarms"]} == {None}
    assert "since" not in str(report)
    assert "first row" not in str(report)
    assert "so many" not in str(report)


def test_nothing_has_changed() -> None:
    report = dl.compare(frame(), frame(seed=1))
    assert not report.alarms
    assert not report.changes


def test_a_reference_is_a_profile_too_and_forms_differ() -> None:
    two = frame(mean=2, seed=1)
    by_profile = dl.compare(dl.Profile.fit(frame()), pl.from_pandas(two))
    by_data = dl.compare(frame(), two)
    assert [column.to_dict() for column in by_profile.columns] == [
        column.to_dict() for column in by_data.columns
    ]


def test_harmless_is_what_is_said_to_be() -> None:
    assert not dl.compare(frame(), frame(mean=0.5, seed=1), tolerance=10).alarms


def test_kinds_are_those_that_are_wanted() -> None:
    numbers = {"a": np.arange(ROWS) % 5}
    report = dl.compare(numbers, numbers, kinds={"a": "numeric"})
    assert report["a"].kind == "numeric"


def test_a_column_that_is_missing_is_named() -> None:
    with pytest.raises(BadRequest, match="column 'carrier': expected as in the profile, got none"):
        dl.compare(frame(), frame()[["temp"]])


def test_other_columns_are_left_out_whatever_they_hold() -> None:
    other = frame().assign(mixed=[1, "a"] * (ROWS // 2), when=pd.period_range("2013-01-01", periods=ROWS))
    assert not dl.compare(frame(), other).alarms
    with pytest.raises(BadRequest, match=r"column 'temp': .*; there are: carrier, mixed, when$"):
        dl.compare(frame(), other.drop(columns="temp"))


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert dl.compare(frame(), frame(mean=2, seed=1)).alarms
    assert not caplog.records


def test_too_few_rows_are_told_to_whoever_compares_them() -> None:
    with pytest.warns(UserWarning, match="few|weak") as told:
        dl.compare(frame()[:99], frame(mean=2, seed=1)[:199])
    assert [str(warning.message).partition(":")[0] for warning in told] == [
        "a profile of 99 rows is weak",
        "199 rows, looked at together, are too few for a change or an alarm; expected at least 200",
    ]
    assert {warning.filename for warning in told} == {__file__}
    assert dl.compare(frame(), frame(mean=2, seed=1)[:200]).changes


def test_categories_stay_what_they_are() -> None:
    """Whole numbers that pandas has as categories, with some missing, and more than a rule would guess."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 50, ROWS).astype(object)
    codes[::10] = None
    before = pd.DataFrame({"shop": pd.Categorical(codes), "size": codes.astype(float)})
    after = before.iloc[::-1].copy()
    after["shop"] = pd.Categorical([None if code is None else min(code, 10) for code in codes])
    report = dl.compare(before, after)
    assert (report["shop"].kind, report["size"].kind) == ("categorical", "numeric")
    assert report["shop"].facts["missing_rate"] == pytest.approx(0.1)
    assert [alarm.column for alarm in report.alarms] == ["shop"]
    assert dl.compare(before, after, kinds={"shop": "numeric"})["shop"].kind == "numeric"
