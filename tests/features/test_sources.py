"""Where columns lie: in whatever form they come, the same bits, the same errors, hardly any memory."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from arrow_memory import counted
from hypothesis import given, settings
from hypothesis import strategies as st

import driftline as dl
from driftline.errors import BadRequest
from driftline.features.sources import MAX_JOINED_ROWS
from driftline.features.transform import PART_ROWS

NUMBERS = st.one_of(st.none(), st.integers(-(10**6), 10**6))
TEXTS = st.one_of(st.none(), st.sampled_from(["", "ä", "北京", "x" * 300, "a\0"]), st.text(max_size=5))
DATE = "datetime64[ms]"


def forms(numbers: list[int | None], texts: list[str | None]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns of every datatype, as numpy's and as Arrow's."""
    floats = np.array([np.nan if number is None else number for number in numbers])
    integers = np.array([number or 0 for number in numbers])
    times = np.array(["NaT" if number is None else 3_600_001 * number for number in numbers], DATE)
    written = np.array([None if np.isnat(time) else str(time) for time in times], object)
    columns = {
        "a": floats,
        "b": floats.astype(np.float32),
        "c": integers,
        "d": integers.astype(np.int16),
        "e": integers > 0,
        "s": np.array(texts, object),
        "u": np.array(texts[::-1], object),
        "t": times,
        "i": written,
        "m": integers * 1000,
    }
    return columns, {name: pa.array(column, from_pandas=True) for name, column in columns.items()}


def every_kind() -> dl.Transform:
    """Steps on each of the columns that `forms` makes."""
    parts = [dl.DatePart(list("tim"), part) for part in ("epoch", "hour")]  # type: ignore[arg-type]
    steps = [dl.Pass(list("abcde")), dl.Hash(["s", "u"], 1000), *parts]
    return dl.Transform(steps).fit(forms([1, 2], ["x", "y"])[1])


@settings(max_examples=60)
@given(st.lists(st.tuples(NUMBERS, TEXTS), min_size=1, max_size=MAX_JOINED_ROWS + 5))
def test_numpys_columns_have_the_bits_of_arrows(rows: list[tuple[int | None, str | None]]) -> None:
    columns, arrow = forms([number for number, _ in rows], [text for _, text in rows])
    transform = every_kind()
    matrix = transform.apply(arrow)
    mixed = columns | {name: arrow[name] for name in "asi"}
    last = {name: column[-1:] for name, column in columns.items()}
    assert transform.apply(columns).tobytes() == matrix.tobytes()
    assert transform.apply(mixed).tobytes() == matrix.tobytes()
    assert transform.apply(last).tobytes() == matrix[-1:].tobytes()


@pytest.mark.parametrize("rows", [1, MAX_JOINED_ROWS, MAX_JOINED_ROWS + 1])
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("a", "ten", r"column 'a', row ROW: expected numbers, got 'ten'"),
        ("s", 3, r"column 's'(, row ROW)?: expected strings, got (3|int64)"),
        ("i", "2023-02-29", r"column 'i', row ROW: expected dates or times, got '2023-02-29'"),
        ("i", "tomorrow", r"column 'i', row ROW: expected dates or times, got 'tomorrow'"),
    ],
)
def test_what_cannot_be_joined_is_named(rows: int, name: str, value: Any, words: str) -> None:
    columns, _ = forms([5] * rows, ["x"] * rows)
    wrong = columns[name].astype(str if name == "a" else object).astype(object)
    wrong[-1] = value
    transform = every_kind()
    with pytest.raises(BadRequest, match=words.replace("ROW", str(rows - 1))):
        transform.apply(columns | {name: wrong})
    assert transform.apply(columns).shape == (rows, transform.width)


@pytest.mark.parametrize("wrong", [[1.0, 2.0], np.array([[1.0, 2.0]]), np.float64(1), None, pa.array([1, 2])])
def test_columns_that_are_not_alike_are_refused(wrong: Any) -> None:
    columns, _ = forms([5], ["x"])
    with pytest.raises(BadRequest, match="'b'"):
        every_kind().apply(columns | {"b": wrong})
    assert every_kind().apply(columns | {"b": np.array([[1.0]])}).shape == (1, 13)


@pytest.mark.parametrize("start", [0, 70])
def test_rows_are_counted_from_the_first_of_all_chunks(start: int) -> None:
    rows = PART_ROWS + 100
    texts, numbers = pa.array(["x"] * rows), pa.array(["1"] * rows)
    transform = dl.Transform([dl.OneHot("s", ("x",), unknown="error"), dl.Pass("n"), dl.Read("n", "number")])
    transform.fit({"s": ["x"], "n": [1.0]})
    bad = rows - 3
    for name, value in (("s", "y"), ("n", "?")):
        columns = {"s": texts, "n": numbers}
        columns[name] = pa.concat_arrays([columns[name][:bad], pa.array([value]), columns[name][bad + 1 :]])
        integers = pa.record_batch(columns)
        table = pa.Table.from_batches([integers.slice(0, start), integers.slice(start)])
        for form in (integers, table, columns):
            with pytest.raises(
                BadRequest, match=rf"column '{name}', row {bad}: .*, got '{re.escape(value)}'"
            ):
                transform.apply(form)


def allocated(function: Callable[[], Any]) -> int:
    """Bytes that numpy, Python and Arrow's pool hold at once, at most, on top of what was there."""
    with counted() as pool:
        tracemalloc.start()
        try:
            function()
            return tracemalloc.get_traced_memory()[1] + pool.max_memory()
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("chunks", [1, 3])
def test_memory_is_that_of_the_matrix_and_a_tenth(coded: bool, chunks: int) -> None:
    rows = 100_000
    random = np.random.default_rng(0)
    text = pa.array(random.choice(["category 1", "another one", "x"], rows))
    columns = {
        "n": pa.array(random.normal(size=rows), mask=random.random(rows) < 0.1),
        "s": text.dictionary_encode() if coded else text,
        "t": pa.array(random.integers(0, 10**15, rows)).cast(pa.timestamp("us")),
    }
    steps = [dl.Impute("n"), dl.Standardise("n"), dl.OneHot("s"), dl.DatePart("t"), dl.Cyclic("t_hour")]
    integers = pa.record_batch(columns)
    transform = dl.Transform(steps).fit(integers)
    size = -(-rows // chunks)
    table = pa.Table.from_batches([integers.slice(start, size) for start in range(0, rows, size)])
    data = table if chunks > 1 else integers
    transform.apply(data)  # compiled
    matrix = 4 * rows * transform.width
    assert matrix <= allocated(lambda: transform.apply(data)) <= 1.1 * matrix


@pytest.mark.parametrize("kind", ["float64", "object"])
def test_columns_are_joined_from_the_first_time_on(kind: str) -> None:
    """numpy takes None for float64, and so had a plan for columns of float64 that was none."""
    columns = {name: np.array([1, 2], kind) for name in "ab"}
    transform = dl.Transform([dl.Standardise(["a", "b"])]).fit({"a": [0.0, 1], "b": [0.0, 1]})
    transform.apply(columns)
    plan = transform._reader._plan[1]
    assert (plan.numbers, plan.unjoined) == (((0, 1), ()) if kind == "float64" else ((), (0, 1)))
