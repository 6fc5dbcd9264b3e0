"""Requests that differ in their numbers only: together they are what each is alone, or not read at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import BadRequest
from driftline.protocols import numbers
from driftline.protocols.v2 import V2Codec
from driftline.tensors import DATATYPES, Signature, TensorSpec

HEAD, TAIL = b'{"inputs":[{"name":"x","shape":%b,"datatype":"FP32","data":', b"}]}"
SHAPES = {b"[1,2]": (2,), b"[2,2]": (2,), b"[1,2,2]": (2, 2)}
FLAT, ROWS, PLANES = SHAPES


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    numbers.load()


def codec_of(shape: bytes) -> V2Codec:
    spec = TensorSpec("x", DATATYPES["FP32"], (-1, *SHAPES[shape]))
    return V2Codec(Signature((spec,), (TensorSpec("y", DATATYPES["FP32"], (-1, 1)),), batched=True), "m", 1)


def read_alone(codec: V2Codec, body: bytes) -> Any:
    """What a body is when it is read alone; None if it is none."""
    try:
        return codec.decode(body).inputs["x"]
    except BadRequest:
        return None


def check(shape: bytes, first: str, texts: list[str]) -> bool:
    """Whether bodies with these arrays are read together; then each has its own numbers."""
    codec, head = codec_of(shape), HEAD % shape
    body = head + first.encode() + TAIL
    for _ in range(2):  # then it is worth being remembered
        codec.decode(body)
    form: Any = codec.form(body, None)
    assert form is not None
    bodies = [head + text.encode() + TAIL for text in texts]
    assert all(map(form.fits, bodies))
    try:
        together = form.read_all(bodies).inputs["x"]
    except numbers.Unread:
        return False
    separate = [read_alone(codec_of(shape), body) for body in bodies]
    assert all(request is not None for request in separate)
    assert np.array_equal(together, np.concatenate(separate))
    return True


@pytest.mark.parametrize(
    ("shape", "texts"),
    [
        (FLAT, ["[1,2]", "[3.5,-4]", "[5 , 6]"]),
        (ROWS, ["[1,2,3,4]", "[5,6,7,8]"]),
        (ROWS, ["[[1,2],[3,4]]", "[[5,6],[7,8]]"]),
        (PLANES, ["[[[1,2],[3,4]]]", "[[[5,6],[7,8]]]"]),
    ],
)
def test_bodies_of_one_form_are_read_together(shape: bytes, texts: list[str]) -> None:
    assert check(shape, texts[0], texts)


@pytest.mark.parametrize(
    ("shape", "texts"),
    [
        (FLAT, ["[1,2],[3,4]", "[5,6]"]),
        (FLAT, ["[1,2", "3,4]"]),
        (FLAT, ["[1", "2],[3,4]"]),
        (FLAT, ["[1,2,3]", "[4]"]),
        (FLAT, ["[1,2]", ""]),
        (FLAT, ["[1,2]", "[[3,4]]"]),
        (ROWS, ["[[1,2],[3,4]],[[5,6]", "[7,8]]"]),
        (ROWS, ["[[1,2]", "[3,4]],[[5,6],[7,8]]"]),
        (ROWS, ["[[1,2],[3,4],[5,6]]", "[[7,8]]"]),
        (ROWS, ["[[1,2],[3,4]]", "[5,6,7,8]"]),
        (PLANES, ["[[[1,2],[3,4]]],[[[5,6]", "[7,8]]]"]),
    ],
)
def test_what_is_whole_only_with_its_neighbour_is_not(shape: bytes, texts: list[str]) -> None:
    first = {FLAT: "[1,2]", ROWS: "[[1,2],[3,4]]", PLANES: "[[[1,2],[3,4]]]"}[shape]
    assert not check(shape, first, texts)


@given(
    st.sampled_from(
        [(FLAT, "[1,2]"), (ROWS, "[1,2,3,4]"), (ROWS, "[[1,2],[3,4]]"), (PLANES, "[[[1,2],[3,4]]]")]
    ),
    st.integers(2, 4),
    st.lists(
        st.tuples(st.integers(0, 80), st.sampled_from(["", "[", "]", ",", "],[", "9", " "])), max_size=3
    ),
    st.data(),
)
def test_however_a_joint_text_is_cut_each_has_its_own_numbers_or_none_is_read(
    form: tuple[bytes, str], count: int, edits: list[tuple[int, str]], data: Any
) -> None:
    shape, first = form
    joint = ",".join([first] * count)
    for position, put in edits:
        start = position % (len(joint) + 1)
        joint = joint[:start] + put + joint[start + (put == "") :]
    commas = [position for position, character in enumerate(joint) if character == ","]
    cuts = (
        sorted(data.draw(st.lists(st.sampled_from(commas), max_size=3, unique=True)))
        if data and commas
        else []
    )
    texts = [
        joint[start:stop] for start, stop in zip([0, *(cut + 1 for cut in cuts)], [*cuts, None], strict=True)
    ]
    check(shape, first, texts)
