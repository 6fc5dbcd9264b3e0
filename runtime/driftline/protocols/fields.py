"""Fields of an inference request, each checked: BadRequest says what was expected and what came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

from driftline.errors import BadRequest, shown
from driftline.tensors import DATATYPES, TensorSpec

_MOST_ELEMENTS = 2**48
_INTEGER = {int}


def sent(spec: TensorSpec, datatype: object) -> TensorSpec:
    """The input as it is sent: in its own datatype, or a raw column of numbers in any."""
    if datatype == spec.datatype.name:
        return spec
    came = DATATYPES.get(datatype) if spec.raw and type(datatype) is str else None
    if came is None or "BYTES" in (came.name, spec.datatype.name):
        raise BadRequest(
            f"input {spec.name!r}: expected datatype {spec.datatype.name}, came {shown(datatype)}"
        )
    return replace(spec, datatype=came)


def shape_of(spec: TensorSpec, shape: object) -> tuple[int, ...]:
    """The shape that an input says it has, which the model takes."""
    if type(shape) is list and _INTEGER.issuperset(map(type, shape)):
        if min(shape, default=0) >= 0 and spec.accepts(tuple(shape)):
            # A dimension of 0 would let the others be whatever they want, past what numpy can count.
            if 0 in shape and prod(size or 1 for size in shape) > _MOST_ELEMENTS:
                raise BadRequest(
                    f"input {spec.name!r}: expected dimensions of at most {_MOST_ELEMENTS} in all, "
                    f"came {shown(shape)}"
                )
            return tuple(shape)
    told = f"input {spec.name!r}: expected shape {list(spec.shape)}, came {shown(shape)}"
    if type(shape) is list and any(type(size) is int and size < 0 for size in shape):
        told += "; where the model has -1, a request says how many"
    raise BadRequest(told)


def parameters_of(entry: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The parameters of a request or a tensor; `where` is in front of messages, here and below."""
    parameters = entry.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise BadRequest(f"{where}: expected 'parameters' as an object, came {shown(parameters)}")
    if "shared_memory_region" in parameters:  # whoever reads it would find there what was before
        raise BadRequest(f"{where}: shared memory is not supported; tensors come and go in the body")
    return parameters


def flag(parameters: Mapping[str, Any], where: str, key: str, default: bool = False) -> bool:
    """A parameter that is true or false."""
    value = parameters.get(key, default)
    if type(value) is not bool:
        raise BadRequest(f"{where}: parameter {key!r}: expected true or false, came {shown(value)}")
    return value


def whole(parameters: Mapping[str, Any], where: str, key: str) -> int:
    """A parameter that is a whole number; 0 if it is not there."""
    value = parameters.get(key, 0)
    if type(value) is not int or not 0 <= value < 2**64:
        raise BadRequest(f"{where}: parameter {key!r}: expected a whole number from 0, came {shown(value)}")
    return value


def text(document: Mapping[str, Any], key: str) -> str | None:
    """A string; None if it is not there."""
    value = document.get(key)
    if value is not None and type(value) is not str:
        raise BadRequest(f"{key!r}: expected a string, came {shown(value)}")
    return value
