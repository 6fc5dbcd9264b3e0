"""JSON's arrays of numbers, read by a kernel from a body's bytes into a tensor; the rest is orjson's.

The arrays are cut out of the text, nulls take their place, orjson reads what is left. What the kernel does
not recognise raises Unread, and the codec goes its way without it: so what is refused, and how, is said once.
Numba takes a second or two to load; until `load` is done, nothing is cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isinf, prod
from typing import Any

import numpy as np
import orjson

from driftline.tensors import Array, TensorSpec

_kernel: Any = None  # driftline_kernels.numbers, when it is compiled

_KINDS = {
    np.dtype(name): kind
    for kind, name in enumerate(("f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"))
}
"""The kinds of driftline_kernels.memory, FLOAT32 to UINT64 and BITS."""

_MOST_LEVELS = 4
_NUMBER = re.compile(rb"[-+.0-9eE]+")
_NESTED = re.compile(rb"\[\s*\[")


class Unread(Exception):
    """The kernel does not read this: only orjson can say what it is."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """A JSON array of numbers, most likely: text[start:stop], with its outer brackets."""

    text: bytes
    start: int
    stop: int


def load() -> None:
    """Load and compile the kernel, in some other thread; codecs use it from then on.

    It takes what importing Numba takes, and some seconds more when a machine does it for the first time.
    """
    global _kernel
    from driftline_kernels import numbers as kernel

    kernel.read(b"[1, 2.5]", 0, 8, np.empty(8, np.uint8), _KINDS[np.dtype("f4")], 0, 0, 0, 0)
    _kernel = kernel


def readable(spec: TensorSpec) -> bool:
    """Whether the kernel has numbers of this input's datatype; raw columns have more to them."""
    return not spec.raw and spec.datatype.dtype in _KINDS


def key(name: str) -> re.Pattern[bytes]:
    """Finds a string in JSON: group 1 is what follows if it is the key of an array, 2 if it is a value."""
    return re.compile(rb'"%b"[ \t\n\r]*(?:(:[ \t\n\r]*\[)|([],}]))?' % name.encode())


def cut(text: bytes, key: re.Pattern[bytes]) -> tuple[Any, list[Numbers]] | None:
    """A JSON document with None for the arrays of numbers that are the values of a key, and the arrays.

    None if the kernel isn't there yet, there is no such array, a value of the key does not look like one, or
    the text is no valid JSON. If it is valid with nulls for arrays, each null stands where an array stood:
    without backslashes the quotes around the key's name can only be its own, so it is no part of a string.
    And each such key in the document stands for one of the arrays, in this order.
    """
    if _kernel is None or len(text) >> _kernel.PLACES:
        return None
    parts: list[bytes] = []
    arrays: list[Numbers] = []
    end = 0
    found = key.search(text)
    while found is not None:
        behind = found.end()
        if found[1]:
            start = behind - 1
            # Numbers have no quotes and no braces: the array ends with the last bracket before any.
            stop = text.find(b"}", start)
            quote = text.find(b'"', start, stop)
            behind = text.rfind(b"]", start, stop if quote < 0 else quote) + 1
            parts.append(text[end:start])
            arrays.append(Numbers(text, start, behind))
            end = behind
        if found[1] is found[2] or behind == 0:
            return None
        found = key.search(text, behind)
    parts.append(text[end:])
    rest = b"null".join(parts)
    if not arrays or b"\\" in rest:
        return None
    try:
        return orjson.loads(rest), arrays
    except orjson.JSONDecodeError:
        return None


def read(numbers: Numbers, spec: TensorSpec, shape: Sequence[int]) -> Array:
    """An array as a tensor of this shape in the input's datatype, whether it is flat or nested so.

    Raises Unread.
    """
    array, _ = _read(numbers, spec, shape)
    return array


def read_rows(numbers: Numbers, spec: TensorSpec) -> Array:
    """An array, nested as the input's shape is, as a tensor with as many rows as there are.

    Raises Unread.
    """
    width = prod(spec.shape[1:])
    rows = (numbers.text.count(b",", numbers.start, numbers.stop) + 1) // max(width, 1)
    shape = (rows, *spec.shape[1:])
    if not spec.accepts(shape) or min(shape) < 0:
        raise Unread
    array, levels = _read(numbers, spec, shape)
    if levels != len(shape):
        raise Unread
    return array


def _read(numbers: Numbers, spec: TensorSpec, shape: Sequence[int]) -> tuple[Array, int]:
    """The tensor, and how many levels of lists it was."""
    dtype, count = spec.datatype.dtype, prod(shape)
    if 2 * count > numbers.stop - numbers.start:  # a digit and a comma each
        raise Unread
    values = np.empty(count * dtype.itemsize, np.uint8)
    row = plane = block = 0
    if 1 < len(shape) <= _MOST_LEVELS:
        row = shape[-1]
        plane = row * shape[-2] if len(shape) > 2 else 0
        block = plane * shape[-3] if len(shape) > 3 else 0
    text, start, stop, kind = numbers.text, numbers.start, numbers.stop, _KINDS[dtype]
    answer = _kernel.read(text, start, stop, values, kind, row, plane, block, 0)
    if answer >= 0:
        if not _NESTED.match(text, start):
            row = plane = block = 0
        answer = _finish(answer, numbers, values.view(dtype), (kind, row, plane, block))
    if answer == _kernel.UNKNOWN:
        raise Unread
    return np.ndarray(shape, dtype, values.data), -answer


def _finish(answer: int, numbers: Numbers, values: Array, layout: tuple[int, int, int, int]) -> int:
    """Go on where the kernel could not round a number, which Python can."""
    while answer >= 0:
        position, place = answer >> _kernel.PLACES, answer % (1 << _kernel.PLACES)
        digits = _NUMBER.match(numbers.text, position)
        assert digits is not None
        value = float(digits[0])
        if isinf(value):
            return int(_kernel.UNKNOWN)
        with np.errstate(over="ignore"):
            values[place] = value
        answer = _kernel.read(
            numbers.text, digits.end(), numbers.stop, values.view(np.uint8), *layout, place + 1
        )
    return answer
