"""Inference requests in protobuf's wire format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from driftline.protocols.grpc.messages import ModelInferRequest

LONG = 2**16
"""Bytes of a message; in a shorter one, finding the tensors takes longer than copying them."""

MAX_FIELDS = 2**15
"""The most fields of a message, as many as a shorter one can have: each takes a microsecond and 100 bytes."""

_RAW_TAG = ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number << 3 | 2
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
"""Wire types, the lowest three bits of the tag before each field: https://protobuf.dev/programming-guides/encoding"""


class Received(NamedTuple):
    """A ModelInferRequest whose raw tensors, `raw`, need not be in the message."""

    message: Any
    raw: Sequence[bytes | memoryview]


def read(data: bytes) -> Received:
    """Parse a ModelInferRequest; raw tensors of a long one are not copied, which protobuf would do twice.

    Raises ValueError, or whatever protobuf raises, if it is invalid.
    """
    if len(data) < LONG:
        message = ModelInferRequest.FromString(data)
        return Received(message, message.raw_input_contents)
    view, start = memoryview(data), 0
    raw: list[memoryview] = []
    rest: list[memoryview] = []
    while start < len(data):
        if len(raw) + len(rest) == MAX_FIELDS:
            raise ValueError(f"expected at most {MAX_FIELDS} tensors and parameters, got more")
        tag, position = _varint(data, start)
        position, end = _extent(data, tag & 7, position)
        if tag == _RAW_TAG:
            raw.append(view[position:end])
        else:
            rest.append(view[start:end])
        start = end
    return Received(ModelInferRequest.FromString(b"".join(rest)), raw)


def _extent(data: bytes, kind: int, position: int) -> tuple[int, int]:
    """Return where the value of a field begins and ends."""
    if kind == _VARINT:
        return position, _varint(data, position)[1]
    size = 8 if kind == _FIXED64 else 4
    if kind == _LENGTH_DELIMITED:
        size, position = _varint(data, position)
    elif kind not in (_FIXED64, _FIXED32):
        raise ValueError(
            f"a field of kind {kind}: expected {_VARINT}, {_FIXED64}, {_LENGTH_DELIMITED} or {_FIXED32}"
        )
    if position + size > len(data):
        raise ValueError(f"a field of {size} bytes: expected at most {len(data) - position}")
    return position, position + size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and where it ends."""
    number = shift = 0
    while True:
        if position == len(data) or shift > 63:
            raise ValueError(f"a number of a field: expected its end, got more than {shift // 7} bytes")
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
