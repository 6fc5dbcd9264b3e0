"""Requests are cut as protobuf would read them."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from driftline.protocols.grpc import wire
from driftline.protocols.grpc.messages import ModelInferRequest


def request(*raw: bytes, name: str = "m") -> bytes:
    message = ModelInferRequest(model_name=name, id="7", raw_input_contents=raw)
    for position in range(len(raw)):
        message.inputs.add(name=f"x{position}", datatype="UINT8", shape=[len(raw[position])])
    message.parameters["timeout"].int64_param = -1
    data: bytes = message.SerializeToString()
    return data


@given(st.lists(st.integers(0, 300), max_size=4), st.sampled_from([0, 1, wire.LONG]))
def test_a_request_is_what_protobuf_reads(sizes: list[int], extra: int) -> None:
    raw = [bytes([position]) * (size + extra) for position, size in enumerate(sizes)]
    data = request(*raw)
    received = wire.read(data)
    assert [bytes(tensor) for tensor in received.raw] == raw
    expected = ModelInferRequest.FromString(data)
    if len(data) >= wire.LONG:
        assert len(received.message.raw_input_contents) == 0
        del expected.raw_input_contents[:]
    assert received.message == expected


def test_raw_tensors_of_a_long_request_are_where_they_came() -> None:
    data = request(b"a" * wire.LONG, b"b")
    for tensor in wire.read(data).raw:
        assert isinstance(tensor, memoryview)
        assert tensor.obj is data


def test_fields_of_other_definitions_are_passed_over() -> None:
    unknown = b"\xa0\x06\x96\x01" + b"\xa1\x06" + b"8bytes.." + b"\xa5\x06four" + b"\xa2\x06\x03abc"
    data = unknown + request(b"a" * wire.LONG) + unknown
    received = wire.read(data)
    assert bytes(received.raw[0]) == b"a" * wire.LONG
    assert received.message.model_name == "m"


@pytest.mark.parametrize("field", [b"\x3a\x00", b"\x2a\x00"], ids=["raw tensors", "inputs"])
def test_more_fields_than_anybody_needs_are_not_read(field: bytes) -> None:
    wire.read(field * wire.MAX_FIELDS)
    with pytest.raises(ValueError, match="expected at most 32768 tensors and parameters, got more"):
        wire.read(field * (wire.MAX_FIELDS + 1))


@pytest.mark.parametrize(
    "broken",
    [
        b"\x3a\xff\xff\x7f" + b"a" * wire.LONG,  # longer than what came
        b"\x3a" + b"\xff" * wire.LONG,  # a length that does not end
        b"\xa1\x06" + b"a" * 4,
        b"\x3b" + b"a" * wire.LONG,  # a kind that is used no more
        b"\x3a\x80" + b"\x80" * 1,
        b"\x0a\x01\xff",
    ],
)
def test_what_is_no_request_is_refused(broken: bytes) -> None:
    long = broken if len(broken) >= wire.LONG else request(b"a" * wire.LONG) + broken
    with pytest.raises((ValueError, DecodeError)):
        wire.read(long)
    with pytest.raises(DecodeError):
        ModelInferRequest.FromString(long)


@given(st.integers(0, wire.LONG + 200))
def test_a_request_that_ends_too_soon_is_refused_or_shorter(end: int) -> None:
    data = request(b"a" * wire.LONG, b"bc")
    try:
        expected = ModelInferRequest.FromString(data[:end])
    except DecodeError:
        with pytest.raises((ValueError, DecodeError)):
            wire.read(data[:end])
    else:
        received = wire.read(data[:end])
        assert [bytes(tensor) for tensor in received.raw] == list(expected.raw_input_contents)
