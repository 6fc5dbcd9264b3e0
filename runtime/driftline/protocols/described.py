"""Reads tensors of the Open Inference Protocol by the datatypes and shapes given, without a signature.

Requests and responses have the same form: a list of entries, each with name, datatype and shape, and its
values as JSON or, in the entries' order, as bytes after the JSON.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from math import prod
from typing import Any

from driftline.errors import BadRequest, shown
from driftline.protocols import binary
from driftline.tensors import DATATYPES, Array, TensorSpec, coerce

_INTEGER = {int}


def tensors_of(entries: object, tail: memoryview, wanted: Container[str]) -> dict[str, Array]:
    """Return the wanted tensors by name; datatypes and shapes of others are not checked.

    entries  the value of 'inputs' or 'outputs'
    tail     the bytes after the JSON

    Raises BadRequest for what does not follow the protocol.
    """
    if type(entries) is not list or not set(map(type, entries)) <= {dict}:
        raise BadRequest(f"expected a list of tensors, got {shown(entries)}")
    tensors: dict[str, Array] = {}
    for entry in entries:
        data = entry.get("data")
        size = (entry.get("parameters") or {}).get("binary_data_size")
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(tail):
                raise BadRequest(f"binary_data_size: expected 0 to {len(tail)}, got {shown(size)}")
            data, tail = tail[:size], tail[size:]
        name = entry.get("name")
        if type(name) is str and name in wanted:
            tensors[name] = _read(entry, data)
    return tensors


def _read(entry: Mapping[str, Any], data: object) -> Array:
    name, shape = entry["name"], entry.get("shape")
    datatype = DATATYPES.get(str(entry.get("datatype")))
    if datatype is None:
        raise BadRequest(f"tensor {name!r}: expected a datatype, got {shown(entry.get('datatype'))}")
    if type(shape) is not list or not _INTEGER.issuperset(map(type, shape)) or min(shape, default=0) < 0:
        raise BadRequest(f"tensor {name!r}: expected a shape, got {shown(shape)}")
    spec = TensorSpec(name, datatype, tuple(shape))
    if isinstance(data, memoryview):
        return binary.decode(spec, data, spec.shape, prod(shape))
    array = coerce(spec, data)
    if array.size != prod(shape):
        raise BadRequest(f"tensor {name!r}: expected {prod(shape)} elements, got {array.size}")
    return array.reshape(shape)
