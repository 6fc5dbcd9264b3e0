"""Transforms beside scikit-learn's own, fitted on the same data."""

from __future__ import annotations

import datetime
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

import driftline as dl
from driftline.errors import BadRequest

NUMBERS = st.lists(
    st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-3, 3).map(float)), min_size=2, max_size=400
).filter(lambda values: any(value is not None for value in values))
TEXTS = st.lists(
    st.one_of(
        st.none(), st.sampled_from(["", "a", "b", "ä", "北京", "x" * 300, "a\0", "aa"]), st.text(max_size=9)
    ),
    min_size=1,
    max_size=300,
)


def column(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])


def close(ours: np.ndarray, theirs: Any) -> None:
    np.testing.assert_allclose(ours, np.asarray(theirs, np.float32), rtol=2e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(NUMBERS)
def test_scalers_are_those_of_scikit_learn(values: list[float | None]) -> None:
    x = column(values)
    steps = [
        dl.Standardise("x", into="s"),
        dl.MinMax("x", -1, 2, clip=True, into="m"),
        dl.Robust("x", into="r"),
    ]
    ours = dl.Transform(steps).fit({"x": x}).apply({"x": x})
    for index, scaler in enumerate((StandardScaler(), MinMaxScaler((-1, 2), clip=True), RobustScaler())):
        close(ours[:, index], scaler.fit_transform(x[:, None])[:, 0])


@settings(max_examples=60, deadline=None)
@given(NUMBERS, st.integers(2, 9))
def test_quantile_buckets_are_those_of_scikit_learn(values: list[float | None], quantiles: int) -> None:
    x = column(values)
    present = x[~np.isnan(x)]
    ours = dl.Transform([dl.Bucketise("x", quantiles=quantiles)]).fit({"x": x})
    assert np.isnan(ours.apply({"x": x})[np.isnan(x)]).all()
    if present.min() < present.max():
        with warnings.catch_warnings(action="ignore"):  # of buckets that are one
            theirs = KBinsDiscretizer(quantiles, encode="ordinal").fit_transform(present[:, None])
        assert ours.apply({"x": present})[:, 0].tolist() == theirs[:, 0].tolist()


@settings(max_examples=60, deadline=None)
@given(NUMBERS, st.sampled_from(["mean", "median"]))
def test_what_is_missing_is_imputed_and_told(values: list[float | None], using: Any) -> None:
    x = column(values)
    ours = dl.Transform([dl.Impute("x", using, indicator=True)]).fit({"x": x})
    assert ours.outputs == ("x", "x_missing")
    matrix = ours.apply({"x": x})
    value = np.nanmean(x) if using == "mean" else np.nanmedian(x)
    assert matrix[:, 0].tolist() == np.where(np.isnan(x), value, x).astype(np.float32).tolist()
    assert matrix[:, 1].tolist() == np.isnan(x).tolist()


@settings(max_examples=60, deadline=None)
@given(TEXTS, TEXTS, st.sampled_from([None, 2, 0.1]), st.sampled_from([None, 3]))
def test_encoders_are_those_of_scikit_learn(
    seen: list[str | None], applied: list[str | None], min_frequency: Any, max_categories: int | None
) -> None:
    grouping = {"min_frequency": min_frequency, "max_categories": max_categories}
    steps = [
        dl.OneHot("x", unknown="infrequent", into="one", **grouping),
        dl.Ordinal("x", into="place", unknown_value=-7, missing_value=-9, **grouping),
    ]
    transform = dl.Transform(steps).fit({"x": pa.array(seen, pa.string())})
    ours = transform.apply({"x": pa.array(applied, pa.string())})
    one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", sparse_output=False, **grouping)
    ordinal = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-7, encoded_missing_value=-9, **grouping
    )
    frames = [
        np.array([np.nan if v is None else v for v in values], object)[:, None] for values in (seen, applied)
    ]
    theirs = [encoder.fit(frames[0]).transform(frames[1]) for encoder in (one_hot, ordinal)]
    np.testing.assert_array_equal(ours, np.hstack(theirs).astype(np.float32))
    single = [transform.apply({"x": pa.array([value], pa.string())}) for value in applied]
    assert np.vstack(single).tobytes() == ours.tobytes()


@pytest.mark.parametrize("smoothing", [None, 0.0, 3.5])
@pytest.mark.parametrize("binary", [True, False])
def test_target_means_are_those_of_scikit_learn(smoothing: float | None, binary: bool) -> None:
    random = np.random.default_rng(3)
    x = random.choice(["a", "b", "c", "d"], 300)
    y = random.integers(0, 2, 300) if binary else random.normal(size=300)
    transform = dl.Transform([dl.TargetMean("x", smoothing)])
    matrix = transform.fit_apply({"x": x}, y)
    theirs = TargetEncoder(smooth="auto" if smoothing is None else smoothing).fit(x[:, None], y)
    unseen = np.array(["a", "d", "never"])
    close(transform.apply({"x": unseen}), theirs.transform(unseen[:, None]))
    assert len(np.unique(matrix)) > 4  # out of fold: not one number a category
    assert np.corrcoef(matrix[:, 0], transform.apply({"x": x})[:, 0])[0, 1] > 0.5


def test_frequencies_are_shares_of_the_rows() -> None:
    transform = dl.Transform([dl.Frequency("x")]).fit({"x": ["a", "b", "a", None]})
    assert transform.apply({"x": ["a", "b", None, "c"]})[:, 0].tolist() == [0.5, 0.25, 0.25, 0]


def test_numbers_are_categories_too() -> None:
    transform = dl.Transform([dl.Ordinal("x", (3, 1, 2.5), into="place"), dl.OneHot("x")])
    transform.fit({"x": np.array([3, 1, 2, np.nan])})
    assert transform.outputs == ("place", "x_1", "x_2", "x_3", "x_missing")
    matrix = transform.apply({"x": np.array([2, np.nan, 9, 2.5, 3])})
    assert matrix[:, 0].tolist() == [-1, -1, -1, 2, 0]
    assert matrix[:, 1:].tolist() == [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.datetimes(datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31)), min_size=1))
def test_parts_of_dates_are_those_of_pythons_calendar(times: list[datetime.datetime]) -> None:
    parts = ("year", "month", "day", "hour", "minute", "second", "weekday", "yearday", "quarter")
    transform = dl.Transform([dl.DatePart("t", part) for part in parts])
    transform.fit({"t": pa.array(times, pa.timestamp("us"))})
    want = [
        [
            t.year,
            t.month,
            t.day,
            t.hour,
            t.minute,
            t.second,
            t.weekday(),
            t.timetuple().tm_yday,
            (t.month + 2) // 3,
        ]
        for t in times
    ]
    for form in (
        pa.array(times, pa.timestamp("us")),
        np.array(times, "datetime64[us]"),
        pa.array([t.isoformat() for t in times]),
        [t.isoformat(" ") for t in times],
    ):
        assert transform.apply({"t": form}).tolist() == want


def test_leap_days_and_what_came_before_1970() -> None:
    days = ["1900-02-28", "1900-03-01", "2000-02-29", "1969-12-31", "1600-02-29", "2024-12-31"]
    transform = dl.Transform([dl.DatePart("t", "yearday")]).fit({"t": np.array(days, "datetime64[D]")})
    want = [59, 60, 60, 365, 60, 366]
    for form in (days, np.array(days, "datetime64[D]"), pa.array(days).cast(pa.date32())):
        assert transform.apply({"t": form})[:, 0].tolist() == want
    zoned = {"t": ["2024-01-01T00:30:00+01:00", None]}
    assert transform.apply(zoned)[0, 0] == 365
    assert np.isnan(transform.apply(zoned)[1, 0])


def test_steps_on_a_column_are_a_chain_and_into_leaves_it_alone() -> None:
    x = np.array([0.0, np.nan, np.e - 1, 50.0])
    steps = [
        dl.Impute("x", "constant", 0),
        dl.Clip("x", high=np.e - 1),
        dl.Log1p("x"),
        dl.Power("x", 2, into="square"),
        dl.Arithmetic("x", "*", 10, into="ten"),
        dl.Arithmetic("ten", "-", "x", into="nine"),
        dl.Drop("ten"),
        dl.Cyclic("nine", 36),
    ]
    transform = dl.Transform(steps)
    assert transform.outputs == ("x", "square", "nine_sin", "nine_cos")
    matrix = transform.fit({"x": x}).apply({"x": x})
    logs = np.log1p(np.clip(np.nan_to_num(x), None, np.e - 1))
    want = np.column_stack(
        [logs, logs**2, np.sin(logs * 9 / 36 * 2 * np.pi), np.cos(logs * 9 / 36 * 2 * np.pi)]
    )
    close(matrix, want)


def test_sums_pieces_and_single_values() -> None:
    steps = [
        dl.Linear(["x", "y"], [2, -1], 0.5, into="sum"),
        dl.Piecewise("x", [0, 2], [[1, 1], [5, 0], [7, -1]], into="pieces"),
        dl.Piecewise("x", [0], [[0, 1], [0, 1]], period=3, into="round"),
        dl.Equals("s", "a", into="a"),
        dl.Equals("x", 2, into="two"),
        dl.Impute("s", "constant", "b"),
        dl.Equals("s", "b"),
    ]
    data = {"x": [-1.0, 0.0, 2.0, None], "y": [1.0, 2.0, 3.0, 4.0], "s": ["a", "c", None, "b"]}
    transform = dl.Transform(steps).fit(data)
    assert transform.outputs == ("sum", "pieces", "round", "a", "two", "s")
    matrix = transform.apply(data)
    assert matrix[:3].tolist() == [[-2.5, 0, 2, 1, 0, 0], [-1.5, 5, 0, 0, 0, 0], [1.5, 7, 2, 0, 1, 1]]
    assert np.isnan(matrix[3, :3]).all()
    assert matrix[3, 3:].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((dl.Linear, ["x", "y"], [1.0]), "linear: weights: expected as many as columns, 2, got"),
        ((dl.Linear, [], []), "linear: weights: expected as many as columns, 0, got"),
        ((dl.Linear, ["x"], [1.0]), "linear: into: expected a name, got None"),
        ((dl.Piecewise, "x"), "piecewise: edges: expected one or more ascending numbers"),
        ((dl.Piecewise, "x", [1, 1], [[1]] * 3), "piecewise: edges: expected one or more ascending"),
        ((dl.Piecewise, "x", [1], [[1]]), "piecewise: coefficients: expected 2 lists of one length"),
        ((dl.Piecewise, "x", [1], [[1], [1, 2]]), "piecewise: coefficients: expected 2 lists of one length"),
        ((dl.Piecewise, "x", [1], [[1], [2]], 0), "piecewise: period: expected a number above 0, got 0"),
    ],
)
def test_steps_that_make_no_sense_are_refused(arguments: Any, words: str) -> None:
    step, *given = arguments
    with pytest.raises(BadRequest, match=words):
        step(*given)


def test_a_cross_is_encoded_by_its_pairs() -> None:
    data = {"a": pa.array(["x", "x", "y", None]), "n": np.array([1, 2, 1, 1])}
    transform = dl.Transform([dl.Cross(["a", "n"]), dl.OneHot("a_x_n")]).fit(data)
    assert transform.outputs == ("a_x_n_x_1", "a_x_n_x_2", "a_x_n_y_1", "a_x_n_missing_1")
    assert transform.apply(data).tolist() == np.eye(4).tolist()
    unseen = {"a": pa.array(["y", "z", "x"]), "n": np.array([2, 1, 3])}
    assert not transform.apply(unseen).any()


def test_hashes_are_spread_over_their_buckets_and_alike_for_one_value() -> None:
    texts = [f"user {number}" for number in range(5000)]
    transform = dl.Transform([dl.Hash("x", 10), dl.Hash("x", 7)])
    with pytest.raises(BadRequest, match="expected strings, got numbers"):
        transform.fit({"x": texts})
    transform = dl.Transform([dl.Cross(["x", "y"]), dl.Hash("x_x_y", 7), dl.Hash("x", 10)])
    matrix = transform.fit({"x": texts, "y": texts}).apply({"x": texts, "y": texts})
    for index, buckets in enumerate((7, 10)):
        counts = np.bincount(matrix[:, index].astype(int), minlength=buckets)
        assert len(counts) == buckets
        assert counts.min() > 400
    assert matrix[:1].tolist() == transform.apply({"x": texts[:1], "y": texts[:1]}).tolist()


def every_step() -> dl.Transform:
    return dl.Transform(
        [
            dl.Impute(["a", "b"], "median", indicator=True),
            dl.Standardise("a"),
            dl.Log1p("b"),
            dl.Robust("b"),
            dl.Bucketise("c", quantiles=4),
            dl.MinMax("c", into="range"),
            dl.Impute("s", "most_frequent"),
            dl.OneHot("s", min_frequency=3),
            dl.Ordinal("u"),
            dl.Frequency("u", into="share"),
            dl.TargetMean("u", into="mean"),
            dl.DatePart("t", "hour"),
            dl.Cyclic("t_hour", 24),
            dl.Hash("v", 8),
        ]
    )


def data(rows: int, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)

    def holes(values: np.ndarray) -> pa.Array:
        return pa.array(values, mask=random.random(rows) < 0.1)

    return {
        "a": holes(random.normal(size=rows)),
        "b": holes(random.exponential(size=rows).astype(np.float32)),
        "c": pa.array(random.integers(-100, 100, rows).astype(np.int16)),
        "s": holes(random.choice(["x", "y", "zürich", ""], rows).astype(object)),
        "u": holes(random.choice(["p", "q"], rows).astype(object)),
        "v": pa.array([f"v{number}" for number in random.integers(0, 50, rows)], pa.large_string()),
        "t": pa.array(random.integers(-(10**15), 10**15, rows), pa.int64()).cast(pa.timestamp("us")),
    }


def test_every_form_of_the_data_gives_the_same_bits_and_one_row_too(tmp_path: Path) -> None:
    columns = data(1000)
    table = pa.table(columns)
    target = np.arange(1000) % 3
    transform = every_step().fit(table, target)
    matrix = transform.apply(table)
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    transform.save(tmp_path / "transform.json")
    loaded = dl.Transform.load(tmp_path / "transform.json")
    assert loaded.outputs == transform.outputs
    assert loaded.inputs == transform.inputs
    numpy = {
        name: column.to_numpy(zero_copy_only=False) if name not in "suv" else column
        for name, column in columns.items()
    }
    frame = table.to_pandas()
    chunks = pa.concat_tables([table.slice(0, 300), table.slice(300)])
    encoded = {n: c.dictionary_encode() if n in "su" else c for n, c in columns.items()}
    for form in (
        columns,
        table.to_batches()[0],
        numpy,
        frame,
        chunks,
        encoded,
        frame.astype({"s": "category"}),
    ):
        assert loaded.apply(form).tobytes() == matrix.tobytes()
    batch = table.to_batches()[0]
    singles = [loaded.apply(batch.slice(row, 1)) for row in range(0, 1000, 7)]
    assert np.vstack(singles).tobytes() == matrix[::7].tobytes()
    out = np.full((1000, transform.width), 7, np.float32)
    assert loaded.apply(batch, out) is out
    assert out.tobytes() == matrix.tobytes()
    assert every_step().fit(frame, target).apply(frame).tobytes() == matrix.tobytes()


def test_infinities_pass_and_are_no_data_to_fit() -> None:
    transform = dl.Transform([dl.Standardise("x")]).fit({"x": np.array([1.0, 3.0])})
    assert transform.apply({"x": np.array([np.inf, -np.inf])})[:, 0].tolist() == [np.inf, -np.inf]
    for step in (dl.Standardise("x"), dl.OneHot("x"), dl.Frequency("x")):
        with pytest.raises(BadRequest, match=r"steps\[0\].*row 1.*finite.*inf"):
            dl.Transform([step]).fit({"x": np.array([1.0, np.inf])})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"x": None}, r"column 'x': expected numbers, got nothing"),
        ({"x": ["1.5", "abc"]}, r"column 'x', row 1: expected numbers, got 'abc'"),
        ({"x": [datetime.date(2024, 1, 1)] * 2}, r"column 'x': expected numbers, got date32"),
        ({"s": [1, 2]}, r"column 's': expected strings, got int64"),
        ({"s": ["a", "c"]}, r"column 's', row 1: expected a category that was fitted, got 'c'"),
        ({"s": ["a", None]}, r"column 's', row 1: expected a category that was fitted, got null"),
        (
            {"t": ["2024-02-30", "2024-01-01"]},
            r"column 't', row 0: expected dates or times, got '2024-02-30'",
        ),
        ({"x": [1.0]}, r"rows"),
        ({"s": ["a", 3]}, r"column 's', row 1: expected strings, got 3"),
        ({"s": np.array([b"a", b"\xff"], object)}, r"column 's', row 1: expected strings, got b'\\xff'"),
        ({"s": ["a", "\ud800"]}, r"column 's', row 1: expected strings, got '\\ud800'"),
        ({"x": [1.5, "abc"]}, r"column 'x', row 1: expected numbers, got 'abc'"),
        ({"x": np.array([1j, 2])}, r"column 'x', row 0: expected numbers, got"),
        ({"x": ["y" * 300, "1"]}, r"column 'x', row 0: expected numbers, got 'y{10,60}\.\.\.y+…$"),
        ({"t": [datetime.date(2024, 1, 1), "7"]}, r"column 't', row 1: expected dates or times, got '7'"),
    ],
)
def test_bad_input_is_named(small: dl.Transform, wrong: dict[str, Any], words: str) -> None:
    good = {"x": [1.0, 2.0], "s": ["a", "b"], "t": ["2024-01-01", "2024-01-02"]}
    with pytest.raises(BadRequest, match=words):
        small.apply({name: value for name, value in (good | wrong).items() if value is not None})
    assert small.apply(good).shape == (2, 4)


def test_what_cannot_be_read_is_missing_where_the_spec_says_so() -> None:
    steps = [dl.Read(["x"], on_error="missing"), dl.Impute("x", "constant", -1)]
    transform = dl.Transform(steps).fit({"x": np.array([1.0, 2.0])})
    assert transform.apply({"x": ["1.5", " 2", "abc", "", None]})[:, 0].tolist() == [1.5, 2, -1, -1, -1]
    assert transform.errors == {"x": 2}
    mixed = np.array([True, 2, "3", b"4", "five", None, [6]], object)
    assert transform.apply({"x": mixed})[:, 0].tolist() == [1, 2, 3, 4, -1, -1, -1]
    assert transform.errors == {"x": 4}


def test_values_of_several_kinds_are_read_one_by_one() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    times = ["1969-12-31", datetime.date(1970, 1, 2), datetime.datetime(1970, 1, 1, 3, tzinfo=zone), None]
    transform = dl.Transform([dl.DatePart("t", "epoch"), dl.OneHot("s", ("ä",))])
    data = {"t": times, "s": ["ä", "ä".encode(), "b", None]}
    matrix = transform.fit({"t": times[:1], "s": ["ä"]}).apply(data)
    assert matrix[:3, 0].tolist() == [-86400, 86400, 3600]
    assert np.isnan(matrix[3, 0])
    assert matrix[:, 1].tolist() == [1, 1, 0, 0]
    with pytest.raises(BadRequest, match="column 't': expected values of one kind"):
        dl.Transform([dl.Pass("t")]).fit(pd.DataFrame(data))


def test_numbers_of_any_datatype_are_numbers() -> None:
    transform = dl.Transform([dl.Pass("x")]).fit({"x": [1.0]})
    for dtype in (">f8", ">i4", np.float16, np.longdouble, np.uint64, bool):
        assert transform.apply({"x": np.array([1, 0], dtype)})[:, 0].tolist() == [1, 0]
    masked = np.ma.masked_array([1.0, 2.0], [False, True])
    assert np.isnan(transform.apply({"x": masked})[1, 0])


def test_data_with_two_columns_of_one_name_is_refused() -> None:
    transform = dl.Transform([dl.Pass("x")]).fit({"x": [1.0]})
    twice = pa.RecordBatch.from_arrays([pa.array([1.0]), pa.array([2.0])], ["x", "x"])
    for form in (twice, pa.Table.from_batches([twice]), pd.DataFrame([[1.0, 2.0]], columns=["x", "x"])):
        with pytest.raises(BadRequest, match="column 'x': expected it once, got twice"):
            transform.apply(form)


def test_times_that_are_too_far_away_are_missing() -> None:
    transform = dl.Transform([dl.DatePart("t", "year")]).fit({"t": ["2024-01-01"]})
    times = np.array([np.inf, -np.inf, 1e300, np.nan, -1e12])
    assert np.isnan(transform.apply({"t": times})[:, 0]).tolist() == [True, True, True, True, False]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([dl.Pass("a", into="b"), dl.Pass("c", into="b")], r"steps\[1\]: pass makes 'b', which exists"),
        ([dl.Pass("a"), dl.Pass("b", into="a")], r"steps\[0\]: pass reads 'a', which steps\[1\] makes"),
        (
            [dl.Log1p("a", into="b"), dl.Log1p("b", into="a")],
            r"steps\[0\]: log1p reads 'a', which steps\[1\]",
        ),
        (
            [dl.Log1p("b", into="c"), dl.Log1p("a", into="b")],
            r"steps\[0\]: log1p reads 'b', which steps\[1\]",
        ),
        ([dl.Log1p("a"), dl.DatePart("a")], r"steps\[1\].*'a'"),
        ([dl.OneHot("a", ("x",)), dl.Log1p("a")], r"steps\[1\].*'a'"),
        ([], "at least one"),
    ],
)
def test_steps_that_do_not_fit_together_are_refused(steps: list[Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        assert dl.Transform(steps).outputs


@pytest.mark.parametrize("steps", [dl.Pass("a"), "a", ["a"], [dl.Pass], None])
def test_what_are_no_steps_is_refused(steps: Any) -> None:
    with pytest.raises(BadRequest, match=r"^steps: expected a list of steps such as .*, got "):
        dl.Transform(steps)


def test_numbers_are_read_however_large_and_one_alone_is_no_column() -> None:
    transform = dl.Transform([dl.Pass("a")]).fit({"a": [1.0, 2.0]})
    assert transform.apply({"a": [2**70, 1]}).tolist() == [[2.0**70], [1.0]]
    for alone in (2.0, np.array(2.0)):
        with pytest.raises(BadRequest, match=r"column 'a': expected numbers, got 2\.0"):
            transform.apply({"a": alone})


def test_two_outputs_of_one_name_are_refused() -> None:
    with pytest.raises(BadRequest, match="'a_b'"):
        dl.Transform([dl.OneHot("a"), dl.Pass("a_b")]).fit({"a": ["b"], "a_b": [1.0]})


def test_names_are_known_before_data_where_the_spec_says_them() -> None:
    assert dl.Transform([dl.OneHot("s", ("b", "a", None))]).outputs == ("s_b", "s_a", "s_missing")
    with pytest.raises(BadRequest, match="depend on data"):
        assert dl.Transform([dl.OneHot("s")]).width
    with pytest.raises(BadRequest, match="call fit"):
        dl.Transform([dl.OneHot("s")]).apply({"s": ["a"]})


def test_a_frame_without_rows_has_no_features(small: dl.Transform) -> None:
    table = pa.table(
        {"x": pa.array([], pa.float64()), "s": pa.array([], pa.string()), "t": pa.array([], pa.date32())}
    )
    for form in (table, table.to_pandas(), dict(zip(table.column_names, table.columns, strict=True))):
        assert small.apply(form).shape == (0, 4)


def test_frames_with_an_index_of_their_own(small: dl.Transform) -> None:
    frame = pd.DataFrame(
        {"x": [1.0], "s": ["a"], "t": [pd.Timestamp(2024, 1, 5)], "more": [object()]}, index=[9]
    )
    assert small.apply(frame).tolist() == [[-1, 1, 0, 5]]


@pytest.mark.parametrize("rows", [1, 3, 20_000])
def test_a_frame_of_polars_is_read_as_a_table(rows: int) -> None:
    random = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "number": pl.Series(random.choice([0.5, 2.0, np.nan], rows), dtype=pl.Float64).fill_nan(None),
            "category": pl.Series(random.choice(["u", "v", "w"], rows).tolist(), dtype=pl.Categorical),
            "time": np.datetime64("2026-01-01", "us") + random.integers(0, 10**13, rows),
        }
    )
    steps = [dl.Pass("number"), dl.OneHot("category"), dl.DatePart("time", "hour")]
    transform = dl.Transform(steps).fit(frame)
    expected = transform.apply(frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
    np.testing.assert_array_equal(transform.apply(frame), expected)
    np.testing.assert_array_equal(dl.Transform(steps).fit_apply(frame), expected)
    by_name = {name: frame[name] for name in frame.columns}
    np.testing.assert_array_equal(transform.apply(by_name), expected)


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical])
def test_each_row_of_a_frame_of_polars_has_the_mean_of_others_targets(kind: Any) -> None:
    names, target = ["x", "y", None] * 20, np.arange(60.0)
    transform = dl.Transform([dl.TargetMean("a")])
    matrix = transform.fit_apply(pl.DataFrame({"a": pl.Series(names, dtype=kind)}), target)
    assert np.array_equal(matrix, dl.Transform([dl.TargetMean("a")]).fit_apply({"a": names}, target))


def test_times_of_a_zone_are_utc_without_a_warning() -> None:
    times = pd.Series(pd.to_datetime(["2026-01-01 00:30+02:00", None], utc=True))
    frame = pd.DataFrame({"at": times.dt.tz_convert("Europe/Berlin")})
    transform = dl.Transform([dl.DatePart("at", "hour")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matrix = transform.fit(frame).apply(frame)
    assert matrix.ravel().tolist() == pytest.approx([22, np.nan], nan_ok=True)


def test_sparse_columns_of_pandas_are_numbers() -> None:
    frame = pd.DataFrame({"a": pd.arrays.SparseArray([0.0, 1.5, 0.0])})
    assert dl.Transform([dl.Pass("a")]).fit(frame).apply(frame).ravel().tolist() == [0, 1.5, 0]


def test_complex_numbers_are_refused_by_name() -> None:
    with pytest.raises(BadRequest, match="column 'a': expected values of one kind, got"):
        dl.Transform([dl.Pass("a")]).fit(pd.DataFrame({"a": [1j]}))


def test_arguments_of_numpy_and_pandas_are_as_pythons() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 9.0], "b": [0.0, 0.0, 3.0], "c": ["x", "y", "y"]})
    numbers = frame.select_dtypes("number").columns
    assert dl.Standardise(numbers) == dl.Standardise(["a", "b"]) == dl.Standardise(np.array(["a", "b"]))
    assert dl.Clip("a", high=frame["a"].quantile(0.5)) == dl.Clip("a", high=2.0)
    assert dl.Bucketise("a", edges=list(frame["a"].quantile([0.1, 0.5]))).edges == pytest.approx((1.2, 2.0))
    assert dl.OneHot("c", categories=frame["c"].unique(), min_frequency=np.int64(1)).categories == ("x", "y")
    transform = dl.Transform([dl.Clip(numbers, high=np.float32(2))]).fit(frame)
    assert dl.Transform.from_dict(transform.to_dict()).steps == transform.steps
