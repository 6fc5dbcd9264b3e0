from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from driftline.demo import flights as module
from driftline.demo.flights import FEATURES, OUTCOME_KNOWN_AFTER, WEATHER, known_at, load
from driftline.errors import BadRequest


@pytest.fixture(scope="module")
def records() -> list[dict[str, str]]:
    """The data's own file of flights, as text."""
    with zipfile.ZipFile(module._data_folder() / "flights.csv.zip") as archive:
        return list(csv.DictReader(io.StringIO(archive.read("flights.csv").decode())))


def test_nothing_known_after_departure_is_a_feature(flights: pd.DataFrame) -> None:
    assert set(flights.columns) == {*FEATURES, "scheduled", "late"}
    later = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum", "late", "scheduled"}
    assert not later & set(FEATURES)


def test_flights_are_in_the_order_of_their_schedule(flights: pd.DataFrame) -> None:
    assert flights["scheduled"].is_monotonic_increasing
    assert flights["month"].is_monotonic_increasing
    assert (flights["scheduled"].dt.hour == flights["hour"]).all()
    assert (flights["scheduled"].dt.weekday == flights["weekday"]).all()


def test_every_flight_that_arrived_is_there_and_no_other(
    flights: pd.DataFrame, records: list[dict[str, str]]
) -> None:
    delays = [float(record["arr_delay"]) for record in records if record["arr_delay"] not in ("", "NA")]
    assert len(flights) == len(delays) < len(records)
    assert flights["late"].sum() == sum(delay >= 15 for delay in delays)


@pytest.mark.parametrize(("month", "day"), [(1, 1), (7, 4), (12, 31)])
def test_rows_agree_with_a_naive_join(
    flights: pd.DataFrame, records: list[dict[str, str]], month: int, day: int
) -> None:
    weather = {}
    with (module._data_folder() / "weather.csv").open() as file:
        for record in csv.DictReader(file):
            weather[record["origin"], record["time_hour"]] = [number(record[name]) for name in WEATHER]
    expected = Counter(
        (
            *(record["carrier"], record["origin"], record["dest"], float(record["distance"])),
            float(record["hour"]),
            *weather.get((record["origin"], record["time_hour"]), [None] * len(WEATHER)),
            float(record["arr_delay"]) >= 15,
        )
        for record in records
        if (record["month"], record["day"]) == (str(month), str(day))
        and number(record["arr_delay"]) is not None
    )
    scheduled = flights["scheduled"].dt
    that_day = flights[(scheduled.month == month) & (scheduled.day == day)]
    columns = ["carrier", "origin", "dest", "distance", "hour", *WEATHER, "late"]
    came = Counter(
        tuple(number(str(value)) if isinstance(value, float) else value for value in row)
        for row in that_day[columns].itertuples(index=False)
    )
    assert came == expected


def number(text: str) -> float | None:
    """As the model sees it; None if there is none."""
    return None if text in ("", "NA", "nan") else float(np.float32(text))


def test_every_outcome_is_in_when_it_counts_as_known(records: list[dict[str, str]]) -> None:
    taxi = 120
    longest = max(
        float(record["dep_delay"]) + float(record["air_time"]) + taxi
        for record in records
        if number(record["air_time"]) is not None
    )
    assert pd.Timedelta(minutes=longest) < OUTCOME_KNOWN_AFTER


def test_what_is_known_at_a_time_is_what_departed_two_days_before(flights: pd.DataFrame) -> None:
    time = flights["scheduled"].iloc[5000]
    count = known_at(flights, time)
    assert count == sum(flights["scheduled"][:5000] + OUTCOME_KNOWN_AFTER <= time) > 0
    assert known_at(flights, flights["scheduled"].iloc[0]) == 0


def test_without_the_data_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(BadRequest, match=r"pip install 'driftline\[cpu,demo\]'"):
        load()
