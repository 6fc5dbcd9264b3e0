"""The face of monitoring: counts against plain numpy, windows, signals, errors, threads, memory."""

from __future__ import annotations

import copy
import json
import pickle
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from bench.micro import own_bytes
from hypothesis import given
from hypothesis import strategies as st

from driftline import logs
from driftline.errors import BadRequest
from driftline.monitor.comparison.wording import CLOSER, NONE
from driftline.monitor.counting import Counter
from driftline.monitor.detection.onset import Look, since_when
from driftline.monitor.detection.signals import Signal
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.column import Numeric
from driftline.monitor.reference.profile import Profile
from driftline.monitor.window import Window

COLUMNS = 5
LOOK = 100


def matrix(rows: int, seed: int = 1, shift: float = 0.0) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((rows, COLUMNS)) + shift
    return found.astype(np.float32)


def mixed(rows: int, seed: int = 1) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    holes = random.standard_normal(rows)
    holes[random.random(rows) < 0.05] = np.nan
    return {
        "holes": holes,
        "tied": random.poisson(3, rows).astype(np.float32),
        "place": random.choice(["EWR", "JFK", "LGA"], rows),
        "day": random.integers(0, 7, rows),
    }


@pytest.fixture(scope="module")
def profile() -> Profile:
    return Profile.fit({"input": matrix(2_000, 0)})


@pytest.fixture(scope="module")
def mixed_profile() -> Profile:
    return Profile.fit(mixed(2_000, 0))


def window_of(monitor: Monitor) -> Window:
    """What is counted now, as a window that ends."""
    windows: list[Window] = []
    monitor._on_window = windows.append
    monitor.finish()
    return windows[0]


def same(one: Window, other: Window) -> None:
    """Counts exactly, the rest to rounding."""
    assert one.rows == other.rows
    assert one.counts.keys() == other.counts.keys()
    for name in one.counts:
        np.testing.assert_array_equal(one.counts[name], other.counts[name], err_msg=name)
    for name in one.moments:
        np.testing.assert_allclose(one.moments[name], other.moments[name], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(one.features, other.features, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(one.comoments, other.comoments, rtol=1e-9, atol=1e-9)


# -- counts ---------------------------------------------------------------------------------------


def test_what_is_counted_is_what_plain_numpy_counts(profile: Profile) -> None:
    values = matrix(777)
    values[::50, 2] = np.nan
    monitor = Monitor(profile)
    monitor.observe({"input": values})
    window = window_of(monitor)
    assert window.rows == monitor.rows == 777
    for index, reference in enumerate(profile.references):
        assert isinstance(reference, Numeric)
        column = values[:, index]
        finite = column[np.isfinite(column)]
        inner = np.bincount(np.searchsorted(reference.edges, finite, side="right"), minlength=33)
        expected = np.zeros(len(reference.counts), np.int64)
        expected[: len(inner)] = inner
        expected[reference.missing] = np.isnan(column).sum()
        np.testing.assert_array_equal(window.counts[reference.name], expected)
        wide = finite.astype(np.float64)
        np.testing.assert_allclose(
            window.moments[reference.name],
            [len(wide), wide.mean(), wide.var() * len(wide), wide.min(), wide.max()],
            rtol=1e-9,
        )
    means, scale = profile.whole.scaling.T
    z = (np.nan_to_num(values.astype(np.float64), nan=0.0) - means) * scale
    z[np.isnan(values)] = 0
    weights = profile.whole.weights().astype(np.float64)
    np.testing.assert_allclose(window.features, np.cos(z @ weights[:-1] + weights[-1]).sum(axis=0), atol=0.01)
    ones = np.column_stack([z, np.ones(len(z))])
    np.testing.assert_allclose(window.comoments, ones.T @ ones, rtol=1e-9, atol=1e-9)


FORMS = {
    "float64": lambda x: {"input": x.astype(np.float64)},
    "columns in memory": lambda x: {"input": np.asfortranarray(x)},
    "every other row": lambda x: {"input": np.repeat(x, 2, axis=0)[::2]},
    "columns by name": lambda x: {f"input_{i}": x[:, i] for i in range(COLUMNS)},
    "another order": lambda x: {f"input_{i}": x[:, i] for i in reversed(range(COLUMNS))},
    "a column more": lambda x: {"input": x, "extra": np.zeros(len(x))},
    "a table": lambda x: pa.table({f"input_{i}": x[:, i] for i in range(COLUMNS)}),
    "lists in a table": lambda x: pa.table(
        {"input": pa.FixedSizeListArray.from_arrays(x.ravel(), COLUMNS)}
    ),
    "a DataFrame": lambda x: pd.DataFrame(x, columns=[f"input_{i}" for i in range(COLUMNS)]),
    "lists of Python": lambda x: {"input": x.tolist()},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_matrix_is_counted_like_every_other_form(profile: Profile, form: str) -> None:
    values = matrix(450)
    direct, other = Monitor(profile), Monitor(profile)
    direct.observe({"input": values})
    other.observe(FORMS[form](values))
    same(window_of(direct), window_of(other))


@given(st.lists(st.integers(0, 250), max_size=8))
def test_any_chunking_counts_and_bets_alike(profile: Profile, sizes: list[int]) -> None:
    values = matrix(2_000, shift=0.2)
    signals: tuple[list[Signal], list[Signal]] = ([], [])
    whole, chunked = (Monitor(profile, false_alarm_rows=1e4, on_signal=raised.append) for raised in signals)
    whole.observe({"input": values})
    ends = [*np.cumsum(sizes, dtype=int).tolist(), len(values)]
    for start, end in zip([0, *ends], ends, strict=False):
        chunked.observe({"input": values[start:end]})
    first, second = ([(each.kind, each.column, each.rows) for each in raised] for raised in signals)
    assert first == second != []
    same(window_of(whole), window_of(chunked))


def test_no_rows_are_no_harm(mixed_profile: Profile) -> None:
    monitor = Monitor(mixed_profile)
    monitor.observe({name: values[:0] for name, values in mixed(1).items()})
    monitor.finish()
    assert monitor.rows == 0
    assert monitor.report().to_dict()["rows"] == 0


# -- windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1_000, 333, 70])
def test_windows_by_rows_end_within_batches_and_add_up_to_all(mixed_profile: Profile, batch: int) -> None:
    windows: list[Window] = []
    columns = mixed(1_000)
    monitor = Monitor(mixed_profile, window_rows=250, on_window=windows.append)
    whole = Monitor(mixed_profile)
    for start in range(0, 1_000, batch):
        monitor.observe({name: values[start : start + batch] for name, values in columns.items()})
    whole.observe(columns)
    assert [window.rows for window in windows] == [250] * 4
    merged = windows[0]
    for window in windows[1:]:
        assert window.began >= merged.ended
        merged = merged.merge(window)
    same(merged, window_of(whole))


def test_a_window_is_what_its_own_rows_are(mixed_profile: Profile) -> None:
    windows: list[Window] = []
    columns = mixed(900)
    monitor = Monitor(mixed_profile, window_rows=300, on_window=windows.append)
    monitor.observe(columns)
    for index, window in enumerate(windows):
        alone = Monitor(mixed_profile)
        alone.observe({name: values[300 * index : 300 * (index + 1)] for name, values in columns.items()})
        same(window, window_of(alone))


@pytest.mark.parametrize(("windows", "rows"), [(1, 50), (2, 150), (3, 250), (9, 250)])
def test_a_sliding_window_is_the_sum_of_the_last(profile: Profile, windows: int, rows: int) -> None:
    values = matrix(450)
    monitor = Monitor(profile, window_rows=100, keep_windows=2)
    monitor.observe({"input": values})
    last = Monitor(profile)
    last.observe({"input": values[450 - rows :]})
    slid, expected = (one.to_dict() for one in (monitor.report(windows), last.report()))
    assert slid["rows"] == rows
    for one, other in zip(slid["columns"], expected["columns"], strict=True):
        for name, statistic in other["statistics"].items():
            assert one["statistics"][name]["value"] == pytest.approx(statistic["value"], rel=1e-9, abs=1e-12)


class Clock:
    """Seconds, as a test sets them."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("driftline.monitor.monitor.monotonic", clock)
    return clock


def test_windows_by_time_end_with_the_first_batch_after_it(profile: Profile, clock: Clock) -> None:
    windows: list[Window] = []
    monitor = Monitor(profile, window_seconds=60, on_window=windows.append)
    for seconds, rows in ((0, 10), (59, 20), (1, 40), (30, 80), (600, 1)):
        clock.now += seconds
        monitor.observe({"input": matrix(rows)})
    assert [window.rows for window in windows] == [30, 120]
    assert monitor.report().to_dict()["rows"] == 1


def test_looks_by_time_do_not_depend_on_rows(profile: Profile, clock: Clock) -> None:
    signals: list[Signal] = []
    monitor = Monitor(profile, look_rows=0, look_seconds=10, on_signal=signals.append)
    for _ in range(5):
        monitor.observe({"input": matrix(200, shift=1)})
    assert signals == []
    for _ in range(3):
        clock.now += 10
        monitor.observe({"input": matrix(200, shift=1)})
    assert {signal.kind for signal in signals} == {"change", "alarm"}


def test_a_burst_is_looked_at_whether_or_not_more_rows_come(profile: Profile, clock: Clock) -> None:
    signals: list[Signal] = []
    monitor = Monitor(profile, look_rows=0, look_seconds=10, on_signal=signals.append)
    monitor.observe({"input": matrix(4_800, shift=1)})
    clock.now += 9
    monitor.keep_time()
    assert signals == []
    clock.now += 1
    monitor.keep_time()
    raised = [(one.kind, one.column) for one in signals]
    assert {kind for kind, _ in raised} == {"change", "alarm"}
    assert {one.rows for one in signals} == {4_800}
    # The same rows are never looked at twice.
    monitor.acknowledge()
    assert monitor._detectors is not None
    state = monitor._detectors._state
    before = state.change.copy(), state.alarm.copy()
    for _ in range(5):
        clock.now += 10
        monitor.keep_time()
    monitor.report()
    monitor.finish()
    assert len(signals) == len(raised)
    for one, other in zip(before, (state.change, state.alarm), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("how", ["report", "finish", "snapshot"])
def test_whoever_asks_or_ends_has_what_was_found_last(profile: Profile, clock: Clock, how: str) -> None:
    signals: list[Signal] = []
    monitor = Monitor(profile, look_rows=0, look_seconds=10, window_seconds=60, on_signal=signals.append)
    monitor.observe({"input": matrix(4_800, shift=1)})
    getattr(monitor, how)()
    assert {signal.kind for signal in signals} == {"change", "alarm"}


def test_windows_by_time_end_by_the_clock(profile: Profile, clock: Clock) -> None:
    """Signals say what the window was that they are of, and outlast windows without rows, which are none."""
    windows: list[Window] = []
    signals: list[Signal] = []
    monitor = Monitor(
        profile, look_rows=0, look_seconds=70, window_seconds=60,
        on_window=windows.append, on_signal=signals.append,
    )  # fmt: skip
    monitor.observe({"input": matrix(3_000, shift=1)})
    clock.now += 60
    monitor.keep_time()
    assert [window.rows for window in windows] == [3_000]
    assert {signal.rows for signal in signals} == {3_000}
    for _ in range(5):
        began = monitor.report().began
        clock.now += 60
        monitor.keep_time()
        assert monitor.report().began > began
    assert len(windows) == 1
    assert monitor.report().rows == 0
    assert monitor.report(2).rows == 3_000
    assert monitor.signals == tuple(signals) != ()
    monitor.observe({"input": matrix(500)})
    clock.now += 60
    assert monitor.report().rows == 0  # whoever asks needs nobody to keep the time
    assert [window.rows for window in windows] == [3_000, 500]
    assert monitor.signals == ()


def test_without_a_clock_time_is_nothing(profile: Profile, clock: Clock) -> None:
    monitor = Monitor(profile)
    monitor.observe({"input": matrix(150)})
    clock.now += 1e6
    monitor.keep_time()
    assert monitor._last_look_rows == 100


def test_evidence_goes_on_over_the_end_of_a_window(profile: Profile) -> None:
    """That end is a look, so a signal may come earlier by less than what is between two."""
    first_signals = []
    windows = 0, 70, 100
    for window_rows in windows:
        signals: list[Signal] = []
        monitor = Monitor(
            profile, false_alarm_rows=1e3, window_rows=window_rows, keep_windows=0, on_signal=signals.append
        )
        signal_rows = []
        for row in range(0, 1_500, 10):
            monitor.observe({"input": matrix(10, seed=row, shift=0.3)})
            signal_rows += [monitor.rows] * (len(signals) - len(signal_rows))
        first_signals.append((signal_rows[0], signals[0].kind))
    assert all(
        row % (window_rows or LOOK) == 0 for (row, _), window_rows in zip(first_signals, windows, strict=True)
    )
    assert all(abs(row - first_signals[0][0]) <= LOOK for row, _ in first_signals)
    assert {kind for _, kind in first_signals} == {"change"}


# -- signals --------------------------------------------------------------------------------------


def test_signals_are_held_until_they_are_acknowledged(profile: Profile) -> None:
    signals: list[Signal] = []
    monitor = Monitor(profile, model="m", version=3, on_signal=signals.append)
    monitor.observe({"input": matrix(3_000, shift=1)})
    raised = [(signal.kind, signal.column) for signal in signals]
    assert len(set(raised)) == len(raised)
    assert {kind for kind, _ in raised} == {"change", "alarm"}
    assert monitor.signals == tuple(signals)
    assert {signal.model for signal in signals} == {"m"}
    assert {signal.version for signal in signals} == {3}
    report = monitor.report()
    assert {*report.changes, *report.alarms} == set(signals)
    assert monitor.acknowledge() == tuple(signals)
    assert monitor.signals == ()
    monitor.observe({"input": matrix(3_000, shift=1)})
    assert sorted((signal.kind, signal.column) for signal in signals[len(raised) :]) == sorted(raised)


def test_what_came_before_it_is_warm_is_looked_at_like_the_rest(profile: Profile) -> None:
    """Rows that no look had come for were once only counted, and no evidence."""
    monitor, cold = (Monitor(profile, look_rows=5_000) for _ in range(2))
    for each in (monitor, cold):
        each.observe({"input": matrix(2_000, shift=1)})
    monitor.warm_up()
    report, expected = monitor.report(), cold.report()
    assert [each.evidence for each in report.alarms] == [each.evidence for each in expected.alarms]
    assert len(report.alarms) == COLUMNS
    assert report.rows == 2_000
    np.testing.assert_array_equal(report["input_0"].counts, expected["input_0"].counts)


@pytest.mark.parametrize(("version", "about"), [(3, "m 3: "), (0, "m: ")])
def test_signals_of_one_look_are_one_line_and_for_a_machine_one_each(
    profile: Profile, caplog: pytest.LogCaptureFixture, version: int, about: str
) -> None:
    signals: list[Signal] = []
    monitor = Monitor(profile, model="m", version=version, look_rows=3_000, on_signal=signals.append)
    with caplog.at_level("INFO"):
        monitor.observe({"input": matrix(3_000)})
        monitor.observe({"input": matrix(3_000, shift=1)})
    onset = since_when([signals[0].onset])
    assert onset.endswith(" UTC, 3,000 rows before")
    assert [(record.levelname, record.getMessage().partition(" (PSI")[0]) for record in caplog.records] == [
        ("INFO", f"{about}change of 5 of 5 columns after 6000 rows{onset}: {signals[0].column}"),
        ("WARNING", f"{about}alarm of 5 of 5 columns after 6000 rows{onset}: {signals[5].column}"),
    ]
    assert re.search(r" before: (input_\d \(PSI [\d.]+: mean up 1[^)]*\), ){3}2 more$", caplog.messages[1])
    lines = [
        json.loads(line)
        for record in caplog.records
        for line in logs.JsonFormatter().format(record).splitlines()
    ]
    assert [line["signal"] for line in lines] == [one.to_dict() for one in signals]
    assert [line["message"] for line in lines] == [
        f"{about}{one.kind} of column {one.column} after 6000 rows{onset}: {one.words}" for one in signals
    ]
    assert {(line["level"], line["signal"]["kind"]) for line in lines} == {
        ("info", "change"),
        ("warning", "alarm"),
    }
    assert not any("each" in line for line in lines)


def test_a_signal_of_its_own_is_a_line_of_its_own(profile: Profile, caplog: pytest.LogCaptureFixture) -> None:
    monitor = Monitor(profile, look_rows=3_000)
    with caplog.at_level("INFO"):
        monitor.observe({"input": matrix(3_000) + np.float32([0, 1, 0, 0, 0])})
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "change of column input_1 after 3000 rows",
        "alarm of column input_1 after 3000 rows",
    ]
    (line,) = logs.JsonFormatter().format(caplog.records[1]).splitlines()
    assert json.loads(line)["signal"]["column"] == "input_1"


def test_signals_are_let_go_after_a_whole_window_without_another(profile: Profile) -> None:
    monitor = Monitor(profile, window_rows=1_000)
    monitor.observe({"input": matrix(990, shift=1)})
    held = set(monitor.signals)
    assert held
    monitor.observe({"input": matrix(10)})
    assert set(monitor.signals) == held  # the window in which they were raised was none without
    monitor.observe({"input": matrix(999, seed=5)})
    assert set(monitor.signals) == held
    monitor.observe({"input": matrix(1, seed=6)})
    assert monitor.signals == ()


def test_signals_are_held_while_they_are_confirmed(profile: Profile) -> None:
    signals: list[Signal] = []
    monitor = Monitor(profile, window_rows=1_000, on_signal=signals.append)
    for seed in range(5):
        monitor.observe({"input": matrix(1_000, seed=seed, shift=1)})
    assert set(monitor.signals) == set(signals)
    assert len({(one.kind, one.column) for one in signals}) == len(signals)


def test_a_report_looks_at_what_has_not_been_looked_at(profile: Profile) -> None:
    monitor = Monitor(profile, look_rows=0)
    for seed in range(2):
        monitor.observe({"input": matrix(500, seed=seed, shift=1)})
        report = monitor.report()
    assert report.alarms


def test_a_replay_of_the_reference_is_called_one() -> None:
    """It is a change, and none that a column shows: rows are not independent of the reference."""
    rows = np.random.default_rng(0).standard_normal((5_000, 15)).astype(np.float32)
    signals: list[Signal] = []
    monitor = Monitor(Profile.fit({"x": rows}), false_alarm_rows=1_000, on_signal=signals.append)
    for _ in range(2):
        monitor.observe({"x": rows})
    assert [(one.kind, one.column, one.words) for one in signals] == [("change", "", CLOSER)]
    assert {column.words for column in monitor.report().columns} == {CLOSER}


def test_a_profile_without_rows_is_only_counted_against() -> None:
    monitor = Monitor(Profile.empty({"x": "numeric", "place": "string"}), window_rows=50)
    monitor.observe({"x": np.array([1.0, np.nan]), "place": ["a", None]})
    assert monitor.report().alarms == ()
    assert window_of(monitor).counts["x"].sum() == 2


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"holes": [1.0], "tied": [1.0], "place": ["a"]}, "column 'day': expected as in the profile"),
        ({"holes": ["a"], "tied": [1.0], "place": ["a"], "day": [1]}, "column 'holes': expected numbers"),
        ({"holes": [1.0], "tied": [1.0], "place": [3], "day": [1]}, "column 'place': expected strings"),
        ({"holes": [1.0], "tied": [1.0, 2.0], "place": ["a"], "day": [1]}, "columns of one length"),
        ({"holes": [b"a"], "tied": [1.0], "place": ["a"], "day": [1]}, "column 'holes'"),
        (7, "expected a table, a DataFrame or arrays by name"),
    ],
)
def test_errors_name_the_column_and_nothing_is_counted(
    mixed_profile: Profile, columns: object, words: str
) -> None:
    monitor = Monitor(mixed_profile)
    monitor.observe(mixed(150))
    before = monitor._counter.counts
    with pytest.raises(BadRequest, match=words):
        monitor.observe(columns)
    assert monitor.rows == 150
    np.testing.assert_array_equal(monitor._counter.counts, before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"false_alarm_rows": 0}, "false_alarm_rows = 0: expected a number from 1"),
        ({"false_alarm_rows": float("nan")}, "false_alarm_rows = nan: expected a number from 1"),
        ({"false_alarm_rows": "many"}, "false_alarm_rows = 'many': expected a number from 1"),
        ({"tolerance": -0.1}, "tolerance = -0.1: expected a number from 0"),
        ({"look_rows": -1}, "look_rows = -1: expected a whole number from 0"),
        ({"look_seconds": -1}, "look_seconds = -1: expected a number from 0"),
        ({"window_rows": -1}, "window_rows = -1: expected a whole number from 0"),
        ({"window_seconds": float("nan")}, "window_seconds = nan: expected a number from 0"),
        ({"look_rows": 1.5}, "look_rows = 1.5: expected a whole number from 0"),
        ({"keep_windows": -1}, "keep_windows = -1: expected a whole number from 0"),
    ],
)
def test_options_are_checked(profile: Profile, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        Monitor(profile, **options)


def test_a_report_is_over_at_least_one_window(profile: Profile) -> None:
    with pytest.raises(BadRequest, match="windows = 0: expected a whole number from 1"):
        Monitor(profile).report(0)
    with pytest.raises(BadRequest, match=r"windows = 1\.5: expected a whole number from 1"):
        Monitor(profile).report(1.5)  # type: ignore[arg-type]


def test_who_is_told_may_fail_and_no_signal_is_lost(profile: Profile) -> None:
    """The evidence for both kinds is spent in one look."""

    def fail(signal: Signal) -> None:
        raise RuntimeError(signal.kind)

    live = {"input": matrix(3_000, shift=2)}
    told, failing = Monitor(profile, look_rows=3_000), Monitor(profile, look_rows=3_000, on_signal=fail)
    told.observe(live)
    with pytest.raises(RuntimeError):
        failing.observe(live)
    assert {signal.kind for signal in told.signals} == {"change", "alarm"}
    assert len(failing.signals) == len(told.signals)


def test_a_signal_of_a_slight_change_says_what_it_is() -> None:
    """That there is one is certain: words need not be as sure as those of a report of many columns."""
    random = np.random.default_rng(0)
    signals: list[Signal] = []
    for _ in range(8):
        monitor = Monitor(Profile.fit({"x": random.standard_normal(5_000)}), on_signal=signals.append)
        while not monitor.signals:
            monitor.observe({"x": 1.15 * random.standard_normal(500)})
        assert monitor.report()["x"].words != NONE
    assert NONE not in {signal.words for signal in signals}


def test_a_monitor_needs_a_profile() -> None:
    with pytest.raises(BadRequest, match=r"expected a Profile, got 'profile\.arrow'"):
        Monitor("profile.arrow")  # type: ignore[arg-type]


# -- threads and memory ---------------------------------------------------------------------------


def test_threads_that_observe_at_once_lose_nothing(mixed_profile: Profile) -> None:
    windows: list[Window] = []
    monitor = Monitor(mixed_profile, window_rows=1_111, on_window=windows.append)
    parts = [mixed(rows, seed=rows) for rows in range(90, 98)]

    def observe(columns: dict[str, Any]) -> None:
        for _ in range(40):
            monitor.observe(columns)
            monitor.report()

    threads = [threading.Thread(target=observe, args=(columns,)) for columns in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monitor.finish()
    alone = Monitor(mixed_profile)
    for columns in parts:
        alone.observe({name: np.tile(values, 40) for name, values in columns.items()})
    merged = windows[0]
    for window in windows[1:]:
        merged = merged.merge(window)
    expected = window_of(alone)
    assert merged.rows == monitor.rows == expected.rows == 40 * sum(range(90, 98))
    same(merged, expected)


@pytest.mark.parametrize(("rows_a_bin", "most"), [(3, 110_000), (1_000, 135_000)])
def test_the_state_of_30_columns_is_small_however_many_looks_there_were(rows_a_bin: int, most: int) -> None:
    random = np.random.default_rng(0)
    monitor = Monitor(Profile.fit({"input": random.standard_normal((5_000, 30), dtype=np.float32)}))
    monitor.observe({"input": random.standard_normal((250, 30), dtype=np.float32)})
    assert own_bytes(monitor) > 40_000
    assert monitor._detectors is not None
    looks = monitor._detectors.looks
    counts, nothing = monitor._counter.counts, monitor._counter.moments
    for rows in range(2_000):
        looks.add(Look(counts + rows_a_bin, nothing, 250 + rows, 0.0))
        assert own_bytes(monitor) <= most
    monitor.observe({"input": random.standard_normal((1_000, 30), dtype=np.float32) + 1})
    monitor.report()
    assert len(monitor.signals) == 60
    assert own_bytes(monitor) <= most


def test_counters_of_a_profile_share_what_they_only_read() -> None:
    profile = Profile.fit({"input": matrix(200)})
    one, other = (Counter(profile).state for _ in range(2))
    assert one.first is other.first
    assert one.weights is other.weights
    copied = pickle.loads(pickle.dumps(profile))
    assert not copied._tables
    assert copied.fingerprint == profile.fingerprint


def test_finished_windows_are_as_many_as_are_kept(profile: Profile) -> None:
    monitor = Monitor(profile, window_rows=100, keep_windows=3)
    for _ in range(10):
        monitor.observe({"input": matrix(100)})
    assert [window.rows for window in monitor._finished] == [100] * 3


def test_a_profile_of_no_columns_counts_nothing() -> None:
    monitor = Monitor(Profile.empty({}))
    monitor.observe({"x": np.zeros((5, 2))})
    assert monitor.report().columns == ()


@pytest.mark.parametrize("ends", ["window_seconds", "look_seconds"])
def test_who_is_told_of_a_signal_may_ask_for_a_report(ends: str, profile: Profile, clock: Clock) -> None:
    """By the clock, too, the window that it is about ends once, and all signals are of its rows."""
    windows: list[Window] = []
    signals: list[Signal] = []

    def ask(signal: Signal) -> None:
        clock.now += 100
        monitor.report()
        signals.append(signal)

    monitor = Monitor(
        profile, look_rows=0, look_seconds=10 if ends == "look_seconds" else 0, window_seconds=60,
        on_signal=ask, on_window=windows.append,
    )  # fmt: skip
    monitor.observe({"input": matrix(3_000, shift=1)})
    clock.now += 61
    monitor.keep_time()
    assert {signal.kind for signal in signals} == {"change", "alarm"}
    assert {signal.rows for signal in signals} == {3_000}
    clock.now += 100
    monitor.keep_time()
    assert [window.rows for window in windows] == [3_000]


def test_windows_that_were_longer_before_a_restart_end_at_once(profile: Profile) -> None:
    windows: list[Window] = []
    before = Monitor(profile, window_rows=10_000)
    before.observe({"input": matrix(8_000)})
    after = Monitor(profile, window_rows=5_000, on_window=windows.append)
    after.restore(before.snapshot())
    assert [window.rows for window in windows] == [8_000]
    after.observe({"input": matrix(100)})
    assert (after.rows, after.window_rows) == (8_100, 100)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_goes_on_by_itself(copied: Callable[[Monitor], Monitor]) -> None:
    random = np.random.default_rng(0)
    profile = Profile.fit({"a": random.normal(size=1_000), "b": random.integers(0, 3, 1_000)})
    told: list[Signal] = []
    monitor = Monitor(profile, look_rows=50, window_rows=700, model="m", version=2, on_signal=told.append)
    monitor.observe({"a": random.normal(1, size=900), "b": np.full(900, 2)})
    before, heard = repr(monitor), len(told)
    other = copied(monitor)
    assert repr(other) == before
    assert list(map(str, other.signals)) == list(map(str, monitor.signals))
    more = {"a": random.normal(1, size=300), "b": np.full(300, 2)}
    other.observe(more)
    assert (monitor.rows, other.rows, len(told)) == (900, 1_200, heard)
    monitor.observe(more)
    assert [one.to_dict() for one in other.report(2).columns] == [
        one.to_dict() for one in monitor.report(2).columns
    ]
    assert {one.version for one in other.signals} == {2}
