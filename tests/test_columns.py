"""Data of any form, as columns."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from driftline.columns import (
    BLOCK_ROWS,
    batch_of,
    columns_of,
    declared_of,
    float32,
    kind_of,
    matrices,
    temporal_of,
)
from driftline.errors import BadRequest

DAY = 86_400_000_000


def one(values: Any) -> Any:
    """The only column, strings as a list."""
    (column,) = columns_of({"a": values}).values()
    return column if isinstance(column, np.ndarray) else column.to_pylist()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, 2]), [1, 2]),
        (pa.array([1, None]), [1, np.nan]),
        (pa.array([1.5, None], pa.float32()), [1.5, np.nan]),
        (pa.array([Decimal("1.5"), None]), [1.5, np.nan]),
        (pa.nulls(2), [np.nan, np.nan]),
        (pa.array([dt.date(1970, 1, 2), None]), [DAY, np.nan]),
        (pa.array([dt.datetime(1970, 1, 2)], pa.timestamp("ns", "UTC")), [DAY]),
        (pa.array([1], pa.time32("s")), [1_000_000]),
        (pa.array([1_500], pa.time64("ns")), [1]),
        (pa.array([1], pa.duration("s")), [1_000_000]),
        (np.array(["1970-01-02", "NaT"], "datetime64[ns]"), [DAY, np.nan]),
        (pd.Series([1, None], dtype="Int64"), [1, np.nan]),
        (pa.array([True, False]), [True, False]),
    ],
)
def test_numbers(values: Any, expected: list[float]) -> None:
    np.testing.assert_array_equal(one(values), expected)


@pytest.mark.parametrize(
    ("values", "temporal"),
    [
        (pa.array([dt.date(1970, 1, 2), None]), "date"),
        (pa.chunked_array([pa.array([1], pa.timestamp("ns", "UTC"))]), "timestamp"),
        (pa.array([1], pa.time32("s")), "time"),
        (pa.array([1], pa.duration("s")), "duration"),
        (np.array(["1970-01-02"], "datetime64[D]"), "timestamp"),
        (np.array([1], "timedelta64[s]"), "duration"),
        (pd.Series(pd.to_datetime(["2026-03-01"], utc=True)), "timestamp"),
        (pd.Series([None, dt.date(1970, 1, 2)]), "date"),
        ([float("nan"), dt.datetime(1970, 1, 2)], "timestamp"),
        ([dt.time(1)], "time"),
        (pd.Series([pd.NA, dt.date(1970, 1, 2)], dtype=object), "date"),
        (pd.array([None, "a"], dtype="string"), ""),
        (pd.Series([np.zeros(2)]), ""),
        (pd.Series(["a"]), ""),
        (pa.array([1]), ""),
        (np.zeros((2, 2)), ""),
        ([], ""),
    ],
)
def test_what_holds_dates_and_times_is_known(values: Any, temporal: str) -> None:
    assert temporal_of({"a": values}) == ({"a": temporal} if temporal else {})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array(["a", None]), ["a", None]),
        (pa.array(["a", None], pa.large_string()), ["a", None]),
        (pa.array(["a", None], pa.string_view()), ["a", None]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.chunked_array([["a"], ["b"]]), ["a", "b"]),
        (pa.array([True, None, False]), ["True", None, "False"]),
        (np.array(["a", None], object), ["a", None]),
        (np.array(["a", "b"]), ["a", "b"]),
        (pd.Categorical(["a", None]), ["a", None]),
        (pd.array([None, "a"], dtype="string"), [None, "a"]),
        (np.array(["a", None], np.dtypes.StringDType(na_object=None)), ["a", None]),
        (np.ma.masked_array(["a", "b"], [False, True]), ["a", None]),
        (np.ma.masked_array([True, False], [False, True]), ["True", None]),
    ],
)
def test_strings(values: Any, expected: list[str | None]) -> None:
    assert one(values) == expected


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()),
        pa.list_(pa.float32(), 2),
        pa.large_list(pa.float32()),
        pa.list_view(pa.float32()),
        pa.large_list_view(pa.float32()),
    ],
    ids=str,
)
def test_lists_of_one_length_are_columns(kind: Any) -> None:
    columns = columns_of({"x": pa.array([[0, 1], [2, 3], [4, 5]], kind).slice(1)})
    assert {name: column.tolist() for name, column in columns.items()} == {"x_0": [2, 4], "x_1": [3, 5]}


@pytest.mark.parametrize("lists", [[[0, 1], [2, 3]], [np.array([0, 1]), np.array([2, 3])]])
def test_lists_in_a_dataframe_are_columns(lists: list[Any]) -> None:
    columns = columns_of(pd.DataFrame({"x": lists}))
    assert {name: column.tolist() for name, column in columns.items()} == {"x_0": [0, 2], "x_1": [1, 3]}


def test_what_is_masked_is_missing() -> None:
    masked = np.ma.masked_array([[1, 2], [3, 4]], [[True, False], [False, False]])
    columns = columns_of({"one": masked[:, 0], "two": masked, "none": masked[:, 1]})
    assert columns["one"].tolist() == pytest.approx([np.nan, 3], nan_ok=True)
    assert columns["two_0"].tolist() == pytest.approx([np.nan, 3], nan_ok=True)
    assert type(columns["none"]) is np.ndarray
    assert columns["two_1"].tolist() == columns["none"].tolist() == [2, 4]


def test_the_fields_of_a_structured_array_are_columns() -> None:
    rows = np.array([(1.5, "x"), (2.5, "y")], [("a", "f4"), ("b", "U1")])
    columns = columns_of(rows)
    assert columns["a"].tolist() == [1.5, 2.5]
    assert columns["b"].to_pylist() == ["x", "y"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"a": pa.array([[1], [2, 3]])},
            "column 'a', row 1: expected 1 values as in row 0, got 2",
        ),
        (
            {"a": pa.chunked_array([[[1, 2]], [[3, 4], []]])},
            "column 'a', row 2: expected 2 values as in row 0, got 0",
        ),
        ({"a": pa.array([[1], None])}, "column 'a', row 1: expected 1 values as in row 0, got null"),
        ({"a": pa.array([None, [1]])}, "column 'a', row 0: expected a list, got null"),
        ({"a": pa.array([[[1]], [[2]]])}, "column 'a': expected numbers or strings, got list"),
        ({"a": pa.array([b"x"])}, "column 'a': expected numbers or strings, came binary"),
        ({"a": pa.array([{"b": 1}])}, "column 'a': expected numbers or strings, got struct"),
        ({"a": np.array([1, "x"], object)}, "column 'a': expected numbers or strings"),
        ({"a": np.zeros((1, 2)), "a_1": np.zeros(1)}, "column 'a_1': expected it once, got twice"),
        (pa.table([[1], [2]], ["a", "a"]), "column 'a': expected it once, got twice"),
        ([1, 2], "expected a table, a DataFrame or arrays by name"),
        (np.zeros((2, 2)), "expected arrays by name, such as {.input.: array}, got an array alone"),
    ],
)
def test_what_is_neither_is_named(data: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        columns_of(data)


TEXT = ["u", "v", None]


@pytest.fixture
def frame() -> pl.DataFrame:
    """One column of each kind that Polars has."""
    return pl.DataFrame(
        {
            "number": [0.5, None, 2.0],
            "integer": [1, 2, None],
            "whole": [1, 2, 3],
            "switch": [True, False, True],
            "time": [dt.datetime(1970, 1, 2)] * 3,
            "day": [dt.date(1970, 1, 2)] * 3,
            "text": TEXT,
            "category": pl.Series(TEXT, dtype=pl.Categorical),
            "enum": pl.Series(TEXT, dtype=pl.Enum(["v", "u"])),
            "list": [[1.0, 2.0]] * 3,
        }
    )


class Exporting:
    """What exports Arrow and is otherwise unknown."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "form",
    [
        lambda frame: frame,
        lambda frame: {name: frame[name] for name in frame.columns},
        lambda frame: Exporting(frame.to_arrow()),
        lambda frame: frame.to_arrow(),
        lambda frame: pa.RecordBatchReader.from_stream(frame),
    ],
    ids=["frame", "series", "exporting", "table", "reader"],
)
def test_frames_of_polars_and_of_whatever_exports_arrow(form: Any, frame: pl.DataFrame) -> None:
    columns = columns_of(form(frame))
    assert list(columns) == [*frame.columns[:-1], "list_0", "list_1"]
    expected = {
        "number": [0.5, np.nan, 2.0],
        "integer": [1, 2, np.nan],
        "whole": [1, 2, 3],
        "switch": [1, 0, 1],
        "time": [DAY] * 3,
        "day": [DAY] * 3,
        "list_0": [1, 1, 1],
        "list_1": [2, 2, 2],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(columns[name], values, err_msg=name)
    assert [columns[name].to_pylist() for name in ("text", "category", "enum")] == [TEXT] * 3


def test_times_of_polars(frame: pl.DataFrame) -> None:
    expected = {"time": "timestamp", "day": "date"}
    assert temporal_of(frame) == expected
    assert temporal_of({name: frame[name] for name in frame.columns}) == expected
    assert temporal_of(Exporting(frame.to_arrow())) == expected


def test_what_exports_no_table_is_refused(frame: pl.DataFrame) -> None:
    with pytest.raises(BadRequest, match="expected a table that Arrow can represent, got a Series: "):
        columns_of(frame["number"])
    with pytest.raises(BadRequest, match=r"got a LazyFrame: collect\(\) makes a frame"):
        columns_of(frame.lazy())


@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize(
    "form",
    [
        lambda frame: frame,
        lambda frame: frame.to_arrow(),
        lambda frame: pa.record_batch(frame.to_dict(as_series=False)),
        lambda frame: pd.DataFrame({name: frame[name].to_list() for name in frame.columns}),
    ],
    ids=["polars", "table", "batch", "pandas"],
)
def test_a_table_is_one_batch(form: Any, rows: int) -> None:
    frame = pl.DataFrame({"a": [1.5, 2.5, 3.5], "b": ["x", "y", "z"]}).head(rows)
    batch = batch_of(form(frame))
    assert isinstance(batch, pa.RecordBatch)
    assert batch.column("a").to_pylist() == [1.5, 2.5, 3.5][:rows]
    assert batch.column("b").to_pylist() == ["x", "y", "z"][:rows]


def test_no_table_is_no_batch() -> None:
    assert batch_of(3) is None
    with pytest.raises(BadRequest, match="the DataFrame: "):
        batch_of(pd.DataFrame({"a": [1, "x"]}, dtype=object))


@pytest.mark.parametrize("rows", [0, 1, BLOCK_ROWS, 2 * BLOCK_ROWS + 3])
def test_columns_become_rows(rows: int) -> None:
    columns = {"a": np.arange(rows), "b": np.arange(rows) > 3, "c": np.full(rows, 1e300)}
    blocks = [matrix.copy() for matrix in matrices(columns, ["c", "a", "b"])]
    expected = np.stack([np.full(rows, np.inf), columns["a"], columns["b"]], axis=1)
    np.testing.assert_array_equal(np.concatenate([np.empty((0, 3)), *blocks]), expected)
    assert all(matrix.dtype == np.float32 and matrix.flags.c_contiguous for matrix in blocks)


def test_kinds() -> None:
    kinds = [
        kind_of(column) for column in (np.zeros(1), np.zeros(1, "u1"), np.zeros(1, "?"), pa.array(["a"]))
    ]
    assert kinds == ["float", "integer", "boolean", "string"]
    assert float32(np.array([1e-300, -1e300])).tolist() == [0.0, -np.inf]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pd.Series([1, 2], name="a"), r"got a Series: to_frame\(\) makes a frame of it$"),
        ({"a": [[1], [2, 3]]}, "column 'a': expected a regular array, got lists that differ"),
        ({"a": ["x", 1]}, "column 'a': expected numbers or strings: "),
        (pd.DataFrame({"a": [2**70, 1]}), "column 'a': expected numbers or strings: "),
        ({str(name): [1] * (1 + name % 2) for name in range(30)}, "got 0: 1, 1: 2, .*, 19: 2, 10 more$"),
    ],
)
def test_what_is_no_columns_is_refused_in_a_line(data: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as refused:
        columns_of(data)
    assert "\n" not in str(refused.value)


def test_categories_of_pandas() -> None:
    """Intervals, which Arrow has not, are text; what is whole numbers is declared to be categories."""
    frame = pd.DataFrame(
        {
            "text": pd.Categorical(["b", None, "a"], ["a", "b"], ordered=True),
            "whole": pd.Categorical([2, None, 1]),
            "real": pd.Categorical([0.5, None, 1.5]),
            "flag": pd.Categorical([True, None, False]),
            "nothing": pd.Categorical([None, None, None]),
            "cut": pd.cut(pd.Series([1, 2, np.nan]), [0, 1, 2]),
            "month": pd.Categorical(pd.period_range("2013-01", periods=3, freq="M")),
        }
    )
    columns = {
        name: column.tolist() if isinstance(column, np.ndarray) else column.to_pylist()
        for name, column in columns_of(frame).items()
    }
    np.testing.assert_equal(
        columns,
        {
            "text": ["b", None, "a"],
            "whole": [2, np.nan, 1],
            "real": [0.5, np.nan, 1.5],
            "flag": ["True", None, "False"],
            "nothing": [np.nan] * 3,
            "cut": ["(0, 1]", "(1, 2]", None],
            "month": ["2013-01", "2013-02", "2013-03"],
        },
    )
    assert declared_of(frame) == {"whole"}
    assert declared_of(pa.table({"a": pa.array([1, None]).dictionary_encode(), "b": [1, 2]})) == {"a"}
    assert declared_of({"a": [1], "b": frame["whole"]}) == {"b"}
