"""Prometheus metrics: Triton's names for what Triton counts too, driftline's own for the rest.

Nothing is counted here: a scrape reads the totals that batchers and host keep.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from driftline import __version__
from driftline.batching.counters import Counters
from driftline.monitor.reporting.metrics import COLUMN, VERSION, DriftCollector
from driftline.serving.gpus import CardsCollector
from driftline.serving.host import Host
from driftline.serving.latency import BOUNDS_NS
from driftline.serving.payloads.log import Counts
from driftline.serving.served import Served

if TYPE_CHECKING:
    from driftline.monitor.reporting.report import Report

FAILURE_REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
ROW_BOUNDS = tuple(2**power for power in range(13))
SECOND_BOUNDS = tuple(ns / 1e9 for ns in BOUNDS_NS)

_COUNTERS: dict[str, tuple[str, Callable[[Counters], int]]] = {
    "nv_inference_request_success": ("Requests answered", lambda c: c.requests),
    "nv_inference_count": ("Rows computed", lambda c: c.inferences),
    "nv_inference_exec_count": ("Batches computed", lambda c: c.executions),
    "nv_inference_request_duration_us": ("Time of requests, end to end", lambda c: c.request_ns // 1000),
    "nv_inference_queue_duration_us": ("Time that requests waited", lambda c: c.queue_ns // 1000),
    "nv_inference_compute_input_duration_us": ("Time to gather batches", lambda c: c.input_ns // 1000),
    "nv_inference_compute_infer_duration_us": ("Time that models computed", lambda c: c.infer_ns // 1000),
    "nv_inference_compute_output_duration_us": ("Time to split batches", lambda c: c.output_ns // 1000),
}


def exposition(host: Host, reports: Mapping[Served, Report]) -> tuple[bytes, str]:
    """Return the response to a scrape and its content type; `reports` by monitored version."""
    registry = CollectorRegistry()
    registry.register(HostCollector(host))
    watches = {served.name_and_version: served.watch for served in host.served() if served.watch is not None}
    named_reports = {served.name_and_version: report for served, report in reports.items()}
    registry.register(DriftCollector(watches, named_reports, host.notifier.webhook))
    registry.register(ProcessesCollector(host.processes))
    registry.register(CardsCollector())
    text = generate_latest(registry)
    # The client library adds _total to every counter's header; Triton's names have none.
    return re.sub(rb"(?m)^(# (?:HELP|TYPE) nv_\w+)_total ", rb"\1 ", text), CONTENT_TYPE_PLAIN_0_0_4


class HostCollector(Collector):
    """Reads a host at every scrape."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def collect(self) -> Iterator[Metric]:
        """All metrics of all versions in memory."""
        yield from self._version_metrics()
        yield from self._queue_metrics()
        yield from self._model_metrics()
        info = GaugeMetricFamily("driftline_build_info", "The server's version", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        if (runs := self._host.notifier.runs) is not None:
            yield CounterMetricFamily(
                "driftline_tracking_dropped", "Windows and alarms not written to a run", value=runs.dropped
            )
        if (payloads := self._host.payload_counts) is not None:
            yield from _payload_metrics(payloads)

    def _version_metrics(self) -> Iterator[Metric]:
        versions = [(version.name_and_version, version.batcher.counters) for version in self._host.served()]
        for name, (help_text, read) in _COUNTERS.items():
            family = Metric(name, help_text, "counter")
            for label_values, counters in versions:
                family.add_sample(name, dict(zip(VERSION, label_values, strict=True)), read(counters))
            yield family
        unreadable = CounterMetricFamily(
            "driftline_values_unreadable", "Values of raw columns that were taken as missing", labels=COLUMN
        )
        for version in self._host.served():
            for column, count in version.model.unreadable.items():
                unreadable.add_metric([*version.name_and_version, column], count)
        yield unreadable
        name = "nv_inference_request_failure"
        failures = Metric(name, "Requests that failed, by reason", "counter")
        batches = HistogramMetricFamily(
            "driftline_batch_rows", "Rows of the batches that ran", labels=VERSION
        )
        for label_values, counters in versions:
            labels = dict(zip(VERSION, label_values, strict=True))
            for reason in FAILURE_REASONS:
                failures.add_sample(name, {**labels, "reason": reason}, counters.failures[reason])
            batch_counts = [0] * (len(ROW_BOUNDS) + 1)
            for rows, size in counters.batches.items():
                batch_counts[bisect_left(ROW_BOUNDS, rows)] += size.count
            batches.add_metric(list(label_values), _buckets(ROW_BOUNDS, batch_counts), counters.inferences)
        yield from (failures, batches)

    def _queue_metrics(self) -> Iterator[Metric]:
        pending = GaugeMetricFamily(
            "nv_inference_pending_request_count", "Requests in flight", labels=VERSION
        )
        rows = GaugeMetricFamily("driftline_queue_rows", "Rows that wait for a batch", labels=VERSION)
        size = GaugeMetricFamily("driftline_queue_bytes", "Bytes that wait for a batch", labels=VERSION)
        info = GaugeMetricFamily(
            "driftline_model_version_info",
            "A version in memory; `default`: serves requests without a version",
            labels=[*VERSION, "aliases", "default"],
        )
        for entry in self._host.entries.values():
            for served in entry.versions.values():
                labels = list(served.name_and_version)
                pending.add_metric(labels, served.batcher.pending)
                rows.add_metric(labels, served.batcher.queue_rows)
                size.add_metric(labels, served.batcher.queue_bytes)
                default = str(served is entry.default).lower()
                info.add_metric([*labels, ",".join(served.version.aliases), default], 1)
        yield from (pending, rows, size, info)

    def _model_metrics(self) -> Iterator[Metric]:
        swaps = CounterMetricFamily(
            "driftline_swaps", "Times that another version became the default", labels=["model"]
        )
        loads = CounterMetricFamily(
            "driftline_loads", "Versions loaded, by outcome", labels=["model", "outcome"]
        )
        seconds = GaugeMetricFamily("driftline_load_seconds", "Duration of the last load", labels=["model"])
        latency = HistogramMetricFamily(
            "driftline_request_duration_seconds", "Time from request head to response", labels=["model"]
        )
        for entry in self._host.entries.values():
            swaps.add_metric([entry.name], entry.swaps)
            loads.add_metric([entry.name, "success"], entry.loads)
            loads.add_metric([entry.name, "failure"], entry.load_failures)
            seconds.add_metric([entry.name], entry.load_seconds)
            latency.add_metric(
                [entry.name], _buckets(SECOND_BOUNDS, entry.latency.counts), entry.latency.sum_ns / 1e9
            )
        yield from (swaps, loads, seconds, latency)


class ProcessesCollector(Collector):
    """The client library's process metrics, summed over a server's processes; the first is its main one."""

    def __init__(self, processes: Sequence[int]) -> None:
        self._collectors = [ProcessCollector(pid=str(pid).__str__, registry=None) for pid in processes]

    def collect(self) -> Iterator[Metric]:
        """Yield all of them; CPU time includes ended processes."""
        main, *workers = [list(collector.collect()) for collector in self._collectors]
        values = {metric.name: metric.samples[0].value for metric in main}
        for metric in (metric for worker in workers for metric in worker):
            if metric.name not in ("process_start_time_seconds", "process_max_fds"):
                values[metric.name] += metric.samples[0].value
        times = os.times()
        values["process_cpu_seconds"] += times.children_user + times.children_system
        for metric in main:
            metric.samples[0] = metric.samples[0]._replace(value=values[metric.name])
            yield metric


def _payload_metrics(counts: Counts) -> Iterator[Metric]:
    yield CounterMetricFamily("driftline_payloads_sent", "Payloads that were logged", value=counts.sent)
    yield CounterMetricFamily(
        "driftline_payloads_dropped",
        "Payloads not logged because too many waited or the sink failed",
        value=counts.dropped,
    )
    yield CounterMetricFamily(
        "driftline_payloads_skipped",
        "Payloads not logged for lack of time, see log_cpu",
        value=counts.skipped,
    )
    yield GaugeMetricFamily(
        "driftline_payloads_queued", "Payloads that wait to be logged", value=counts.queued
    )
    yield GaugeMetricFamily(
        "driftline_payloads_queued_bytes", "Approximate bytes of queued payloads", value=counts.queued_bytes
    )


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Prometheus buckets: counts of values up to each bound."""
    return list(zip([*map(str, bounds), "+Inf"], accumulate(counts), strict=True))
