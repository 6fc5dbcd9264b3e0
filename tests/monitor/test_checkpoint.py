"""A monitor over a restart: the next one knows all that the first did, and goes on as it would have."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.errors import BadRequest
from driftline.monitor import checkpoint
from driftline.monitor.detection.signals import Signal
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile

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
        signals: list[Signal] = []
        monitor = monitor_of(profile, signals)
        for number in range(100):
            if number == restart:
                checkpoint.save(tmp_path / "checkpoint", monitor, {})
                monitor = monitor_of(profile, signals)
                checkpoint.load(tmp_path / "checkpoint", monitor)
            monitor.observe(batch(100, number, shift=0.5))
            if any(signal.kind == "alarm" for signal in signals):
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
    with pytest.raises(BadRequest, match=r"expected a checkpoint, got one that is damaged$"):
        checkpoint.load(path, monitor_of(profile))
    with pytest.raises(BadRequest, match="expected a checkpoint: No such file"):
        checkpoint.load(tmp_path / "nothing", monitor_of(profile))
    with pytest.raises(BadRequest, match="nowhere"):
        checkpoint.save(tmp_path / "nowhere" / "checkpoint", monitor, {})
    assert [one.name for one in tmp_path.iterdir()] == ["checkpoint"]


def test_a_damaged_checkpoint_is_one_and_another_file_is_none(profile: Profile, tmp_path: Path) -> None:
    """The former keeps nobody from beginning anew, whatever its bytes; the latter is not to be replaced."""
    path = tmp_path / "checkpoint"
    checkpoint.check(path)
    checkpoint.save(path, monitor_of(profile), {})
    checkpoint.check(path)
    content = path.read_bytes()
    random = np.random.default_rng(0)
    noise = [bytearray(content) for _ in range(30)]
    for one in noise:
        for place in random.integers(50, len(content), 20):
            one[place] = random.integers(256)
    cut = [content[:length] for length in (20, 45, 2000, len(content) - 1)]
    lost = [b"", bytes(len(content)), *cut, *map(bytes, noise)]
    for damaged in lost:
        path.write_bytes(damaged)
        checkpoint.check(path)
        with pytest.raises(BadRequest, match="expected a checkpoint, got"):
            checkpoint.load(path, monitor_of(profile))
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    others = [b"%PDF-1.7", b"a,b\n1,2\n", bytes(2**16) + b"1", (tmp_path / "other.npz").read_bytes()]
    for other in others:
        path.write_bytes(other)
        with pytest.raises(BadRequest, match="or no file, got something else"):
            checkpoint.check(path)
        with pytest.raises(BadRequest, match="expected a checkpoint, got something else"):
            checkpoint.load(path, monitor_of(profile))
        assert path.read_bytes() == other


def test_where_no_checkpoint_can_be_written_none_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadRequest, match=r"expected a file in a folder, .*nowhere is none"):
        checkpoint.check(tmp_path / "nowhere" / "checkpoint")
    with pytest.raises(BadRequest, match="Is a directory"):
        checkpoint.check(tmp_path)
    with pytest.raises(BadRequest, match="or no file, got something else"):
        checkpoint.check(Path("/dev/null"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # what root is allowed is not refused
    with pytest.raises(BadRequest, match=f"files in {tmp_path} can't be written"):
        checkpoint.check(tmp_path / "checkpoint")


@pytest.mark.parametrize("random", [None, {}, {"bit_generator": "PCG64"}, {"bit_generator": "MT19937"}])
def test_a_damaged_random_state_is_not_restored_by_half(profile: Profile, random: Any) -> None:
    first, second = monitor_of(profile), monitor_of(profile)
    first.observe(batch(1_100, 1))
    snapshot = first.snapshot()
    with pytest.raises((KeyError, TypeError, ValueError)):
        second.restore(replace(snapshot, detectors={**snapshot.detectors, "random": random}))
    np.testing.assert_equal(second.snapshot().detectors, monitor_of(profile).snapshot().detectors)
    second.restore(snapshot)
    np.testing.assert_equal(second.snapshot().detectors, snapshot.detectors)


def test_a_checkpoint_without_the_other_values_is_not_restored_by_half(
    profile: Profile, tmp_path: Path
) -> None:
    first, second = monitor_of(profile), monitor_of(profile)
    first.observe(batch(1_100, 1))
    checkpoint.save(tmp_path / "checkpoint", first, None)  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match="one that is damaged"):
        checkpoint.load(tmp_path / "checkpoint", second)
    assert second.rows == 0
