"""Real flights: what was drawn from the same months does not drift; what follows does, as seasons do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from driftline.demo import flights
from driftline.monitor.comparison.wording import NONE
from driftline.monitor.detection.signals import Signal
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile

SEEDS = range(5)
FALSE_ALARM_ROWS = 20_000
SEASONAL = {"month", "temp", "dewp", "pressure", "wind_gust"}


@pytest.fixture(scope="module")
def year() -> pd.DataFrame:
    return flights.load()


def columns(some: pd.DataFrame) -> pd.DataFrame:
    return some[list(flights.FEATURES)]


def halves(year: pd.DataFrame) -> Iterator[tuple[Profile, pd.DataFrame]]:
    """January to March at random: the profile of one half, the rows of the other, shuffled."""
    winter = columns(year[year["scheduled"].dt.month <= 3])
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(len(winter))
        reference, rest = np.array_split(order, 2)
        yield Profile.fit(winter.iloc[reference]), winter.iloc[rest]


def test_the_other_half_of_the_same_months_raises_no_alarm(year: pd.DataFrame) -> None:
    signals: list[Signal] = []
    rows = 0
    for profile, rest in halves(year):
        monitor = Monitor(profile, false_alarm_rows=FALSE_ALARM_ROWS, on_signal=signals.append)
        for start in range(0, len(rest), 2_000):
            monitor.observe(rest.iloc[start : start + 2_000])
            monitor.acknowledge()
        rows += monitor.rows
    promised = rows / FALSE_ALARM_ROWS
    assert [signal for signal in signals if signal.kind == "alarm"] == []
    assert len(signals) <= promised + 2 * np.sqrt(promised)


def test_the_seasons_that_follow_are_alarms_in_words(year: pd.DataFrame) -> None:
    signals: list[Signal] = []
    profile, _ = next(halves(year))
    monitor = Monitor(profile, on_signal=signals.append)
    monitor.observe(columns(year[year["scheduled"].dt.month > 3]))
    alarms = {signal.column: signal for signal in signals if signal.kind == "alarm"}
    assert alarms.keys() >= SEASONAL
    assert {"origin", "carrier"}.isdisjoint(alarms)
    assert all(alarms[name].rows <= 1_000 for name in SEASONAL)
    for alarm in alarms.values():
        assert alarm.words != NONE
    assert "unseen 0 % -> 100 %" in alarms["month"].words
    assert "mean up" in alarms["temp"].words
