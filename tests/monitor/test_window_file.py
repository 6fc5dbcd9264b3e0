"""Windows on their way to be merged."""

from __future__ import annotations

import numpy as np
import pytest

from driftline.errors import BadRequest
from driftline.monitor import window_file
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reporting import report


def batch(rows: int, seed: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, 3)).astype(np.float32) + np.float32(shift)
    return {"x": x, "city": random.choice(["EWR", "JFK"], rows)}


def test_windows_of_two_monitors_are_the_window_of_one() -> None:
    profile = Profile.fit(batch(1_000, 0))
    whole, parts = Monitor(profile), [Monitor(profile) for _ in range(2)]
    for seed, part in enumerate(parts, 1):
        for monitor in (whole, part):
            monitor.observe(batch(3_000, seed, shift=1.0))
    first, second = (window_file.decode(window_file.current(part, "m", "3"), "here") for part in parts)
    assert (first.model, first.version, first.fingerprint) == ("m", "3", profile.fingerprint)
    assert {signal.column for signal in first.signals if signal.kind == "alarm"} == {"x_0", "x_1", "x_2"}
    merged = report.of(profile, first.window.merge(second.window))
    alone = whole.report()
    assert merged.rows == 6_000
    for one, two in zip(merged.columns, alone.columns, strict=True):
        assert one.counts.tolist() == two.counts.tolist()
        assert one.statistics["psi"] == two.statistics["psi"]
    assert merged.whole["mmd"].value == pytest.approx(alone.whole["mmd"].value)


def test_what_is_no_window_is_refused() -> None:
    with pytest.raises(BadRequest, match="there: expected a window"):
        window_file.decode(b"not Arrow", "there")


def test_a_fingerprint_is_of_the_content() -> None:
    profile = Profile.fit(batch(1_000, 0))
    assert profile.fingerprint == Profile.fit(batch(1_000, 0)).fingerprint
    assert profile.fingerprint != Profile.fit(batch(1_000, 1)).fingerprint
