"""Slow, obviously correct references for fast code. Plain Python, no numpy."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

FORMATS = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
"""The protocol's numeric datatypes as format characters of the `struct` module."""


def tensor_bytes(datatype: str, values: Sequence[Any]) -> bytes:
    """Return a flat tensor as the binary extension sends it."""
    if datatype == "BYTES":
        encoded = [text.encode() for text in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    return b"".join(struct.pack("<" + FORMATS[datatype], value) for value in values)


def tensor_values(datatype: str, data: bytes) -> list[Any]:
    """Return a flat tensor, read from the binary extension's bytes."""
    if datatype != "BYTES":
        return [value for (value,) in struct.iter_unpack("<" + FORMATS[datatype], data)]
    values = []
    while data:
        (length,) = struct.unpack("<I", data[:4])
        assert len(data) >= 4 + length
        values.append(data[4 : 4 + length].decode())
        data = data[4 + length :]
    return values


def nested(values: Sequence[Any], shape: Sequence[int]) -> Any:
    """Return flat values as nested lists."""
    if not shape:
        return values[0]
    step = math.prod(shape[1:])
    return [nested(values[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def flat(data: Any) -> Iterator[Any]:
    """Yield the values in nested lists."""
    if isinstance(data, list):
        for item in data:
            yield from flat(item)
    else:
        yield data


def as_json(values: Sequence[Any]) -> list[Any]:
    """Return values as JSON can hold them: NaN and infinity are null."""
    return [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]


def read_answer(body: bytes, json_length: int | None) -> dict[str, tuple[str, list[int], list[Any]]]:
    """Return the outputs of a v2 response: {name: (datatype, shape, flat values)}."""
    document = json.loads(body[:json_length])
    tail = b"" if json_length is None else body[json_length:]
    outputs = {}
    for entry in document["outputs"]:
        if "data" in entry:
            values = list(flat(entry["data"]))
        else:
            size = entry["parameters"]["binary_data_size"]
            values, tail = tensor_values(entry["datatype"], tail[:size]), tail[size:]
        assert len(values) == math.prod(entry["shape"])
        outputs[entry["name"]] = (entry["datatype"], entry["shape"], values)
    assert tail == b""
    return outputs
