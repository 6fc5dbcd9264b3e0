"""Checks the fields of an inference request: BadRequest says what was expected and what came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

from driftline.errors import BadRequest, shown
from driftline.tensors import DATATYPES, TensorSpec

_MAX_ELEMENTS = 2**48
_INTEGER = {int}


def with_datatype(spec: TensorSpec, datatype: object) -> TensorSpec:
    """Return an input with the datatype sent: its own, or any numeric one for a raw column of numbers."""
    if datatype == spec.datatype.name:
        return spec
    actual = DATATYPES.get(datatype) if spec.raw and type(datatype) is str else None
    if actual is None or "BYTES" in (actual.name, spec.datatype.name):
        raise BadRequest(
            f"input {spec.name!r}: expected datatype {spec.datatype.name}, got {shown(datatype)}"
        )
    return replace(spec, datatype=actual)


def shape_of(spec: TensorSpec, shape: object) -> tuple[int, ...]:
    """Return the shape that a request gives for an input, if the model takes it."""
    if type(shape) is list and _INTEGER.issuperset(map(type, shape)):
        if min(shape, default=0) >= 0 and spec.accepts(tuple(shape)):
            # With a dimension of 0, the others could be anything, beyond what numpy can count.
            if 0 in shape and prod(size or 1 for size in shape) > _MAX_ELEMENTS:
                raise BadRequest(
                    f"input {spec.name!r}: expected dimensions of at most {_MAX_ELEMENTS} in all, "
                    f"got {shown(shape)}"
                )
            return tuple(shape)
    message = f"input {spec.name!r}: expected shape {list(spec.shape)}, got {shown(shape)}"
    if type(shape) is list and any(type(size) is int and size < 0 for size in shape):
        message += "; -1 stands for any size, which a request has to state"
    raise BadRequest(message)


def parameters_of(entry: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return the parameters of a request or a tensor; messages begin with `where`, here and below."""
    parameters = entry.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise BadRequest(f"{where}: expected 'parameters' as an object, got {shown(parameters)}")
    if "shared_memory_region" in parameters:  # a client that read the region would find its old content
        raise BadRequest(f"{where}: shared memory is not supported; tensors come and go in the body")
    return parameters


def boolean(parameters: Mapping[str, Any], where: str, key: str, default: bool = False) -> bool:
    """Return a parameter that is true or false."""
    value = parameters.get(key, default)
    if type(value) is not bool:
        raise BadRequest(f"{where}: parameter {key!r}: expected true or false, got {shown(value)}")
    return value


def integer(parameters: Mapping[str, Any], where: str, key: str) -> int:
    """Return a parameter that is a whole number; 0 if it is absent."""
    value = parameters.get(key, 0)
    if type(value) is not int or not 0 <= value < 2**64:
        raise BadRequest(f"{where}: parameter {key!r}: expected a whole number from 0, got {shown(value)}")
    return value


def string(document: Mapping[str, Any], key: str) -> str | None:
    """Return a string; None if it is absent."""
    value = document.get(key)
    if value is not None and type(value) is not str:
        raise BadRequest(f"{key!r}: expected a string, got {shown(value)}")
    return value
