"""What workers count is what one process would have, however they are asked for it, and if they die."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monitor.test_counting import ROWS, data, live

from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile
from driftline.monitor.slab import Collector, Share, slab_bytes

PROFILE = Profile.fit(data())


def memory_for(monitor: Monitor) -> np.ndarray:
    return np.zeros(slab_bytes(monitor.words) // 8, np.int64)


def part(columns: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    return {name: values[start:stop] for name, values in columns.items()}


def same(found: Monitor, expected: Monitor) -> None:
    """Counts alike to the last row, moments and sums to rounding."""
    one, two = found.current()[0], expected.current()[0]
    assert one.rows == two.rows
    for name, counts in two.counts.items():
        np.testing.assert_array_equal(one.counts[name], counts, err_msg=name)
    for name, moments in two.moments.items():
        np.testing.assert_allclose(one.moments[name], moments, rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(one.features, two.features, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(one.comoments, two.comoments, rtol=1e-9, atol=1e-9)


steps = st.lists(
    st.tuples(st.sampled_from(["count", "merge", "follow", "collect", "ask", "take_all"]), st.integers(0, 2)),
    max_size=60,
)


@given(steps)
def test_whatever_comes_when_no_row_is_lost_or_counted_twice(order: Sequence[tuple[str, int]]) -> None:
    fleet, alone, columns = Monitor(PROFILE), Monitor(PROFILE), live()
    memories = [memory_for(fleet) for _ in range(3)]
    collectors = [Collector(fleet, memory) for memory in memories]
    shares = [Share(PROFILE, memory) for memory in memories]
    at = 0
    for step, worker in order:
        if step in ("count", "merge"):
            rows = 17 * (1 + worker)
            block = part(columns, at, at + rows)
            at = (at + rows) % (ROWS - 100)
            if step == "count":
                shares[worker].observe(block)
            else:
                elsewhere = Monitor(PROFILE)
                elsewhere.observe(block)
                shares[worker].merge(elsewhere._counter, rows)
            alone.observe(block)
        elif step == "follow":
            shares[worker].follow()
        elif step == "take_all":
            collectors[worker].take_all()
            shares[worker] = Share(PROFILE, memories[worker])
        else:
            getattr(collectors[worker], step)()
    for collector in collectors:
        collector.take_all()
    same(fleet, alone)


def test_what_was_observed_before_a_worker_follows_can_be_collected_at_once() -> None:
    monitor = Monitor(PROFILE)
    memory = memory_for(monitor)
    collector, share = Collector(monitor, memory), Share(PROFILE, memory)
    for rows in range(1, 5):
        collector.collect()
        collector.ask()
        share.observe(part(live(), 0, rows))
        share.follow()
        collector.collect()
        assert monitor.rows == rows * (rows + 1) // 2
        assert not collector.has_unrequested_rows


def test_a_monitor_looks_and_turns_when_enough_has_come_in_all() -> None:
    windows: list[int] = []
    monitor = Monitor(PROFILE, look_rows=10, window_rows=100, on_window=lambda one: windows.append(one.rows))
    memories = [memory_for(monitor) for _ in range(2)]
    collectors = [Collector(monitor, memory) for memory in memories]
    shares = [Share(PROFILE, memory) for memory in memories]
    for start in range(0, 400, 40):
        shares[start // 40 % 2].observe(part(live(), start, start + 40))
        for collector, share in zip(collectors, shares, strict=True):
            collector.ask()
            share.follow()
            collector.collect()
    assert monitor.rows == 400
    assert windows == [120, 120, 120]
    assert monitor.report(4).rows == 400 - 240  # a window is kept, and the current one


def test_by_the_clock_a_look_comes_behind_what_is_merged() -> None:
    monitor = Monitor(PROFILE, look_rows=0, look_seconds=1e-9, window_rows=0)
    memory = memory_for(monitor)
    collector, share = Collector(monitor, memory), Share(PROFILE, memory)
    assert monitor.due(0)
    share.observe(part(live(), 0, 40))
    collector.take_all()
    assert monitor._last_look_rows == monitor.rows == 40
    assert not Monitor(PROFILE, look_rows=100).due(99)
    assert Monitor(PROFILE, look_rows=100).due(100)


def test_drift_is_found_as_one_process_finds_it() -> None:
    random = np.random.default_rng(0)
    profile = Profile.fit({"x": random.standard_normal(5000)})
    signals: list[str] = []
    monitor = Monitor(profile, on_signal=lambda one: signals.append(one.kind))
    memories = [memory_for(monitor) for _ in range(3)]
    collectors = [Collector(monitor, memory) for memory in memories]
    shares = [Share(profile, memory) for memory in memories]

    def send(rows: np.ndarray) -> None:
        for number, block in enumerate(np.array_split(rows, len(rows) // 20)):
            shares[number % 3].observe({"x": block})
            for collector, share in zip(collectors, shares, strict=True):
                collector.ask()
                share.follow()
                collector.collect()

    send(random.standard_normal(5000))
    assert signals == []
    send(random.standard_normal(2000) + 1)
    assert sorted(signals) == ["alarm", "change"]


def test_a_wrong_batch_is_refused_and_not_counted() -> None:
    monitor = Monitor(PROFILE)
    memory = memory_for(monitor)
    collector, share = Collector(monitor, memory), Share(PROFILE, memory)
    with pytest.raises(Exception, match="column 'normal'"):
        share.observe({"place": ["a"]})
    collector.take_all()
    assert monitor.rows == 0


def test_a_worker_counts_while_its_monitor_collects() -> None:
    fleet, alone, columns = Monitor(PROFILE), Monitor(PROFILE), live()
    memory = memory_for(fleet)
    collector, share = Collector(fleet, memory), Share(PROFILE, memory)
    done = threading.Event()

    def work() -> None:
        for start in range(0, ROWS - 7, 7):
            share.observe(part(columns, start, start + 7))
            share.follow()
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not done.is_set():
        collector.collect()
        collector.ask()
    worker.join()
    collector.take_all()
    for start in range(0, ROWS - 7, 7):
        alone.observe(part(columns, start, start + 7))
    same(fleet, alone)


def test_rows_are_counted_once_though_a_callback_raises() -> None:
    random = np.random.default_rng(0)
    profile = Profile.fit({"x": random.standard_normal(5000)})

    def fail(_: object) -> None:
        raise OSError("no room")

    monitor = Monitor(profile, on_signal=fail)
    memory = memory_for(monitor)
    collector, share = Collector(monitor, memory), Share(profile, memory)
    share.observe({"x": random.standard_normal(1000) + 1})
    collector.ask()
    share.follow()
    with pytest.raises(OSError, match="no room"):
        collector.collect()
    collector.collect()
    collector.take_all()
    assert monitor.current()[0].counts["x"].sum() == monitor.rows == 1000
    assert monitor.signals
