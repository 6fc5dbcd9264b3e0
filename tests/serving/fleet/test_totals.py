"""Totals of workers: every field is added up, and what held in a worker that has ended is no longer there."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Any

from driftline.batching.counters import Counters
from driftline.serving.fleet.totals import VersionTotals, WorkerTotals, total
from driftline.serving.latency import Latency
from driftline.serving.payloads.log import Counts


def filled(kind: type, number: int) -> Any:
    """A dataclass whose numbers are all `number`, also those of its counters."""
    made = kind()
    for item in fields(made):
        value = getattr(made, item.name)
        if isinstance(value, Counter):
            value["x"] = number
        elif isinstance(value, (Counters, Counts)):
            setattr(made, item.name, filled(type(value), number))
        elif isinstance(value, (int, float)):
            setattr(made, item.name, number)
    return made


def worker(number: int) -> WorkerTotals:
    latency = Latency()
    latency.observe(number)
    return WorkerTotals({7: filled(VersionTotals, number)}, {"m": latency}, filled(Counts, number))


def test_every_field_of_all_workers_is_added_up() -> None:
    both = total([worker(2), worker(3)])
    expected = filled(VersionTotals, 5)
    expected.counters.last_inference = 3  # a time
    assert both.versions == {7: expected}
    assert both.payloads == filled(Counts, 5)
    assert (both.models["m"].counts[0], both.models["m"].sum_ns) == (2, 5)


def test_versions_and_models_of_one_worker_alone_are_kept() -> None:
    other = WorkerTotals({8: filled(VersionTotals, 1)}, {"n": Latency()})
    both = total([worker(2), other])
    assert (set(both.versions), set(both.models)) == ({7, 8}, {"m", "n"})
    assert both.pending == 3


def test_what_waited_in_a_worker_that_has_ended_was_skipped() -> None:
    ended = worker(2)
    ended.end()
    version = ended.versions[7]
    assert (version.skipped_rows, version.counters.requests) == (4, 2)
    assert (version.pending, version.queue_rows, version.queue_bytes) == (0, 0, 0)
    assert (version.waiting_rows, version.loading_watches, ended.pending) == (0, 0, 0)
    assert (ended.payloads.dropped, ended.payloads.queued, ended.payloads.queued_bytes) == (4, 0, 0)
