"""Data of any form, as columns."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from driftline.columns import BLOCK_ROWS, columns_of, float32, kind_of, matrices, temporal_of
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


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"a": pa.array([[1], [2, 3]])},
            "column 'a', row 1: expected 1 values as in row 0, came 2",
        ),
        (
            {"a": pa.chunked_array([[[1, 2]], [[3, 4], []]])},
            "column 'a', row 2: expected 2 values as in row 0, came 0",
        ),
        ({"a": pa.array([[1], None])}, "column 'a', row 1: expected 1 values as in row 0, came null"),
        ({"a": pa.array([None, [1]])}, "column 'a', row 0: expected a list, came null"),
        ({"a": pa.array([[[1]], [[2]]])}, "column 'a': expected numbers or strings, came list"),
        ({"a": pa.array([b"x"])}, "column 'a': expected numbers or strings, came binary"),
        ({"a": pa.array([{"b": 1}])}, "column 'a': expected numbers or strings, came struct"),
        ({"a": np.array([1, "x"], object)}, "column 'a': expected numbers or strings"),
        ({"a": np.zeros((1, 2)), "a_1": np.zeros(1)}, "column 'a_1': expected it once, came twice"),
        (pa.table([[1], [2]], ["a", "a"]), "column 'a': expected it once, came twice"),
        ([1, 2], "expected a table, a DataFrame or arrays by name"),
    ],
)
def test_what_is_neither_is_named(data: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        columns_of(data)


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
