"""Reports of windows that a plain counter made."""

from __future__ import annotations

import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import ks_2samp

from driftline.errors import BadRequest
from driftline.monitor.comparison.comparing import ColumnCounts
from driftline.monitor.comparison.statistics import Statistic
from driftline.monitor.comparison.wording import CLOSER, NONE, describe_all
from driftline.monitor.detection.signals import Signal, log_signals
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.column import Numeric, Reference
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reporting import report
from driftline.monitor.reporting.histogram import histogram
from driftline.monitor.reporting.report import Report
from driftline.monitor.window import Window
from driftline_kernels import comoments, fourier

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NUMERIC = {"kolmogorov_smirnov", "wasserstein", "mean_shift", "infinite", "out_of_range"}
BOTH = {"psi", "jensen_shannon", "hellinger", "total_variation", "l_infinity", "chi_square", "missing"}


def count(reference: Reference, values: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Counts, and moments of numbers, the plain way."""
    if not isinstance(reference, Numeric):
        bins = {name: index for index, name in enumerate(reference.categories)}
        bins_of_values = [
            reference.missing if x is None else bins.get(str(x), reference.unseen) for x in values
        ]
        return np.bincount(bins_of_values, minlength=len(reference.counts)).astype(np.int64), None
    x = np.asarray(values, np.float32)
    finite = x[np.isfinite(x)].astype(np.float64)
    inner = np.bincount(
        np.searchsorted(reference.edges, finite.astype(np.float32), side="right"),
        minlength=len(reference.edges) + 1,
    )
    special = [np.isnan(x).sum(), (x == np.inf).sum(), (x == -np.inf).sum()]
    moment = np.array([0, 0, 0, np.inf, -np.inf])
    if len(finite):
        moment = np.array(
            [len(finite), finite.mean(), finite.var() * len(finite), finite.min(), finite.max()]
        )
    return np.array([*inner, *special], np.int64), moment


def window(profile: Profile, data: dict[str, Any]) -> Window:
    counted = {reference.name: count(reference, data[reference.name]) for reference in profile.references}
    whole = profile.whole
    features, products = np.zeros_like(whole.features), np.zeros_like(whole.comoments)
    if whole.names:
        values = np.stack([np.asarray(data[name], np.float64) for name in whole.names], axis=1)
        fourier.update(values, whole.scaling, whole.weights(), features)
        if products.size:
            comoments.update(values, whole.scaling, products)
    return Window(
        NOON,
        NOON + timedelta(hours=1),
        len(next(iter(data.values()))),
        {name: counts for name, (counts, _) in counted.items()},
        {name: moment for name, (_, moment) in counted.items() if moment is not None},
        features,
        products,
    )


def data(rows: int, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "normal": random.standard_normal(rows),
        "other": random.standard_normal(rows),
        "tied": random.poisson(2.0, rows).astype(np.float64),
        "holes": np.where(random.random(rows) < 0.1, np.nan, random.standard_normal(rows)),
        "infinite": np.where(random.random(rows) < 0.05, np.inf, random.standard_normal(rows)),
        "constant": np.full(rows, 7.0),
        "absent": np.full(rows, np.nan),
        "place": random.choice(["EWR", "JFK", "LGA"], rows, p=[0.31, 0.3, 0.39]),
        "tail": random.zipf(1.7, rows).astype(str),
    }


@pytest.fixture(scope="module")
def profile() -> Profile:
    return Profile.fit(data(5_000))


def only(reference: Any, live: Any) -> report.ColumnReport:
    """The report of one column."""
    profile = Profile.fit({"x": reference})
    counts, moments = count(profile["x"], live)
    return report.of_columns([ColumnCounts(profile["x"], counts, moments)])[0]


def test_nothing_stands_out_when_nothing_has_changed(profile: Profile) -> None:
    drift = report.of(profile, window(profile, data(2_000, seed=1)))
    assert drift.rows == 2_000
    assert drift.reference_rows == 5_000
    for column in drift.columns:
        psi = column.statistics["psi"]
        assert psi.value <= 4 * (psi.null or 0), column.name
        expected = BOTH | (NUMERIC if column.kind == "numeric" else {"unseen"})
        if column.name == "constant":
            expected -= {"wasserstein", "mean_shift", "chi_square"}
        if column.name == "absent":
            expected -= {"wasserstein", "mean_shift", "kolmogorov_smirnov", "chi_square"}
        assert column.statistics.keys() == expected, column.name
        assert column.rows == 2_000
        assert column.reference_shares.sum() == pytest.approx(1)
        assert column.current_shares.sum() == pytest.approx(1)
    for statistic in drift.whole.values():
        assert statistic.value <= 2 * (statistic.null or 0)
    assert drift["normal"].statistics["kolmogorov_smirnov"].p > 0.001  # type: ignore[operator]


def test_chi_square_is_left_out_if_pooling_leaves_one_bin() -> None:
    before = [*["a"] * 71, *["b"] * 59, *["c"] * 48]
    few, many = only(before, ["a"] * 500).statistics, only(before, ["a"] * 100_000).statistics
    assert few["chi_square"].p == pytest.approx(0)
    assert many["psi"].value > 5
    assert "chi_square" not in many


def test_statistics_are_those_of_the_rows() -> None:
    random = np.random.default_rng(0)
    before, after = random.standard_normal(4_000).astype(np.float32), random.normal(0.5, 2, 3_000)
    statistics = only(before, after).statistics
    oracle = ks_2samp(before, after)
    assert statistics["kolmogorov_smirnov"].value == pytest.approx(oracle.statistic, abs=1 / 32)
    assert statistics["mean_shift"].value == pytest.approx(
        (after.mean() - before.mean()) / before.std(), abs=1e-5
    )
    beyond = (after < before.min()) | (after > before.max())
    assert statistics["out_of_range"].value == pytest.approx(beyond.mean(), abs=1e-9)
    exact = np.abs(np.quantile(after, np.linspace(0, 1, 5001)) - np.quantile(before, np.linspace(0, 1, 5001)))
    assert statistics["wasserstein"].value == pytest.approx(exact.mean() / before.std(), rel=0.2)


def test_missing_values_have_no_place_in_the_order() -> None:
    values = np.random.default_rng(0).standard_normal(2_000)
    holed = values.copy()
    holed[::2] = np.nan
    statistics = only(values, holed).statistics
    assert statistics["kolmogorov_smirnov"].value < 0.05
    assert statistics["wasserstein"].value < 0.1
    assert statistics["missing"].value == 0.5
    assert only(holed, values).statistics["missing"].value == -0.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x + 0.4, "mean up 0.4 sd"),
        (lambda x: x - 1.5, "mean down 1.5 sd"),
        (lambda x: np.where(np.arange(len(x)) % 50 < 3, np.nan, x), "missing 0 % -> 6 %"),
        (lambda x: np.where(np.arange(len(x)) % 100 < 1, -np.inf, x), "infinite 0 % -> 1 %"),
        (lambda x: np.random.default_rng(1).standard_normal(len(x)), NONE),
        (lambda x: x, CLOSER),
        (lambda x: x[:4_000], CLOSER),
        (lambda x: np.tile(x, 3), CLOSER),
    ],
)
def test_a_change_of_numbers_in_words(change: Any, words: str) -> None:
    values = np.random.default_rng(0).standard_normal(5_000)
    assert words in only(values, change(values)).words


@pytest.mark.parametrize("draw", ["standard_normal", "lognormal", "pareto"])
@pytest.mark.parametrize("rows", [50, 1_000, 20_000])
def test_words_of_a_report_are_no_chance(draw: str, rows: int) -> None:
    """At 95 % each, one column in ten is said to have changed; a reference of few rows has a narrow range."""
    random = np.random.default_rng(rows)
    more = {"a": 2.5} if draw == "pareto" else {}

    def some(size: int) -> dict[str, np.ndarray]:
        return {str(index): getattr(random, draw)(**more, size=size) for index in range(10)}

    told = 0
    for _ in range(20):
        profile = Profile.fit(some(200))
        found = report.of(profile, window(profile, some(rows)))
        told += any(column.words != NONE for column in found.columns)
    assert told <= 4


def test_what_is_beyond_the_extremes_by_chance_is_no_change() -> None:
    profile = Profile.fit({"x": np.arange(200.0)})
    found = report.of(profile, window(profile, {"x": np.linspace(-2, 201, 20_000)}))["x"]
    assert found.statistics["out_of_range"].value == pytest.approx(0.0198, abs=1e-4)
    assert found.statistics["out_of_range"].null == pytest.approx(2 / 201)
    assert "out of range" not in found.words


def test_nothing_finite_is_beyond_the_greatest_float() -> None:
    """Which is what some take for a missing value."""
    rows = np.append(np.arange(200.0), [np.finfo(np.float32).max] * 50)
    same = only(rows, rows)
    assert same.facts["out_of_range_rate"] == 0
    assert same.statistics["out_of_range"].value == 0


def test_few_rows_or_bins_are_not_too_close_by_chance() -> None:
    """Independent rows are called a replay once in 10,000 times, if their columns have bins enough at all."""
    random = np.random.default_rng(0)
    for rows, length in ((200, 20), (200, 200), (5_000, 5_000), (500, 20_000)):
        before, after = (
            {
                **{f"x{index}": random.standard_normal(number) for index in range(200)},
                **{f"few{index}": random.integers(0, 4, number) for index in range(50)},
                **{f"coin{index}": random.integers(0, 2, number) for index in range(50)},
            }
            for number in (rows, length)
        )
        profile = Profile.fit(before)
        found = report.of(profile, window(profile, after))
        assert [column.name for column in found.columns if column.words == CLOSER] == []


def test_all_columns_together_tell_what_each_does_not_yet() -> None:
    def columns(chance: float, freedom: float = 30.0) -> list[dict[str, Statistic]]:
        return [{"chi_square": Statistic(10.0, null=freedom, p=chance)}] * 3

    assert describe_all([("a", NONE), ("b", NONE)], columns(0.97)) == CLOSER
    assert describe_all([("a", NONE), ("b", NONE)], columns(0.9)) == NONE
    assert describe_all([("a", NONE), ("b", NONE)], columns(1.0, freedom=1)) == NONE
    assert describe_all([("a", NONE)], [{}]) == NONE
    assert describe_all([("a", NONE), ("b", "mean up 1 sd"), ("c", CLOSER)], columns(1)) == "b: mean up 1 sd"
    words = [("a", "mean up 1 sd"), ("b", "missing 0 % -> 6 %")]
    assert describe_all(words, columns(0)) == "a: mean up 1 sd; b: missing 0 % -> 6 %"


def test_a_change_of_spread_is_told_by_where_it_is_most() -> None:
    random = np.random.default_rng(0)
    column = only(random.standard_normal(5_000), 2 * random.standard_normal(4_000))
    assert "below" in column.words
    assert "mean" not in column.words


def test_where_the_shape_says_more_than_the_mean_it_is_told_first() -> None:
    """Of a score that is cut off, 'mean down 0.2 sd' alone was said."""
    values = np.random.default_rng(0).random(5_000)
    shape, mean = only(values, 0.9 * values).words.split("; ")
    assert re.fullmatch(r"below 0\.\d+: \d+ % -> (9\d|100) %", shape)
    assert mean.startswith("mean down 0.2 sd, 0.499 -> 0.4")
    normal = np.random.default_rng(0).standard_normal(5_000)
    assert re.fullmatch(
        r"mean up 0\.3 sd, -?0\.0\d+ -> 0\.\d+(; above 3\.\d+, the reference maximum: 0 % -> 0\.\d+ %)?",
        only(normal, normal + 0.3).words,
    )


def test_out_of_range_is_told_with_its_side() -> None:
    values = np.linspace(3, 71, 5_000)
    usual, low, high = values[:400], [-5.0] * 100, [90.0] * 100
    cases = [
        ([*usual, *low], "below 3, the reference minimum: 0 % -> 20 %"),
        ([*usual, *high], "above 71, the reference maximum: 0 % -> 20 %"),
        ([*usual, *low, *high[:10]], "below 3, the reference minimum: 0 % -> 20 %"),
        ([*usual, *low, *high[:20]], "out of 3 to 71: 0 % -> 23 %"),
    ]
    for live, words in cases:
        assert words in only(values, np.array(live)).words


def test_a_mean_is_told_with_the_digits_that_its_change_has() -> None:
    random = np.random.default_rng(0)
    values = 655 + 50 * random.standard_normal(5_000)
    assert "sd, 650 -> 3380" in only(values, values + 2_730).words
    assert "sd, 655 -> 675" in only(values, values + 20).words


def test_a_change_is_not_told_again_beside_its_alarm(profile: Profile) -> None:
    raised = {("alarm", "n"), ("change", "n"), ("change", "c")}
    signals = [
        Signal(kind, "m", 1, name, NOON, 9, 15.0, (), {}, f"{kind} of {name}") for kind, name in raised
    ]
    drift = report.of(profile, window(profile, data(200)), signals)
    for text in shows(drift):
        assert "alarm of n" in text
        assert "change of c" in text
        assert "change of n" not in text
    assert len(drift.to_dict()["changes"]) == 2


def test_what_repeats_never_or_always_is_explained() -> None:
    ids = np.array([f"id {row}" for row in range(5_000)])
    assert "as with ids" in only(ids, ids).note
    rows = np.full(200, 7.0)
    assert only(rows, rows).note == "the reference has one value only, 7"
    assert only(rows, rows + 2).note == "the reference has one value only, 7; here 9"
    assert only(rows, [7.0, 8.0]).note == "the reference has one value only, 7; here 7 to 8"


def test_one_row_has_no_correlations(profile: Profile) -> None:
    """By chance they would differ by more than they can."""
    assert "correlation_max" not in report.of(profile, window(profile, data(1))).whole
    assert "correlation_max" in report.of(profile, window(profile, data(20))).whole


def test_a_change_of_categories_in_words_largest_first() -> None:
    before = ["EWR"] * 310 + ["JFK"] * 300 + ["LGA"] * 390
    after: list[Any] = ["EWR"] * 440 + ["JFK"] * 300 + ["LGA"] * 150 + ["BOS"] * 50 + [None] * 60
    changed = only(np.array(before), after).words.split("; ")
    assert changed[0] == 'category "LGA" 39 % -> 15 %'
    assert changed[1:] == ["missing 0 % -> 6 %", "unseen 0 % -> 5 %"]
    shifted = ["EWR"] * 440 + ["JFK"] * 170 + ["LGA"] * 390
    assert 'category "EWR" 31 % -> 44 %' in only(np.array(before), shifted).words


def test_small_rates_are_told_apart_and_names_stay_on_their_line() -> None:
    name = "evil\n" + "x" * 100
    before = np.array([name] * 20 + ["b"] * 9_980)
    after = [name] * 120 + ["b"] * 9_880
    words = only(before, after).words
    assert "0.2 % -> 1.2 %" in words or "0.2 % -> 1 %" in words
    assert "\n" not in words
    assert "…" in words


def test_odd_references_are_explained() -> None:
    rows = np.full(200, 7.0)
    constant = only(rows, np.append(rows, [8.0] * 50))
    assert constant.note.startswith("the reference has one value only, 7")
    assert constant.words == "above 7, the reference maximum: 0 % -> 20 %"
    absent = only(np.full(200, np.nan), np.append(np.full(100, np.nan), np.zeros(100)))
    assert absent.note == "the reference has no values: all are missing"
    assert absent.statistics["missing"].value == -0.5
    assert absent.statistics["out_of_range"].value == 0.5
    infinite = only(np.full(200, np.inf), np.full(5, np.inf))
    assert infinite.note == "the reference has no values that float32 has as finite"
    one = only(np.array(["a"] * 200), ["a", "b"])
    assert one.note == 'the reference has one category only, "a"'
    assert only(np.arange(200.0), [np.nan] * 5).note == "all values in this window are missing"


def test_an_empty_window_has_no_statistics(profile: Profile) -> None:
    empty = window(profile, {name: values[:0] for name, values in data(1).items()})
    found = report.of(profile, empty)
    assert not found.whole
    for column in found.columns:
        assert not column.statistics
        assert column.note == column.words == "no rows in this window"
    shows(found)


def test_a_reference_without_rows_leaves_counts(profile: Profile) -> None:
    empty_reference = Numeric(
        "x", np.zeros(0, np.float32), np.zeros(4, np.int64), *[np.zeros(0)] * 2, np.zeros(5)
    )
    counts, moments = count(empty_reference, [1.0, 3.0, np.nan, np.inf])
    (column,) = report.of_columns([ColumnCounts(empty_reference, counts, moments)])
    assert not column.statistics
    assert column.note == "no reference: only counted"
    assert column.facts == {
        "missing_rate": 0.25,
        "infinite_rate": 0.25,
        "mean": 2.0,
        "sd": 1.0,
        "least": 1.0,
        "greatest": 3.0,
    }
    shows(Report(NOON, NOON, 4, 0, (column,), {}, (), ()))


def test_one_row_is_certain_of_nothing(profile: Profile) -> None:
    row = {name: [0.5] if isinstance(profile[name], Numeric) else ["JFK"] for name in profile.names}
    row |= {"absent": [np.nan], "constant": [7.0], "tail": ["1"]}
    found = report.of(profile, window(profile, row))
    for column in found.columns:
        assert column.words == NONE, column.name
    shows(found)


def test_columns_are_ranked_by_drift_beyond_chance(profile: Profile) -> None:
    live = data(1_000, seed=1)
    live["other"] = live["other"] + 1
    live["tied"] = live["tied"] + 1
    ranked = [column.name for column in report.of(profile, window(profile, live)).ranked()]
    assert set(ranked[:2]) == {"other", "tied"}
    assert len(ranked) == len(live)


def test_whole_rows_show_a_change_that_no_column_does() -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2, 4_000))
    profile = Profile.fit({"x": x, "y": y})
    found = report.of(profile, window(profile, {"x": x, "y": x}))
    assert found.whole["mmd"].value > 4 * found.whole["mmd"].null  # type: ignore[operator]
    assert found.whole["correlation_max"].value == pytest.approx(1, abs=0.05)
    assert found["y"].words == "no single change stands out"


def test_windows_of_other_bins_are_refused(profile: Profile) -> None:
    other = Profile.fit({"z": np.arange(200.0)})
    with pytest.raises(BadRequest, match="column 'z': expected 37 counts in the window, got 0"):
        report.of(other, window(profile, data(10)))
    with pytest.raises(BadRequest, match="column 'q': the report has no such column; it has: z"):
        report.of(other, window(other, {"z": np.arange(3.0)}))["q"]


def signals() -> list[Signal]:
    one = Signal("alarm", "m", 1, "<b>n</b>", NOON, 900, 15.0, (), {}, "mean up 0.4 sd")
    return [one, Signal("change", "m", 1, "", NOON, 400, 14.0, ("<b>n</b>",), {}, "")]


def test_signals_are_told_apart(profile: Profile) -> None:
    found = report.of(profile, window(profile, data(100)), signals())
    assert [signal.column for signal in found.alarms] == ["<b>n</b>"]
    assert [signal.column for signal in found.changes] == [""]
    told = found.to_dict()
    assert told["alarms"][0]["words"] == "mean up 0.4 sd"
    page, text = shows(found)
    assert "the model as a whole (<b>n</b>), 2026-03-01 12:00:00 UTC, after 400 rows" in text
    assert "mean up 0.4 sd" in text
    assert page.count('<p class="signal alarm">') == 1


def test_it_prints_as_a_table_and_is_short_among_others(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = report.of(profile, window(profile, data(1_000)), signals())
    assert repr(found) == "Report(1,000 rows against 5,000, 1 alarms, 1 changes)"
    assert repr(found.alarms) == "(Signal(alarm of '<b>n</b>' after 900 rows: mean up 0.4 sd),)"
    assert repr(found.changes[0]) == "Signal(change of the model as a whole after 400 rows: )"
    for columns in ("80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        lines = str(found).splitlines()
        assert lines[0].startswith("1,000 rows, 2026-03-01")
        assert any(line.startswith("alarm   <b>n</b>, 2026-03-01") for line in lines)
        assert {line.split()[0] for line in lines if line} >= {"column", *profile.names}
        assert max(map(len, lines)) <= int(columns)
        assert str(profile).splitlines()[0]
    assert "\x1b" not in str(found)


def test_in_a_notebook_text_is_only_what_is_printed(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, rich would show what it captures, too, as a page of its own."""
    shown: list[Any] = []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda *what: shown.append(what))
    text = str(report.of(profile, window(profile, data(1_000)), signals()))
    assert text.startswith("1,000 rows")
    assert "<pre" not in text
    assert not shown


def test_references_and_windows_are_a_line(profile: Profile) -> None:
    assert repr(profile["normal"]).startswith("Numeric('normal', numeric, 5,000 rows: ")
    assert repr(profile["place"]).startswith("Categorical('place', string, 5,000 rows")
    began = f"{NOON:%Y-%m-%d %H:%M:%S}"
    assert repr(window(profile, data(1_000))).startswith(f"Window(1,000 rows, {began} to ")


def test_of_the_many_columns_of_a_signal_the_first_are_named(caplog: pytest.LogCaptureFixture) -> None:
    columns = tuple(f"c{index}" for index in range(500))
    signal = Signal("change", "", 0, "", NOON, 9, 14.0, columns, {}, "")
    text = str(Report(NOON, NOON, 9, 9, (), {}, (signal,), ()))
    assert "the model as a whole (c0, c1, c2, 497 more)" in text
    with caplog.at_level("INFO"):
        log_signals([signal], 500)
    assert "the model as a whole (c0, c1, c2, 497 more)" in caplog.text


def test_history_has_a_row_for_each_statistic(profile: Profile) -> None:
    found = report.of(profile, window(profile, data(500, seed=2)))
    table = found.to_arrow()
    rows = {(row["column"], row["statistic"]): row for row in table.to_pylist()}
    assert len(rows) == table.num_rows
    assert {row["began"] for row in rows.values()} == {NOON}
    shift = found["normal"].statistics["mean_shift"]
    row = rows["normal", "mean_shift"]
    assert (row["kind"], row["rows"], row["value"]) == ("numeric", 500, shift.value)
    assert (row["low"], row["high"]) == shift.interval
    assert rows["normal", "psi"]["null"] == found["normal"].statistics["psi"].null
    assert rows["", "mmd"]["kind"] == "whole"
    assert rows["place", "missing_rate"]["value"] == 0
    assert rows["normal", "mean"]["value"] == found["normal"].facts["mean"]


def shows(found: Report) -> tuple[str, str]:
    """HTML and terminal text; the first is well-formed and self-contained, what JSON gets is JSON."""
    json.dumps(found.to_dict(), allow_nan=False)
    found.to_arrow()
    page = found._repr_html_()
    ElementTree.fromstring(page)
    for foreign in ("<script", "http:", "https:", "url(", "nan"):
        assert foreign not in page
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(found)
    return page, console.export_text()


def test_names_are_escaped_and_many_columns_are_cut() -> None:
    values = np.random.default_rng(0).standard_normal(300)
    columns = {"<b>n</b>": values + 2, "[red]r[/red]": values, **{f"x{i}": values for i in range(60)}}
    profile = Profile.fit(dict.fromkeys(columns, values))
    page, text = shows(report.of(profile, window(profile, columns)))
    assert "&lt;b&gt;n&lt;/b&gt;" in page
    assert "<b>n</b>" not in page
    assert "[red]r[/red]" in text
    assert page.count("<tr>") == 41
    assert "22 columns of less drift are not shown" in page
    assert "22 columns of less drift are not shown" in text


def labels(column: report.ColumnReport) -> list[str]:
    """What stands below a histogram."""
    drawing = ElementTree.fromstring(histogram(column))
    return [each.text or "" for each in drawing.iter("text")]


def test_a_histogram_says_where_it_begins_and_ends() -> None:
    usual = np.linspace(0, 10, 101)
    assert labels(only(usual, usual[20:])) == ["0", "10"]
    assert labels(only(usual, [*usual, -1e6, np.nan])) == ["< -9.6", "10", "missing"]
    assert labels(only(usual, [*usual, 1e6])) == ["0", "> 19.6"]
    days = np.array(["2026-03-01", "2026-03-09"], "M8[D]").repeat(50)
    profile = Profile.fit({"x": days})
    counted = ColumnCounts(profile["x"], *count(profile["x"], days.astype("M8[us]").astype(np.int64)))
    dated = labels(report.of_columns([counted])[0])
    assert [each[:10] for each in dated] == ["2026-03-01", "2026-03-09"]
    assert labels(only(np.full(100, np.nan), [np.nan])) == ["missing"]


def test_a_histogram_names_categories_where_there_is_room() -> None:
    assert labels(only(["rome"] * 60 + ["<b>&"] * 40, ["rome", "oslo"])) == ["rome", "<b>&", "unseen"]
    assert labels(only(["a category of many letters"] * 60 + ["b"] * 40, ["b"])) == ["a categ…", "b"]
    many = [name for index in range(12) for name in [f"c{index:02}"] * (100 - index)]
    assert labels(only(many, many)) == [f"c{index:02}" for index in range(10)] + ["…"]


def test_a_category_of_characters_that_are_not_visible_is_escaped() -> None:
    before, after = ["a\u202eb"] * 60 + ["\0"] * 40, ["a\u202eb"] * 10 + ["\0"] * 90
    found = only(before, after)
    assert labels(found) == ["'a\\u202…", "'\\x00'"]
    assert found.words.startswith('category "a\\u202eb" 60 % -> 10 %')
    profile = Profile.fit({"x": before})
    page, _ = shows(report.of(profile, window(profile, {"x": after})))
    assert not {"\u202e", "\0"} & set(page)


def test_whole_rows_say_what_their_numbers_are(profile: Profile) -> None:
    page, text = shows(report.of(profile, window(profile, data(500))))
    for shown in (page, text):
        assert re.search(
            r"largest change of a correlation [\d.]+ \(.*, norm of all these changes [\d.]+ \(", shown
        )
        assert "mean shift, sd" in shown


def test_a_page_for_a_browser(profile: Profile) -> None:
    found = report.of(profile, window(profile, data(500, seed=2)))
    page = found.to_html("a <b> & c: drift")
    assert page.startswith("<!doctype html>")
    assert "<title>a &lt;b&gt; &amp; c: drift</title>" in page
    assert found._repr_html_() in page
    assert "<script" not in page


anything = st.floats(width=32) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1.0, 3.4e38, -3.4e38])


@pytest.mark.filterwarnings("ignore:a profile of")
@settings(max_examples=150, deadline=None)
@given(st.lists(anything, min_size=1, max_size=60), st.lists(anything, max_size=60))
def test_whatever_comes_is_reported_and_shown(reference: list[float], live: list[float]) -> None:
    profile = Profile.fit({"x": np.array(reference), "y": np.array(reference[::-1])})
    both = np.array(live, np.float64)
    shows(report.of(profile, window(profile, {"x": both, "y": both})))


@pytest.mark.filterwarnings("ignore:a profile of")
@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.text(max_size=3), min_size=1, max_size=60),
    st.lists(st.none() | st.text(max_size=3), max_size=60),
)
def test_whatever_text_comes_is_reported(reference: list[str], live: list[str | None]) -> None:
    column = only(np.array(reference, object), live)
    json.dumps(column.to_dict(), allow_nan=False)
    assert "\n" not in column.words


def test_a_report_says_shortly_what_it_is() -> None:
    columns = {"x": np.arange(200, dtype=np.float32)}
    monitor = Monitor(Profile.fit(columns))
    monitor.observe({"x": columns["x"] + 100})
    found = monitor.report()
    assert (
        repr(found)
        == f"Report(200 rows against 200, {len(found.alarms)} alarms, {len(found.changes)} changes)"
    )
    assert repr(found["x"]).startswith("ColumnReport('x', 200 rows: mean up ")
