"""Batches of every form become the same numbers and codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import BadRequest
from driftline.monitor import reading
from driftline.monitor.reading import Reader
from driftline.monitor.reference.column import Categorical, Numeric
from driftline.monitor.reference.profile import Profile

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 3, 500)
ROWS = RANDOM.standard_normal((500, 3)).astype(np.float32)


def reader_of(profile: Profile) -> Reader:
    numeric = [one for one in profile.references if isinstance(one, Numeric)]
    return Reader(numeric, [one for one in profile.references if isinstance(one, Categorical)])


def read(reader: Reader, columns: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """All blocks, one behind the other."""
    blocks = list(reader.blocks(columns))
    codes = [np.concatenate(parts) for parts in zip(*(codes for _, codes in blocks), strict=True)]
    return np.concatenate([matrix for matrix, _ in blocks]), codes


@given(st.integers(0, 40), st.sampled_from([np.float32, np.float16, np.int32, np.uint8, np.bool_]))
def test_tensors_are_read_at_once_as_they_are_column_by_column(rows: int, dtype: Any) -> None:
    reader = reader_of(Profile.fit({"x": ROWS, "label": LABELS, "score": ROWS[:, 0]}))
    x = (10 * RANDOM.random((rows, 3))).astype(dtype)
    label, score = RANDOM.integers(-1, 5, rows), RANDOM.random((rows, 1)).astype(np.float32)
    tensors = {"unknown": score, "score": score, "x": x, "label": label}
    columns = {"score": score[:, 0], "label": label.astype(np.int64)}
    columns |= {f"x_{index}": x[:, index].astype(np.float64) for index in range(3)}
    if not rows:
        assert [len(matrix) for matrix, _ in reader.blocks(tensors)] == [0]
        return
    matrix, (codes,) = read(reader, tensors)
    np.testing.assert_array_equal(matrix, np.column_stack([x.astype(np.float32), score]))
    expected = [value if 0 <= value < 3 else 3 for value in label]
    np.testing.assert_array_equal(codes, expected)
    again, (second_codes,) = read(reader, columns)
    np.testing.assert_array_equal(again, matrix)
    np.testing.assert_array_equal(second_codes, codes)


def test_a_plan_is_made_anew_for_another_form() -> None:
    reader = reader_of(Profile.fit({"x": ROWS, "label": LABELS}))
    for x in (ROWS, ROWS.astype(np.float64), ROWS.astype(np.int8), np.hstack([ROWS, ROWS])):
        matrix, _ = read(reader, {"x": x, "label": LABELS})
        np.testing.assert_array_equal(matrix, x[:, :3].astype(np.float32))
    for label in (LABELS, LABELS.astype(np.float32), LABELS[:, None], pa.array(LABELS), list(LABELS)):
        _, (codes,) = read(reader, {"x": ROWS, "label": label})
        np.testing.assert_array_equal(codes, LABELS)


def test_long_batches_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK_ROWS", 64)
    reader = reader_of(Profile.fit({"x": ROWS, "label": LABELS}))
    assert [len(matrix) for matrix, _ in reader.blocks({"x": ROWS, "label": LABELS})] == [64] * 7 + [52]
    np.testing.assert_array_equal(read(reader, {"x": ROWS, "label": LABELS})[0], ROWS)


def test_one_matrix_is_taken_as_it_is_or_not_at_all() -> None:
    reader = reader_of(Profile.fit({"x": ROWS}))
    assert reader.as_matrix({"x": ROWS}) is ROWS
    for other in (
        {"x": ROWS.astype(np.float64)},
        {"x": ROWS[:, :2]},
        {"x": np.asfortranarray(ROWS)},
        {"y": ROWS},
        {"x": ROWS, "y": ROWS},
        {"x": ROWS.tolist()},
        pd.DataFrame(ROWS),
    ):
        assert reader.as_matrix(other) is None
    assert reader_of(Profile.fit({"x": ROWS, "label": LABELS})).as_matrix({"x": ROWS}) is None


def test_categories_come_as_numbers_of_any_kind() -> None:
    reader = reader_of(Profile.fit({"c": np.array([10, 20, -30] * 100)}))
    values = np.array([20.0, np.nan, 10.5, np.inf, -30.0, 7.0, -np.inf])
    _, (codes,) = read(reader, {"c": values})
    places = {"-30": 0, "10": 1, "20": 2}
    assert codes.tolist() == [places["20"], -1, 3, 3, places["-30"], 3, 3]


def test_strings_and_booleans() -> None:
    reader = reader_of(Profile.fit({"s": pa.array(["b", "a"] * 100), "t": np.array([True, False] * 100)}))
    batch = pd.DataFrame({"s": ["a", None, "z", "b"], "t": [True, False, True, True]})
    _, codes = read(reader, batch)
    assert codes[0].tolist() == [0, -1, 2, 1]
    assert codes[1].tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": ROWS}, "column 'label': expected as in the profile, got none; there are: x_0, x_1, x_2"),
        (
            {"x": ROWS, "label": ["a"] * 500},
            "column 'label': expected integers as in the profile, got strings",
        ),
        ({"x": ROWS, "label": LABELS[:3]}, "expected columns of one length, got"),
        (
            {"x_0": ["a"] * 500, "x": ROWS[:, :0], "x_1": LABELS, "x_2": LABELS, "label": LABELS},
            "column 'x_0': expected numbers as in the profile, got strings",
        ),
        ({"x": ROWS[None], "label": LABELS}, "column 'x': expected one or two dimensions"),
    ],
)
def test_what_does_not_fit_names_the_column(batch: dict[str, Any], message: str) -> None:
    reader = reader_of(Profile.fit({"x": ROWS, "label": LABELS}))
    with pytest.raises(BadRequest) as caught:
        read(reader, batch)
    assert message in str(caught.value)


def test_numbers_for_strings_are_named() -> None:
    reader = reader_of(Profile.fit({"s": pa.array(["b", "a"] * 100)}))
    with pytest.raises(BadRequest, match="column 's': expected strings as in the profile, got numbers"):
        read(reader, {"s": LABELS})


@pytest.mark.parametrize("nothing", [[None, None], pa.nulls(2), np.full(2, np.nan), pd.Series([None, None])])
def test_strings_that_are_all_missing_are_missing(nothing: Any) -> None:
    """Untyped, a column of nothing looks like numbers."""
    reader = reader_of(Profile.fit({"name": ["a", "b"] * 50}))
    _, (codes,) = read(reader, {"name": nothing})
    np.testing.assert_array_equal(codes, [-1, -1])


def test_booleans_are_the_same_with_and_without_nulls() -> None:
    plain, nulls = pa.array([True, False, True]), pa.array([True, None, False])
    for reference in (plain, nulls):
        reader = reader_of(Profile.fit(pa.table({"flag": pa.concat_arrays([reference] * 50)})))
        false, true = 0, 1
        assert read(reader, pa.table({"flag": plain}))[1][0].tolist() == [true, false, true]
        assert read(reader, pa.table({"flag": nulls}))[1][0].tolist() == [true, -1, false]
        assert read(reader, {"flag": [True, None]})[1][0].tolist() == [true, -1]
        assert read(reader, {"flag": np.array([True, None, False], object)})[1][0].tolist() == [
            true,
            -1,
            false,
        ]
    reader = reader_of(Profile.fit({"flag": np.array([True, False] * 50)}))
    with pytest.raises(BadRequest, match="column 'flag': expected booleans as in the profile, got strings"):
        read(reader, {"flag": ["True", "maybe"]})


def test_booleans_with_nulls_are_numbers_where_the_profile_has_some() -> None:
    reader = reader_of(Profile.fit({"x": np.arange(100.0), "flag": np.arange(100) % 2}))
    batch = {"x": pa.array([True, None, False]), "flag": pa.array([None, False, True])}
    matrix, (codes,) = read(reader, batch)
    np.testing.assert_array_equal(matrix[:, 0], [1, np.nan, 0])
    assert codes.tolist() == [-1, 0, 1]
    assert np.isnan(read(reader, {"x": pa.nulls(1, pa.string()), "flag": [0]})[0]).all()


def test_integers_above_63_bits_are_categories_too() -> None:
    values = np.array([2**63 + 5, 2**64 - 1, 1], np.uint64)
    reader = reader_of(Profile.fit({"id": np.tile(values, 50)}))
    _, (codes,) = read(reader, {"id": np.array([1, 2**63 + 5, 2**64 - 1, 2**63 + 6], np.uint64)})
    assert codes.tolist() == [0, 2, 1, 3]
