"""Prometheus metrics of monitors: rows, signals, and statistics of the current window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from driftline.monitor.watched import Watched

if TYPE_CHECKING:
    from driftline.monitor.reporting.report import Report
    from driftline.monitor.reporting.webhook import Webhook

VERSION = ["model", "version"]
COLUMN = [*VERSION, "column"]

Key = tuple[str, str]
"""A model's name and version: the labels of all its metrics."""


class DriftCollector(Collector):
    """Collects the metrics of monitors at every scrape.

    watched  the models
    reports  of each model's current window, if it has a monitor
    webhook  that their alarms are posted to, or None
    """

    def __init__(
        self, watched: Mapping[Key, Watched], reports: Mapping[Key, Report], webhook: Webhook | None = None
    ) -> None:
        self._watched = watched
        self._reports = reports
        self._webhook = webhook

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of all watched versions."""
        yield from self._rows()
        yield from self._signals()
        yield from self._statistics()
        if self._webhook is not None:
            yield CounterMetricFamily(
                "driftline_webhook_dropped", "Alarms not posted to the webhook", value=self._webhook.dropped
            )

    def _rows(self) -> Iterator[Metric]:
        observed = CounterMetricFamily("driftline_rows_observed", "Rows monitored", labels=VERSION)
        skipped = CounterMetricFamily(
            "driftline_rows_skipped", "Rows that could not be monitored", labels=VERSION
        )
        lag = GaugeMetricFamily(
            "driftline_observation_lag_rows", "Rows that wait to be monitored", labels=VERSION
        )
        reference = GaugeMetricFamily(
            "driftline_profile_rows",
            "Rows behind the profile that data is compared with; 0: no profile",
            labels=VERSION,
        )
        for key, watch in self._watched.items():
            if watch.observer.monitor is not None:
                reference.add_metric(key, watch.observer.monitor.profile.rows)
            observed.add_metric(key, watch.observer.monitor.rows if watch.observer.monitor else 0)
            skipped.add_metric(key, watch.observer.skipped_rows)
            lag.add_metric(key, watch.observer.waiting_rows)
        yield from (observed, skipped, lag, reference)

    def _signals(self) -> Iterator[Metric]:
        changes = CounterMetricFamily(
            "driftline_changes",
            "Times that a column was certain to differ from the reference; column '': the model as a whole",
            labels=COLUMN,
        )
        alarms = CounterMetricFamily(
            "driftline_alarms",
            "Times that a column was certain to differ from the reference by more than is harmless",
            labels=COLUMN,
        )
        held = GaugeMetricFamily(
            "driftline_signal", "Changes and alarms that are held now", labels=[*COLUMN, "kind"]
        )
        onsets = GaugeMetricFamily(
            "driftline_signal_onset_timestamp_seconds",
            "When the drift behind a held signal began, about; absent if with the first rows",
            labels=[*COLUMN, "kind"],
        )
        for key, watch in self._watched.items():
            for family, counts in ((changes, watch.changes), (alarms, watch.alarms)):
                for column, count in list(counts.items()):
                    family.add_metric([*key, column], count)
            for signal in watch.observer.monitor.signals if watch.observer.monitor else ():
                held.add_metric([*key, signal.column, signal.kind], 1)
                if signal.onset is not None and not signal.onset.first:
                    onsets.add_metric([*key, signal.column, signal.kind], signal.onset.when.timestamp())
        yield from (changes, alarms, held, onsets)

    def _statistics(self) -> Iterator[Metric]:
        labels = [*COLUMN, "statistic"]
        values = GaugeMetricFamily(
            "driftline_drift", "Distance of the current window from the reference", labels=labels
        )
        nulls = GaugeMetricFamily(
            "driftline_drift_null", "What it would be on average if nothing had changed", labels=labels
        )
        for key, report in self._reports.items():
            of_columns = [(column.name, column.statistics) for column in report.columns]
            for name, statistics in [*of_columns, ("", report.whole)]:
                for statistic, result in statistics.items():
                    values.add_metric([*key, name, statistic], result.value)
                    if result.null is not None:
                        nulls.add_metric([*key, name, statistic], result.null)
        yield from (values, nulls)
