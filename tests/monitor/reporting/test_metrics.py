"""What Prometheus sees of monitors."""

from __future__ import annotations

import numpy as np
from waiting import until

from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reporting.metrics import DriftCollector
from driftline.monitor.reporting.webhook import Webhook
from driftline.monitor.watched import Watched

RANDOM = np.random.default_rng(0)


def rows(number: int, *shifts: float) -> dict[str, np.ndarray]:
    return {f"x_{index}": RANDOM.standard_normal(number) + shift for index, shift in enumerate(shifts)}


def test_an_onset_is_a_time_only_where_the_rows_before_it_were_watched() -> None:
    """Of a column that differed from the first row on, the alert once said since when it was watched."""
    watched = Watched(lambda: Monitor(Profile.fit(rows(5_000, 0, 0))), "m 1")
    watched.observer.start()
    until(lambda: watched.observer.monitor is not None)
    monitor = watched.ready()
    monitor.observe(rows(2_000, 2, 0))
    monitor.observe(rows(1_000, 2, 2))
    samples = {
        metric.name: {
            sample.labels["column"]: sample.value
            for sample in metric.samples
            if sample.labels.get("kind") == "alarm"
        }
        for metric in DriftCollector({("m", "1"): watched}, {}).collect()
    }
    watched.observer.close()
    onsets = {one.column: one.onset for one in monitor.signals if one.kind == "alarm"}
    assert samples["driftline_signal"] == {"x_0": 1, "x_1": 1}
    assert onsets["x_0"] is not None
    assert onsets["x_0"].first
    assert onsets["x_1"] is not None
    assert samples["driftline_signal_onset_timestamp_seconds"] == {"x_1": onsets["x_1"].when.timestamp()}


def test_alarms_that_were_not_posted_are_counted_where_there_is_a_webhook() -> None:
    def samples(webhook: Webhook | None) -> dict[str, float]:
        metrics = DriftCollector({}, {}, webhook).collect()
        return {one.name: one.value for metric in metrics for one in metric.samples}

    assert samples(Webhook("http://127.0.0.1:1/")) == {"driftline_webhook_dropped_total": 0}
    assert samples(None) == {}
