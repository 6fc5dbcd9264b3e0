"""Numbers out of JSON: what Python's float() says, to the bit, then cast as numpy casts."""

from __future__ import annotations

import json
import math
import struct
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from guarded import guarded
from hypothesis import example, given
from hypothesis import strategies as st
from naive_kernels import SIMULATED

from driftline_kernels import memory
from driftline_kernels import numbers as kernel

pytestmark = pytest.mark.skipif(SIMULATED, reason="reads memory by its address, which only compiled code can")

KINDS = {
    "f4": memory.FLOAT32,
    "f8": memory.FLOAT64,
    "i1": memory.INT8,
    "i2": memory.INT16,
    "i4": memory.INT32,
    "i8": memory.INT64,
    "u1": memory.UINT8,
    "u2": memory.UINT16,
    "u4": memory.UINT32,
    "u8": memory.UINT64,
    "?": memory.BITS,
}


def read(text: str, dtype: str, count: int, *nest: int) -> tuple[int, np.ndarray]:
    """What the kernel answers, and what it has written; what is around the array is no part of it."""
    body = f"[7{text},8]".encode()
    out = np.zeros(count * np.dtype(dtype).itemsize, np.uint8)
    levels = (*nest, 0, 0, 0)[:3]
    answer = kernel.read(body, 2, 2 + len(text), out, KINDS[dtype], *levels, 0)
    return answer, out.view(dtype)


def bits(x: float) -> bytes:
    return struct.pack("<d", x)


def check(number: str) -> None:
    """One number, where it is read, and what Python finishes where it can't be rounded."""
    answer, values = read(f"[{number}]", "f8", 1)
    expected = float(number)
    if answer >= 0:
        assert (answer >> kernel.INDEX_BITS, answer % 2**kernel.INDEX_BITS) == (3, 0)
        assert sum(map(str.isdigit, number.lower().split("e")[0])) > 19
    elif math.isinf(expected):
        assert answer == kernel.UNKNOWN
    else:
        assert answer == -1
        assert bits(values[0]) == bits(0.0 if number == "-0" else expected)
        with np.errstate(over="ignore"):
            narrow = np.float64(values[0]).astype(np.float32)
        assert read(f"[{number}]", "f4", 1)[1].tobytes() == narrow.tobytes()


def halfway(x: float) -> str:
    """All digits of the number halfway to the next float above."""
    with_more = (Decimal(x) + Decimal(math.nextafter(x, math.inf))) / 2
    return f"{with_more:e}"


HARD = [
    "0", "-0", "0.0", "-0.0", "0e0", "-0e5", "0e999999999", "0.000e-999999999999999999999",
    "1e400", "-1e400", "1e-400", "1e308", "1e309", "1.7976931348623157e308", "1.7976931348623158e308",
    "1.7976931348623159e308", "17976931348623158e292", "179769313486231580793e289", "1" * 309, "1" * 400,
    "0." + "0" * 400 + "1", "0." + "0" * 400 + "1e401", "1" + "0" * 400 + "e-400", "1.5e-399" + "9" * 30,
    "4.9e-324", "2.4703282292062327e-324", "2.4703282292062328e-324", "2.47032822920623272e-324",
    "2.2250738585072014e-308", "2.2250738585072011e-308", "2.2250738585072012e-308", "2.225073858507201e-308",
    "9007199254740991", "9007199254740992", "9007199254740993", "9007199254740993.0", "9007199254740995",
    "9007199254740992.5", "9007199254740993.00000000000000000001", "900719925474099300000000000000000000e-20",
    "18446744073709551615", "18446744073709551616", "9999999999999999999", "99999999999999999999", "1e23",
    "8.5e22", "5e-324", "1.00000005960464477539", "1.000000059604644775390625", "1.000000178813934326171875",
    "3.4028235677973366e38", "3.4028235677973365e38", "7.006492321624085e-46", "7.0064923216240853e-46",
    "7.0064923216240862e-46", "0.1", "0.30000000000000004", "123456789012345678", "12345678901234567890123",
    "0.00000000000000000000123456789", "6.02214076e+23", "1E5", "1e+5", "1E-05", "1e00000000000000000000005",
    "7.2057594037927933e16", "36893488147419103232", "1.0000000000000002",
    "1.00000000000000011102230246251565", "1.00000000000000011102230246251566",
    "1.00000000000000011102230246251565404236316680908203125",
    "1.00000000000000011102230246251565404236316680908203124", "1234567.8", "12345678", "12345678.12345678",
    "1.00000000000000011102230246251565404236316680908203126", "123456781234567812345678", "0.12345678",
    "999999999999999e-22", "999999999999999e-23", "-999999999999999e-22", "1000000000000000e-22", "-0e-22",
    "999999999999999", "1000000000000001e-1", "999999999999999e1", "-0.0000000000000000000000", "-1e-23",
]  # fmt: skip


@pytest.mark.parametrize("number", HARD)
def test_hard_numbers(number: str) -> None:
    check(number)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_as_it_is_written(x: float) -> None:
    for number in (repr(x), f"{x:.16e}", f"{x:.20e}", f"{x:.6g}", f"{x:.3f}"):
        check(number)


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False, max_value=1e308))
def test_halfway_cases(x: float) -> None:
    digits, exponent = halfway(x).split("e")
    for number in (f"{digits}e{exponent}", f"{digits}1e{exponent}", f"{digits[:20]}e{exponent}"):
        check(number if "." in digits else number.replace("1e", "e"))


@given(st.integers(0, 2**64 - 1), st.integers(-345, 310), st.integers(0, 25))
def test_any_digits_with_any_exponent(digits: int, exponent: int, point: int) -> None:
    text = str(digits)
    check(f"{text}e{exponent}")
    check(f"{text[:point] or 0}.{text[point:] or 0}e{exponent}".replace("00.", "0."))


@given(st.integers(-(10**16), 10**16), st.integers(-25, 25))
def test_short_numbers_of_either_sign(digits: int, exponent: int) -> None:
    check(f"{digits}e{exponent}")


@given(st.from_regex(r"\A-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,50})?([eE][-+]?[0-9]{1,4})?\Z"))
def test_whatever_is_a_number_in_json(number: str) -> None:
    check(number)


@given(st.text("-+.0123456789eE naulltrfs[],\t", max_size=30) | st.from_regex(r"\A[-+]?[0-9.eE+-]{1,9}\Z"))
@example("01")
@example("-")
@example("1.")
@example(".5")
@example("1e")
@example("1,")
@example("NaN")
@example("nul")
@example("\v1")
def test_what_is_no_json_is_not_read(number: str) -> None:
    text = f"[{number}]"
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    ordinary = isinstance(value, list) and [type(x) for x in value] in ([int], [float], [type(None)])
    answer, values = read(text, "f8", 1)
    if answer == -1:
        assert ordinary
        assert value is not None
        np.testing.assert_array_equal(values, np.array(value, np.float64))
    elif ordinary and value is not None:
        assert answer >= 0 or math.isinf(float(value[0]))


# -- integers, booleans, null -------------------------------------------------------------------

INTEGERS = [dtype for dtype in KINDS if dtype[0] in "iu"]


@pytest.mark.parametrize("dtype", INTEGERS)
@given(st.data())
def test_integers(dtype: str, data: st.DataObject) -> None:
    limits = np.iinfo(dtype)
    least, most = int(limits.min), min(int(limits.max), 10**19 - 1)
    edges = st.sampled_from([least, most, 0])
    numbers = data.draw(st.lists(st.integers(least, most) | edges, min_size=1, max_size=9))
    answer, values = read(json.dumps(numbers), dtype, len(numbers))
    assert (answer, values.tolist()) == (-1, numbers)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize(
    "other", ["1.0", "1e2", "null", "true", "1e", "least", "most", "1" * 20, "1" * 400, "-", "01", "1."]
)
def test_what_is_no_integer_of_the_type_is_not_read(dtype: str, other: str) -> None:
    limits = np.iinfo(dtype)
    other = {"least": str(int(limits.min) - 1), "most": str(int(limits.max) + 1)}.get(other, other)
    assert read(f"[1,{other}]", dtype, 2)[0] == kernel.UNKNOWN


def test_the_integer_minus_zero_is_zero() -> None:
    for dtype in KINDS:
        if dtype != "?":
            answer, values = read("[-0]", dtype, 1)
            assert (answer, values.tobytes()) == (-1, bytes(values.nbytes))


def test_booleans() -> None:
    answer, values = read("[true, false,true]", "?", 3)
    assert (answer, values.tolist()) == (-1, [True, False, True])
    for text in ("[1]", "[null]", "[tru]", "[trues]", "[0.0]", "[True]"):
        assert read(text, "?", 1)[0] == kernel.UNKNOWN


def test_nan_and_infinity_are_read_as_python_writes_them() -> None:
    values = [math.nan, 1, math.inf, -math.inf, 2.5]
    for dtype in ("f4", "f8"):
        answer, result = read(json.dumps(values), dtype, 5)
        assert answer == -1
        assert result.tobytes() == np.array(values, dtype).tobytes()
    for wrong in ("-NaN", "-null", "nan", "Inf", "-Inf", "inf", "NaNs", "Infinityy", "--Infinity", "Infinit"):
        assert read(f"[{wrong}]", "f8", 1)[0] == kernel.UNKNOWN
    for dtype in ("i4", "u8", "?"):
        for word in ("NaN", "Infinity", "-Infinity"):
            assert read(f"[{word}]", dtype, 1)[0] == kernel.UNKNOWN


def test_null_is_nan() -> None:
    for dtype in ("f4", "f8"):
        answer, values = read("[null,1 , null]", dtype, 3)
        assert answer == -1
        assert values.tobytes() == np.array([np.nan, 1, np.nan], dtype).tobytes()
        assert read("[nul]", dtype, 1)[0] == kernel.UNKNOWN
        assert read("[true]", dtype, 1)[0] == kernel.UNKNOWN


# -- nests --------------------------------------------------------------------------------------


def nested(values: list[Any], shape: list[int]) -> Any:
    if len(shape) == 1:
        return values
    step = len(values) // shape[0]
    return [nested(values[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def levels_of(shape: list[int]) -> list[int]:
    return [math.prod(shape[-depth:]) for depth in range(1, len(shape))]


SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n", ":"), ("\t,", ":")])


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), SEPARATORS, st.sampled_from([None, 1]))
def test_nests(shape: list[int], separators: tuple[str, str], indent: int | None) -> None:
    values = [i / 2 for i in range(math.prod(shape))]
    text = json.dumps(nested(values, shape), separators=separators, indent=indent)
    answer, read_values = read(text, "f4", len(values), *levels_of(shape))
    assert (answer, read_values.tolist()) == (-len(shape), values)
    text = json.dumps(values, separators=separators, indent=indent)
    answer, read_values = read(text, "f4", len(values), *levels_of(shape))
    assert (answer, read_values.tolist()) == (-1, values)


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.integers(0),
    st.sampled_from(["", *"[],1 "]),
    st.booleans(),
)
def test_a_nest_of_another_shape_is_not_read(shape: list[int], at: int, other: str, insert: bool) -> None:
    """Whatever character is changed: it is read where it still is a list of this shape, and only there."""
    values = list(range(2, 2 + math.prod(shape)))
    text = json.dumps(nested(values, shape), separators=(",", ":"))
    at %= len(text)
    text = text[:at] + other + text[at + (not insert) :]
    answer, read_values = read(text, "f8", len(values), *levels_of(shape))
    try:
        array = np.array(json.loads(text), np.float64)
    except ValueError:
        assert answer == kernel.UNKNOWN
        return
    if array.shape in (tuple(shape), (len(values),)):
        assert answer == -array.ndim
        assert read_values.tolist() == array.ravel().tolist()
    else:
        assert answer == kernel.UNKNOWN


@pytest.mark.parametrize("nest", [(), (2,), (2, 4), (1, 2, 4)])
def test_it_goes_on_behind_a_number(nest: tuple[int, ...]) -> None:
    shape = [8 // (nest[-1] if nest else 8), *[b // a for a, b in pairwise(nest)][::-1]]
    shape = [*shape, nest[0]] if nest else [8]
    values = [float(i) for i in range(8)]
    text = json.dumps(nested(values, shape)).encode()
    for place in range(1, 9):
        out = np.zeros(64, np.uint8)
        end = text.index(str(values[place - 1]).encode()) + 3
        levels = (*nest, 0, 0, 0)[:3]
        answer = kernel.read(text, end, len(text), out, memory.FLOAT64, *levels, place)
        assert answer == -len(shape)
        assert out.view(np.float64)[place:].tolist() == values[place:]


PLAIN = st.from_regex(r"\A-?[0-9]\.[0-9]{1,16}\Z")
UNLIKE = st.sampled_from(["12.5", "-0", "7", "1e3", "0.5e-3", "null", "-123456.75", "0.1234567890123456789"])


@given(
    st.lists(PLAIN | PLAIN | PLAIN | UNLIKE, min_size=1, max_size=80),
    st.integers(1, 7),
    st.sampled_from([",", ", ", " ,"]),
    st.sampled_from(["f4", "f8"]),
)
def test_numbers_of_a_kind_and_others_among_them(
    numbers: list[str], width: int, separator: str, dtype: str
) -> None:
    rows = [numbers[start : start + width] for start in range(0, len(numbers) - width + 1, width)]
    expected = np.array([[float(number.replace("null", "nan")) for number in row] for row in rows], "f8")
    for text, nest in (
        (f"[{separator.join(f'[{separator.join(row)}]' for row in rows)}]", (width,)),
        (f"[{separator.join(separator.join(row) for row in rows)}]", ()),
    ):
        if rows:
            answer, values = read(text, dtype, expected.size, *nest)
            assert answer == -1 - len(nest)
            np.testing.assert_array_equal(values, expected.astype(dtype).ravel())


@pytest.mark.parametrize(
    "number", ["1.", "-.5", "1.2.3", "1.5-", "1.5+", "00.5", "--1.5", "1.x", "1.5/", "1.5:"]
)
@pytest.mark.parametrize("place", [0, 1, 5, 11])
def test_what_looks_like_most_numbers_and_is_none(number: str, place: int) -> None:
    numbers = ["2.25"] * 12
    numbers[place] = number
    assert read(f"[{','.join(numbers)}]", "f4", 12)[0] == kernel.UNKNOWN


def test_text_of_any_length_is_read_to_its_end() -> None:
    for size in range(1, 40):
        text = b"[" + b"1" * size + b"]"
        out = np.zeros(8, np.uint8)
        answer = kernel.read(text, 0, len(text), out, memory.FLOAT64, 0, 0, 0, 0)
        if len(text) < 8:
            assert answer == kernel.UNKNOWN
        elif answer != (1 << kernel.INDEX_BITS):
            assert (answer, out.view(np.float64)[0]) == (-1, float("1" * size))


@pytest.mark.parametrize("dtype", KINDS)
def test_digits_up_to_the_end_of_the_text_have_an_end(dtype: str) -> None:
    for start in ("[", "[1.", "[-1.5e", "[[1,"):
        for size in range(1, 40):
            text = f"{start}{'1' * size}".encode()
            out = np.zeros(np.dtype(dtype).itemsize, np.uint8)
            answer = kernel.read(text, 0, len(text), out, KINDS[dtype], 0, 0, 0, 0)
            # Of too many digits there is a hard number, behind which there is no bracket.
            assert answer == kernel.UNKNOWN or answer == (1 << kernel.INDEX_BITS)


TAILS = [
    "",
    "-",
    "1",
    "1.",
    "1.5",
    "-1.",
    "1e",
    "1e-",
    "1" * 8,
    "1." + "2" * 16,
    "nul",
    "Infinit",
    "1 ",
    "1,",
    "1]",
]


@pytest.mark.parametrize("tail", TAILS)
def test_nothing_is_read_behind_the_text(tail: str) -> None:
    for start in ("[", "[[", "[1234567.5,", "[1.5," * 9):
        text = guarded(f"{start}{tail}".encode())
        for dtype, kind in KINDS.items():
            for count in (1, 2, 9):
                out = np.zeros(count * np.dtype(dtype).itemsize, np.uint8)
                kernel.read(text, 0, len(text), out, kind, 0, 0, 0, 0)
