"""Rows of numbers by name out of JSON: what json says, or not read at all."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from guarded import guarded
from hypothesis import given
from hypothesis import strategies as st
from naive_kernels import SIMULATED

from driftline_kernels import objects

pytestmark = pytest.mark.skipif(SIMULATED, reason="reads memory by its address, which only compiled code can")

NAMES = ["a", "bb", "a longer name", "é"]
BEFORE = [f'{"," if place else "{"}"{name}":'.encode() for place, name in enumerate(NAMES)]
TEMPLATE = objects.build_template(BEFORE, [2, 0, 1, 3])
ROW = '{"a":1.5,"bb":-2,"a longer name":3e2,"é":null}'
NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-999, 999)


def read(text: str, rows: int = 9, around: tuple[bytes, bytes] = (b"[", b"]")) -> Any:
    """The rows that the kernel has read, None if it has not."""
    body = around[0] + text.encode() + around[1]
    out = np.full((rows, len(NAMES)), 7.0)
    result = objects.read(body, len(around[0]), len(body) - len(around[1]), TEMPLATE, out)
    assert (out[max(result, 0) + (result < 0) * rows :] == 7.0).all()
    return out[:result] if result > 0 else None


@given(st.lists(st.tuples(*[NUMBER] * 4), min_size=1, max_size=9), st.sampled_from([",", ", "]))
def test_rows_are_what_json_says(rows: list[tuple[float, ...]], between: str) -> None:
    by_name = [dict(zip(NAMES, row, strict=True)) for row in rows]
    result = read(between.join(json.dumps(row, separators=(",", ":"), ensure_ascii=False) for row in by_name))
    assert result is not None
    assert result.tolist() == [[row[1], row[2], row[0], row[3]] for row in rows]


def test_what_is_missing_is_nan() -> None:
    result = read(ROW)
    assert result is not None
    np.testing.assert_array_equal(result, [[-2, 300, 1.5, np.nan]])


@given(st.integers(0, 200), st.sampled_from(["", *'{}[]",: 1e.-aé\n']), st.booleans())
def test_whatever_character_is_changed(at: int, other: str, insert: bool) -> None:
    text = f"{ROW},{ROW}"
    at %= len(text)
    text = text[:at] + other + text[at + (not insert) :]
    result = read(text)
    if result is not None:
        rows = json.loads(f"[{text}]")
        assert [list(row) for row in rows] == [NAMES] * len(rows)
        expected = [[row["bb"], row["a longer name"], row["a"], row["é"]] for row in rows]
        np.testing.assert_array_equal(result, np.array(expected, float))


@pytest.mark.parametrize("around", [(b"", b""), (b"[", b""), (b"", b"]")])
def test_nothing_is_read_behind_the_end(around: tuple[bytes, bytes]) -> None:
    assert read(ROW, around=around) is not None
    for stop in range(len(ROW)):
        assert read(ROW[:stop], around=(around[0], b"")) is None
        body = ROW.encode()
        out = np.empty((2, 4))
        if stop < len(body):
            assert objects.read(body, 0, stop, TEMPLATE, out) < 0


def test_no_more_rows_are_read_than_there_is_room_for() -> None:
    text = ",".join([ROW] * 3)
    assert read(text, rows=3) is not None
    assert read(text, rows=2) is None


@pytest.mark.parametrize("number", ["true", '"1"', "[1]", "{}", "01", "1.", "nan", "1" * 30 + ".5", "1e999"])
def test_what_is_no_number_or_a_hard_one_is_not_read(number: str) -> None:
    assert read(ROW.replace("-2", number)) is None or float(number) == read(ROW.replace("-2", number))[0, 0]


def test_nan_and_infinity_are_read_as_python_writes_them() -> None:
    for word in ("NaN", "Infinity", "-Infinity"):
        result = read(ROW.replace("-2", word))
        assert result is not None
        np.testing.assert_array_equal(result[0, 0], float(word))


@pytest.mark.parametrize("number", ["", "-", "1", "1.", "1e-", "1" * 16, "nul"])
def test_nothing_is_read_behind_the_text(number: str) -> None:
    before = ROW[: ROW.rindex(":") + 1]
    for start in (before, f"{ROW},{before}"):
        text = guarded(f"{start}{number}".encode())
        assert objects.read(text, 0, len(text), TEMPLATE, np.empty((2, 4))) < 0
