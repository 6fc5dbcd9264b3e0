"""Strings from Arrow's buffers: hashes as specified, codes as a dictionary would give them."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_kernels import back, examples, there

from driftline_kernels import strings

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # hashes wrap on purpose

UNSEEN = 1000
MASK = 2**64 - 1
TEXT = st.text(max_size=9) | st.text("ab", min_size=28, max_size=70)
KINDS = st.sampled_from([pa.string(), pa.large_string()])


def xxh64(data: bytes) -> int:
    """XXH64 with seed 0, as its specification says it."""
    p1, p2, p3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
    p4, p5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5

    def turn(x: int, bits: int) -> int:
        return (x << bits | x >> (64 - bits)) & MASK

    def after(lane: int, piece: bytes) -> int:
        return turn((lane + int.from_bytes(piece, "little") * p2) & MASK, 31) * p1 & MASK

    h, rest = p5, data
    if len(data) >= 32:
        lanes = [(p1 + p2) & MASK, p2, 0, -p1 & MASK]
        while len(rest) >= 32:
            lanes = [after(lane, rest[8 * i : 8 * i + 8]) for i, lane in enumerate(lanes)]
            rest = rest[32:]
        h = sum(turn(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK
        for lane in lanes:
            h = ((h ^ after(0, lane.to_bytes(8, "little"))) * p1 + p4) & MASK
    h = (h + len(data)) & MASK
    while len(rest) >= 8:
        h = (turn(h ^ after(0, rest[:8]), 27) * p1 + p4) & MASK
        rest = rest[8:]
    if len(rest) >= 4:
        h = (turn(h ^ (int.from_bytes(rest[:4], "little") * p1 & MASK), 23) * p2 + p3) & MASK
        rest = rest[4:]
    for byte in rest:
        h = turn(h ^ (byte * p5 & MASK), 11) * p1 & MASK
    h = (h ^ h >> 33) * p2 & MASK
    h = (h ^ h >> 29) * p3 & MASK
    return h ^ h >> 32


def values_of(array: Any) -> tuple[np.ndarray, int]:
    """Arrow's validity bitmap, empty where it has none, and the bit of the first row."""
    bitmap = array.buffers()[0]
    return np.frombuffer(bitmap, np.uint8) if bitmap else np.empty(0, np.uint8), array.offset


def text_of(array: Any) -> tuple[np.ndarray, np.ndarray]:
    """Arrow's offsets of these rows, and bytes."""
    _, offsets, data = array.buffers()
    wide = np.int64 if pa.types.is_large_string(array.type) else np.int32
    every = np.frombuffer(offsets, wide) if offsets else np.zeros(1, wide)
    text = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)
    return every[array.offset : array.offset + len(array) + 1], text


def hashed(array: Any) -> list[int]:
    offsets, data = text_of(array)
    return [int(strings.hash_of(data, *offsets[row : row + 2])) for row in range(len(array))]


def looked_up(array: Any, table: strings.Table) -> list[int]:
    offsets, data = map(there, text_of(array))
    validity, first_bit = values_of(array)
    codes = there(np.full(len(array), 77, np.int32))
    strings.look_up(offsets, data, there(validity), first_bit, there(table), UNSEEN, codes)
    return [int(code) for code in back(codes)]


def table_of(known: list[str]) -> strings.Table:
    return strings.build_table(*text_of(pa.array(known, pa.string())))


def expected_codes(rows: list[Any], known: list[Any]) -> list[int]:
    return [-1 if x is None else known.index(x) if x in known else UNSEEN for x in rows]


@examples(100)
@given(st.lists(TEXT, max_size=10), KINDS)
def test_hashes_are_xxh64(rows: list[str], kind: Any) -> None:
    assert hashed(pa.array(rows, kind)) == [xxh64(row.encode()) for row in rows]


@pytest.mark.parametrize(
    ("row", "published"),
    [("", 0xEF46DB3751D8E999), ("a", 0xD24EC4F1A98C6E5B), ("abc", 0x44BC2CF5AD770999)],
)
def test_published_hashes(row: str, published: int) -> None:
    assert hashed(pa.array([row])) == [published]
    assert xxh64(row.encode()) == published


@pytest.mark.parametrize("size", [3, 4, 7, 8, 31, 32, 33, 63, 64, 100])
def test_hashes_of_every_kind_of_length(size: int) -> None:
    row = "".join(chr(97 + i % 26) for i in range(size))
    assert hashed(pa.array([row])) == [xxh64(row.encode())]


@examples(150)
@given(
    st.lists(TEXT, max_size=8, unique=True),
    st.lists(st.none() | TEXT, max_size=10),
    KINDS,
    st.integers(0, 12),
    st.randoms(use_true_random=False),
)
def test_codes_are_places_in_the_table(
    known: list[str], others: list[str | None], kind: Any, cut: int, random: Random
) -> None:
    rows = [*known, *others]
    random.shuffle(rows)
    array = pa.array(rows, kind).slice(min(cut, len(rows)))
    assert looked_up(array, table_of(known)) == expected_codes(array.to_pylist(), known)


@pytest.mark.parametrize("number", [1, 2, 3, 200])
def test_more_and_fewer_categories(number: int) -> None:
    known = [f"category {n}" for n in range(number)]
    rows = [*known[:40], "category", "category -1", "", None]
    assert looked_up(pa.array(rows), table_of(known)) == expected_codes(rows, known)


def test_strings_that_hash_alike_are_told_apart() -> None:
    """All slots but one are taken: every search walks through what is not its own, and round the end."""
    known = ["aa", "bb", "cc"]
    table = table_of(known)
    crowded = table._replace(slots=np.full(4, -1, np.int32))
    for code, name in enumerate(known):
        slot = xxh64(name.encode()) % 4
        while crowded.slots[slot] >= 0:
            slot = (slot + 1) % 4
        crowded.slots[slot] = code
    rows = [*known, "ab", "a", "aab", *(chr(100 + n) * 2 for n in range(12))]
    assert looked_up(pa.array(rows), crowded) == expected_codes(rows, known)


@examples(100)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3), max_size=12, unique=True),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3), max_size=10),
)
def test_integers_have_codes_too(known: list[int], others: list[int | None]) -> None:
    array = pa.array([0, *known, *others], pa.int64()).slice(1)
    values = np.frombuffer(array.buffers()[1], np.int64)[1 : len(array) + 1]
    validity, first_bit = values_of(array)
    table = there(strings.build_integer_table(np.array(known, np.int64)))
    codes = there(np.zeros(len(array), np.int32))
    strings.look_up_integers(there(values), there(validity), first_bit, table, UNSEEN, codes)
    assert back(codes).tolist() == expected_codes(array.to_pylist(), known)
