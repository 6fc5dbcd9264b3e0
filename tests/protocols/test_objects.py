"""Rows of raw columns of numbers in KServe's v1: by the kernel they are what they are by orjson."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import BadRequest
from driftline.protocols import numbers
from driftline.protocols.v1 import V1Codec
from driftline.tensors import DATATYPES, Signature, TensorSpec

NAMES = ("age", "fare paid", "größe")
STYLES: list[dict[str, Any]] = [
    {"separators": (",", ":"), "ensure_ascii": False},
    {"separators": (",", ":")},
    {},
    {"indent": 1},
    {"separators": (" ,", " :")},
]
VALUE = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**65), 2**65) | st.none()
ODD = st.sampled_from([True, "1", [], [1.5], {}, "x"])


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    numbers.load()


def codec(kernel: bool = True) -> V1Codec:
    columns = tuple(TensorSpec(name, DATATYPES["FP64"], (-1,), raw=True) for name in NAMES)
    result = V1Codec(Signature(columns, columns[:1], batched=True))
    assert result._objects is not None
    if not kernel:
        result._objects = None
    return result


def decoded(codec: V1Codec, body: bytes) -> Any:
    """The columns, or what is wrong."""
    try:
        inputs = codec.decode(body).inputs
    except BadRequest as error:
        return str(error)
    assert {array.dtype for array in inputs.values()} == {np.dtype(np.float64)}
    return {name: array.tolist() for name, array in inputs.items()}


def same(actual: Any, expected: Any) -> None:
    if isinstance(expected, str) or isinstance(actual, str):
        assert actual == expected
        return
    for name in NAMES:
        np.testing.assert_array_equal(actual[name], expected[name])


def body_of(rows: list[Any], style: int) -> bytes:
    return json.dumps({"instances": rows}, **STYLES[style]).encode()


ROW = st.permutations(NAMES).flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, VALUE)))
OTHER_ROW = st.dictionaries(st.sampled_from([*NAMES, "other"]), VALUE | ODD, max_size=4)
ANY_ROW = st.one_of(ROW, ROW, OTHER_ROW, st.lists(VALUE, max_size=2))


@given(st.lists(st.tuples(st.lists(ANY_ROW, max_size=4), st.integers(0, 4)), min_size=1, max_size=6))
def test_one_codec_reads_whatever_comes_as_without_the_kernel(requests: list[tuple[list[Any], int]]) -> None:
    fast, plain = codec(), codec(kernel=False)
    for rows, style in requests:
        body = body_of(rows, style)
        same(decoded(fast, body), decoded(plain, body))


@given(st.lists(ROW, min_size=1, max_size=5), st.integers(0, 4))
def test_what_one_client_sends_again_and_again(rows: list[dict[str, Any]], style: int) -> None:
    fast, plain = codec(), codec(kernel=False)
    rows = [{name: row[name] for name in rows[0]} for row in rows]
    for count in range(1, len(rows) + 1):
        body = body_of(rows[:count], style)
        same(decoded(fast, body), decoded(plain, body))


def test_several_styles_are_known_at_once() -> None:
    fast = codec()
    rows = [{"age": 1.5, "fare paid": 2, "größe": 3}, {"größe": 3, "age": 1.5, "fare paid": 2}]
    objects = fast._objects
    assert objects is not None
    for _ in range(3):
        for row in rows:
            for style in (0, 2):
                if style == 0:
                    text = body_of([row], style)
                    start, stop = text.index(b"[") + 1, text.index(b"]")
                    assert objects.read(text, start, stop).tolist() == [[1.5, 2, 3]]
    assert len(objects._templates) == 2


def test_rows_are_the_instances_and_all_there_is() -> None:
    body = body_of([dict.fromkeys(NAMES, 1.0)], 0)
    assert isinstance(decoded(codec(), body), dict)
    for plain in (body.replace(b"instances", b"inputs"), body[:-1] + b',"inputs":1}'):
        assert "expected" in decoded(codec(), plain)


def test_rows_that_are_never_alike_are_left_to_orjson() -> None:
    fast = codec()
    assert fast._objects is not None
    for number in range(100):
        rows: list[Any] = [{"age": number, "fare paid": True, "größe": 3}]
        assert decoded(fast, body_of(rows, 0)) == {"age": [number], "fare paid": [1], "größe": [3]}
    assert fast._objects._templates == []


PLAIN = '{"age":1.5,"fare paid":2,"größe":3}'


@given(
    st.lists(st.sampled_from([PLAIN, PLAIN, PLAIN.replace("1.5", "null"), ""]), min_size=2, max_size=5),
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from(["", *'{},: 9"\n', "},{"])), max_size=2),
    st.data(),
)
def test_however_joint_rows_are_cut_each_has_its_own_numbers_or_none_is_read(
    rows: list[str], edits: list[tuple[int, str]], data: st.DataObject
) -> None:
    fast, plain = codec(), codec(kernel=False)
    fast.decode(f'{{"instances":[{PLAIN}]}}'.encode())
    joint = ",".join(rows)
    for position, put in edits:
        start = position % (len(joint) + 1)
        joint = joint[:start] + put + joint[start + (put == "") :]
    commas = [position for position, character in enumerate(joint) if character == ","]
    cuts = sorted(data.draw(st.lists(st.sampled_from(commas), max_size=4, unique=True))) if commas else []
    starts, stops = [0, *(cut + 1 for cut in cuts)], [*cuts, len(joint)]
    bodies = [f'{{"instances":[{joint[a:b]}]}}'.encode() for a, b in zip(starts, stops, strict=True)]
    form = fast.form(bodies[0], None)
    if form is None or not all(map(form.fits, bodies)):
        return
    try:
        together = form.read_all(bodies).inputs
    except numbers.Unread:
        return
    for number, body in enumerate(bodies):
        expected = decoded(plain, body)
        assert not isinstance(expected, str)
        for name in NAMES:
            np.testing.assert_array_equal(together[name][number : number + 1], expected[name])


@pytest.mark.parametrize("digits", range(1, 40))
def test_a_row_without_an_end_does_not_keep_the_one_that_it_came_with(digits: int) -> None:
    fast = codec()
    body = f'{{"instances":[{PLAIN}]}}'.encode()
    cut = body.replace(b"3}", b"3." + b"1" * digits)
    form = fast.form(body, None)
    assert form is not None
    assert form.fits(cut)
    with pytest.raises(numbers.Unread):
        form.read_all([body, cut])


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances":[{"age":1},{"age":2}]}',
        b'{"instances":[{"age":[1]}]}',
        b'{"instances":[{"age":{}}]}',
        b'{"instances":[1]}',
        b'{"instances":[{"age":1}',
        b'{"inputs":[{"age":1}]}',
        b'{"instances":{"age":[1]}}',
        b"[]",
        b"",
    ],
)
def test_other_requests_have_no_form(body: bytes) -> None:
    assert codec().form(body, None) is None
