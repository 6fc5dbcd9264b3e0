"""Reads JSON arrays of numbers with a kernel, from a body's bytes into a tensor; orjson reads the rest.

The arrays are cut out of the text and replaced by nulls, and orjson reads what is left. Text that the kernel
does not recognise raises Unread, and the codec reads it without the kernel: so one place alone decides what
is refused, and how. Numba takes half a second or more to load; until `load` is done, it is not `ready`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isinf, prod
from typing import Any, NamedTuple

import numpy as np
import orjson

from driftline.tensors import Array, TensorSpec
from driftline_kernels import compiling

_kernel: Any = None  # driftline_kernels.numbers, once it is compiled
object_kernel: Any = None  # driftline_kernels.objects, too: for Objects

_KINDS = {
    np.dtype(name): kind
    for kind, name in enumerate(("f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"))
}
"""The kinds of driftline_kernels.memory, FLOAT32 to UINT64 and BITS."""

MAX_LEVELS = 4
"""The most levels of nested lists that the kernel reads."""

_MAX_LAYOUTS = 256
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_NESTED = re.compile(rb"\[\s*\[")


class Unread(Exception):
    """The kernel does not read this; only orjson can tell what it is."""


class Numbers(NamedTuple):
    """Most likely a JSON array of numbers: text[start:stop], with its outer brackets."""

    text: bytes
    start: int
    stop: int


def load() -> None:
    """Load and compile the kernel, for a thread in the background; codecs use it from then on.

    It takes as long as importing Numba, and some seconds more the first time on a machine.
    """
    global _kernel, object_kernel
    compiling.load()
    from driftline_kernels import numbers as kernel
    from driftline_kernels import objects

    kernel.read(b"[1, 2.5]", 0, 8, np.empty(8, np.uint8), _KINDS[np.dtype("f4")], 0, 0, 0, 0)
    objects.read(b'{"a":1.5}', 0, 9, objects.build_template([b'{"a":'], [0]), np.empty((1, 1)))
    object_kernel = objects
    _kernel = kernel  # from here on all is ready


def ready(text: bytes) -> bool:
    """Return whether the kernel is loaded, and reads texts of this length."""
    return _kernel is not None and len(text) >> _kernel.INDEX_BITS == 0


def readable(spec: TensorSpec) -> bool:
    """Return whether the kernel reads this input's datatype; raw columns may have more than numbers."""
    return not spec.raw and spec.datatype.dtype in _KINDS


def key(name: str) -> re.Pattern[bytes]:
    """Return a pattern of a string in JSON: group 1 follows it if it is an array's key, 2 if a value."""
    return re.compile(rb'"%b"[ \t\n\r]*(?:(:[ \t\n\r]*\[)|([],}]))?' % name.encode())


def cut(text: bytes, key: re.Pattern[bytes]) -> tuple[Any, list[Numbers]]:
    """Return a JSON document with None for each array of numbers that is a value of a key, and the arrays.

    If the text with nulls is valid, each null is where an array was: without backslashes, the quotes around
    the key's name can only be its own, so it is not part of a string. The document has such a key for each of
    the arrays, in this order.

    Raises Unread if there is none, a value of the key does not look like one, or the text is not valid JSON.
    """
    parts: list[bytes] = []
    arrays: list[Numbers] = []
    cut_end = 0
    match = key.search(text)
    while match is not None:
        end = match.end()
        if match[1]:
            start = end - 1
            # Numbers have no quotes and no braces: the array ends at the last bracket before one.
            stop = text.find(b"}", start)
            quote = text.find(b'"', start, stop)
            end = text.rfind(b"]", start, stop if quote < 0 else quote) + 1
            parts.append(text[cut_end:start])
            arrays.append(Numbers(text, start, end))
            cut_end = end
        if match[1] is match[2] or end == 0:
            raise Unread
        match = key.search(text, end)
    parts.append(text[cut_end:])
    rest = b"null".join(parts)
    if not arrays or b"\\" in rest:
        raise Unread
    try:
        return orjson.loads(rest), arrays
    except orjson.JSONDecodeError:
        raise Unread from None


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensor that an array of numbers becomes, whether it is flat or nested in the text.

    count             of its numbers, each of `size` bytes
    kernel_arguments  their kind, and how many there are in a list of each level
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    count: int
    size: int
    kernel_arguments: tuple[int, int, int, int]

    @classmethod
    def of(cls, spec: TensorSpec, shape: tuple[int, ...]) -> Layout:
        """Return the layout of an input of this shape."""
        return cls._of(spec.datatype.dtype, shape)

    @classmethod
    def _of(cls, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Layout:
        levels = len(shape) if len(shape) <= MAX_LEVELS else 1
        row, plane, block = (prod(shape[-depth:]) if depth < levels else 0 for depth in (1, 2, 3))
        return cls(shape, dtype, prod(shape), dtype.itemsize, (_KINDS[dtype], row, plane, block))

    @property
    def lists(self) -> int:
        """The number of lists if it is nested: itself, those in it, and those in these."""
        return sum(prod(self.shape[:depth]) for depth in range(len(self.shape)))

    def reshaped(self, shape: tuple[int, ...]) -> Layout:
        """Return the layout of another shape of the same datatype."""
        return self._of(self.dtype, shape)


def read(numbers: Numbers, layout: Layout) -> tuple[Array, int]:
    """Return the tensor, and how many levels of lists the text has: one, or as many as dimensions.

    Raises Unread if it is not an array of this many numbers, or not of this datatype.
    """
    text, start, stop = numbers
    if 2 * layout.count > stop - start:  # each has a digit, and a comma or bracket after it
        raise Unread
    values = np.empty(layout.count * layout.size, np.uint8)
    result = _kernel.read(text, start, stop, values, *layout.kernel_arguments, 0)
    if result >= 0:
        result = _finish(result, numbers, values, layout)
    if result == _kernel.UNKNOWN:
        raise Unread
    return np.ndarray(layout.shape, layout.dtype, values), -result


class Rows:
    """Reads rows of an input, however many there are.

    name  of the input
    """

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        self._spec = spec
        self._layouts: dict[int, Layout] = {}  # by number of commas

    def read(self, numbers: Numbers) -> Array:
        """Return the input if each of its dimensions has brackets of its own; else raise Unread."""
        layout = self.layout(numbers)
        array, levels = read(numbers, layout)
        if levels != len(layout.shape):
            raise Unread
        return array

    def layout(self, numbers: Numbers) -> Layout:
        """Return the layout of the array if it is one; Unread if this many numbers make no rows."""
        text, start, stop = numbers
        commas = text.count(b",", start, stop)
        layout = self._layouts.get(commas)
        if layout is None:
            if len(self._layouts) == _MAX_LAYOUTS:
                self._layouts.clear()
            layout = self._layouts[commas] = self._layout(commas)
        return layout

    def _layout(self, commas: int) -> Layout:
        size = self._spec.shape[1:]
        shape = ((commas + 1) // max(1, prod(size)), *size)
        if min(shape) < 1 or not self._spec.accepts(shape):
            raise Unread
        return Layout.of(self._spec, shape)


def _finish(result: int, numbers: Numbers, values: Array, layout: Layout) -> int:
    """Continue where the kernel could not round a number: Python can."""
    text, start, stop = numbers
    kind, *levels = layout.kernel_arguments
    if not _NESTED.match(text, start):
        levels = [0, 0, 0]
    while result >= 0:
        position, index = result >> _kernel.INDEX_BITS, result % (1 << _kernel.INDEX_BITS)
        digits = _NUMBER.match(text, position)
        if digits is None or isinf(value := float(digits[0])):
            return int(_kernel.UNKNOWN)
        with np.errstate(over="ignore"):
            values.view(layout.dtype)[index] = value
        result = _kernel.read(text, digits.end(), stop, values, kind, *levels, index + 1)
    return int(result)
