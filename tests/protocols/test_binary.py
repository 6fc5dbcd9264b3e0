from __future__ import annotations

import re

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import BadRequest
from driftline.protocols import binary
from driftline.tensors import DATATYPES, TensorSpec

NUMERIC = sorted(naive.FORMATS)
TEXTS = ["", "plain", "é\0ü", "\0", "𝄞" * 5000]


def spec(datatype: str) -> TensorSpec:
    return TensorSpec("x", DATATYPES[datatype], (-1,))


@pytest.mark.parametrize("datatype", NUMERIC)
@given(data=st.data(), offset=st.integers(0, 9))
def test_numbers_are_read_where_they_lie_at_any_offset(
    datatype: str, data: st.DataObject, offset: int
) -> None:
    size = DATATYPES[datatype].dtype.itemsize
    count = data.draw(st.integers(0, 6))
    raw = data.draw(st.binary(min_size=count * size, max_size=count * size))
    array = binary.decode(spec(datatype), memoryview(b"z" * offset + raw)[offset:], (count,), count)
    assert array.shape == (count,)
    assert array.dtype == DATATYPES[datatype].dtype
    assert array.flags.aligned
    if datatype != "BOOL":
        assert array.tobytes() == binary.encode(array) == raw
        assert repr(array.tolist()) == repr(naive.tensor_values(datatype, raw))


def test_aligned_numbers_are_not_copied() -> None:
    body = bytes(16)
    assert np.shares_memory(
        binary.decode(spec("FP32"), memoryview(body), (4,), 4), np.frombuffer(body, np.uint8)
    )


def test_any_byte_but_zero_is_true() -> None:
    array = binary.decode(spec("BOOL"), memoryview(bytes([0, 1, 2, 255])), (2, 2), 4)
    assert array.view(np.uint8).tolist() == [[0, 1], [1, 1]]


def test_big_endian_and_transposed_arrays_are_written_in_order() -> None:
    array = np.array([[1, 2], [3, 4]], ">i4")
    assert binary.encode(array.T) == naive.tensor_bytes("INT32", [1, 3, 2, 4])


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))) | st.just(TEXTS))
def test_strings_come_back(texts: list[str]) -> None:
    raw = naive.tensor_bytes("BYTES", texts)
    array = binary.decode(spec("BYTES"), memoryview(raw), (1, len(texts)), len(texts))
    assert array.dtype == object
    assert array.tolist() == [texts]
    assert binary.encode(array) == raw


@pytest.mark.parametrize(
    ("datatype", "data", "count", "message"),
    [
        ("FP32", bytes(7), 2, "expected 8 bytes for FP32 [2], got 7"),
        ("FP32", bytes(9), 2, "expected 8 bytes for FP32 [2], got 9"),
        ("FP64", b"", 2**40, f"expected {2**43} bytes for FP64 [{2**40}], got 0"),
        ("BOOL", bytes(3), 2, "expected 2 bytes for BOOL [2], got 3"),
        ("BYTES", b"", 1, "expected 1 BYTES elements, got 0"),
        ("BYTES", naive.tensor_bytes("BYTES", ["a", "b"]), 1, "expected 1 BYTES elements, got 2"),
        ("BYTES", naive.tensor_bytes("BYTES", ["a"]), 2**62, f"expected {2**62} BYTES elements, got 1"),
        (
            "BYTES",
            b"\1\0\0\0a\1\0\0",
            2,
            "expected 2 BYTES elements, got 8 bytes that end in the middle of element 1",
        ),
        (
            "BYTES",
            b"\xff\xff\xff\xffab",
            1,
            "expected 1 BYTES elements, got 6 bytes that end in the middle of element 0",
        ),
        ("BYTES", b"\1\0\0\0\xff", 1, r"expected UTF-8 strings, got b'\xff': invalid start byte"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(datatype: str, data: bytes, count: int, message: str) -> None:
    with pytest.raises(BadRequest, match="^" + re.escape(f"input 'x': {message}")):
        binary.decode(spec(datatype), memoryview(data), (count,), count)


@given(st.binary(max_size=40), st.integers(0, 4))
def test_whatever_comes_as_strings_is_read_or_refused(data: bytes, count: int) -> None:
    try:
        array = binary.decode(spec("BYTES"), memoryview(data), (count,), count)
    except BadRequest as error:
        refused = str(error)
        assert refused.startswith("input 'x': expected ")
    else:
        assert binary.encode(array) == data
