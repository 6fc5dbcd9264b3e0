"""A monitor over a restart: the next one knows all that the first did, and goes on as it would have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from driftline.errors import BadRequest
from driftline.monitor import checkpoint
from driftline.monitor.monitor import Monitor
from driftline.monitor.profile import Profile
from driftline.monitor.signals import Signal

ROWS = 2_000


def batch(rows: int, seed: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "age": (random.standard_normal(rows) + shift).astype(np.float32),
        "few": random.poisson(3, rows).astype(np.float32),
        "city": random.choice(["EWR", "JFK", "LGA"], rows),
    }


@pytest.fixture(scope="module")
def profile() -> Profile:
    return Profile.fit(batch(ROWS, 0), {"few": "numeric"})


def monitor_of(profile: Profile, told: list[Signal] | None = None) -> Monitor:
    tell = told.append if told is not None else None
    return Monitor(
        profile, false_alarm_rows=10_000, window_rows=ROWS, keep_windows=3, model="m", on_signal=tell
    )


def test_another_monitor_goes_on_as_the_first_would_have(profile: Profile, tmp_path: Path) -> None:
    first = monitor_of(profile)
    for seed in range(5):
        first.observe(batch(1_100, seed, shift=0.3))
    checkpoint.save(tmp_path / "checkpoint", first, {"offset": 7})
    second = monitor_of(profile)
    assert checkpoint.load(tmp_path / "checkpoint", second) == {"offset": 7}
    assert second.rows == first.rows
    assert [one.to_dict() for one in second.signals] == [one.to_dict() for one in first.signals]
    assert second.signals, "a drift of 0.3 sd is to be found in 5,500 rows"
    for seed in range(5, 8):
        for monitor in (first, second):
            monitor.observe(batch(900, seed, shift=0.1))
    for windows in (1, 2, 4):
        one, two = first.report(windows).to_dict(), second.report(windows).to_dict()
        for found in (one, two):
            del found["began"], found["ended"]  # each has ended windows itself since
            for signal in (*found["changes"], *found["alarms"]):
                del signal["when"]
        assert one == two
    assert first.report(4).began == second.report(4).began


def test_evidence_of_before_the_restart_counts(profile: Profile, tmp_path: Path) -> None:
    """Half of a drift before and half behind it alarm as early as all of it at once."""

    def alarm_after(restart: int | None) -> int:
        told: list[Signal] = []
        monitor = monitor_of(profile, told)
        for number in range(100):
            if number == restart:
                checkpoint.save(tmp_path / "checkpoint", monitor, {})
                monitor = monitor_of(profile, told)
                checkpoint.load(tmp_path / "checkpoint", monitor)
            monitor.observe(batch(100, number, shift=0.5))
            if any(signal.kind == "alarm" for signal in told):
                return number
        return 100

    whole = alarm_after(None)
    assert 1 <= whole < 100
    assert alarm_after(whole // 2 + 1) == whole


def test_what_is_no_checkpoint_of_this_profile_is_refused(profile: Profile, tmp_path: Path) -> None:
    monitor = monitor_of(profile)
    monitor.observe(batch(150, 1))
    path = tmp_path / "checkpoint"
    checkpoint.save(path, monitor, {})
    other = Monitor(Profile.fit(batch(ROWS, 9), {"few": "numeric"}))
    with pytest.raises(BadRequest, match="it was counted against another profile"):
        checkpoint.load(path, other)
    assert other.rows == 0
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(BadRequest, match="expected a checkpoint"):
        checkpoint.load(path, monitor_of(profile))
    with pytest.raises(BadRequest, match="expected a checkpoint"):
        checkpoint.load(tmp_path / "nothing", monitor_of(profile))
    with pytest.raises(BadRequest, match="nowhere"):
        checkpoint.save(tmp_path / "nowhere" / "checkpoint", monitor, {})
    assert [one.name for one in tmp_path.iterdir()] == ["checkpoint"]
