"""Tensors as raw bytes: little-endian, row-major, no padding; a string is its uint32 length and its UTF-8."""

from __future__ import annotations

import struct

import numpy as np

from driftline.errors import BadRequest
from driftline.tensors import Array, TensorSpec, utf8

_LENGTH = struct.Struct("<I")


def decode(spec: TensorSpec, data: memoryview, shape: tuple[int, ...], count: int) -> Array:
    """Return the tensor of `count` elements in `data`; numbers are a view of it if they are aligned.

    Raises BadRequest if `data` is shorter or longer than the shape says.
    """
    if spec.datatype.dtype == object:
        return np.array(_decode_strings(spec, data, count), dtype=object).reshape(shape)
    expected = count * spec.datatype.dtype.itemsize
    if len(data) != expected:
        raise BadRequest(
            f"input {spec.name!r}: expected {expected} bytes for {spec.datatype.name} {list(shape)}, "
            f"got {len(data)}"
        )
    if spec.datatype.dtype == bool:  # any byte but 0 is true; numpy and models know only 1
        return np.not_equal(np.frombuffer(data, np.uint8), 0).reshape(shape)
    array: Array = np.frombuffer(data, spec.datatype.dtype).reshape(shape)
    return array if array.flags.aligned else array.copy()


def encode(array: Array) -> bytes:
    """Return the bytes of a tensor."""
    if array.dtype != object:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    parts = []
    for text in array.flat:
        encoded = text.encode()
        parts.append(_LENGTH.pack(len(encoded)))
        parts.append(encoded)
    return b"".join(parts)


def _decode_strings(spec: TensorSpec, data: memoryview, count: int) -> list[str]:
    texts: list[str] = []
    position, end = 0, len(data)
    while position < end:
        start = position + _LENGTH.size
        stop = start + _LENGTH.unpack_from(data, position)[0] if start <= end else end + 1
        if stop > end:
            raise BadRequest(
                f"input {spec.name!r}: expected {count} BYTES elements, "
                f"got {end} bytes that end in the middle of element {len(texts)}"
            )
        texts.append(utf8(spec, bytes(data[start:stop])))
        position = stop
    if len(texts) != count:
        raise BadRequest(f"input {spec.name!r}: expected {count} BYTES elements, got {len(texts)}")
    return texts
