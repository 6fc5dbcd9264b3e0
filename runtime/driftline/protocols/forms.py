"""Requests that differ in their numbers only: the text around those is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from driftline.protocols import codec
from driftline.protocols.codec import InferRequest
from driftline.protocols.numbers import MAX_LEVELS, Layout, Numbers, Rows, Unread, read, ready
from driftline.tensors import TensorSpec


class Form(codec.Form, Protocol):
    """A request with one input of numbers, without the numbers themselves."""

    @property
    def request(self) -> InferRequest:
        """The request, without inputs."""
        ...

    def read(self, body: bytes) -> InferRequest:
        """Read a body that fits; Unread if it turns out not to fit."""
        ...


@dataclass(frozen=True, slots=True)
class TextForm:
    """A form whose numbers are in its JSON.

    prefix, suffix  the text around the array
    name            of the input
    """

    prefix: bytes
    suffix: bytes
    name: str
    layout: Layout
    request: InferRequest

    @classmethod
    def of(cls, numbers: Numbers, spec: TensorSpec, request: InferRequest) -> TextForm:
        """Return the form of a request without an id that was read, with these numbers as its only input."""
        text, start, stop = numbers
        layout = Layout.of(spec, request.inputs[spec.name].shape)
        return cls(text[:start], text[stop:], spec.name, layout, replace(request, inputs={}))

    @property
    def length(self) -> int:
        """The number of characters around the numbers."""
        return len(self.prefix) + len(self.suffix)

    @property
    def rows(self) -> int:
        """See Form."""
        return self.layout.shape[0]

    def fits(self, text: bytes) -> bool:
        """See Form."""
        return text.startswith(self.prefix) and text.endswith(self.suffix)

    def read(self, text: bytes) -> InferRequest:
        """See Form."""
        numbers = Numbers(text, len(self.prefix), len(text) - len(self.suffix))
        array, _ = read(numbers, self.layout)
        return self.request.of_inputs({self.name: array})

    def read_all(self, texts: Sequence[bytes]) -> InferRequest:
        """See Form: their arrays become one array of arrays, all nested like the first."""
        start, suffix_length = len(self.prefix), len(self.suffix)
        arrays = [text[start : len(text) - suffix_length] for text in texts]
        nested = arrays[0].startswith(b"[", 1)
        # Each is one list with the right number of lists in it, and the kernel checks that each of those has
        # the same number of numbers: a client's row must never become its neighbour's.
        lists = self.layout.lists
        if not all(_has_lists(array, lists) if nested else _is_flat_list(array) for array in arrays):
            raise Unread
        shape = (len(texts), *(self.layout.shape if nested else (self.layout.count,)))
        if len(shape) > MAX_LEVELS:
            raise Unread
        layout = self.layout.reshaped(shape)
        text = b"[%b]" % b",".join(arrays)
        if not ready(text):
            raise Unread
        array, levels = read(Numbers(text, 0, len(text)), layout)
        if levels != len(shape):
            raise Unread
        rows, *dimensions = self.layout.shape
        return self.request.of_inputs({self.name: array.reshape(rows * len(texts), *dimensions)})


@dataclass(frozen=True, slots=True)
class NumberForm(TextForm):
    """A form whose JSON does not say how many rows there are: all have as many as the first."""

    @classmethod
    def of_rows(cls, numbers: Numbers, rows: Rows, request: InferRequest) -> NumberForm | None:
        """Return the form of a request whose input these most likely are; None if it has to run alone.

        request  without inputs
        """
        text, start, stop = numbers
        try:
            layout = rows.layout(numbers)
        except Unread:
            return None
        if text.startswith(b"[", start + 1) != (len(layout.shape) > 1):
            return None
        form = cls(text[:start], text[stop:], rows.name, layout, request)
        return form if form.fits(text) else None

    def fits(self, text: bytes) -> bool:
        """See Form."""
        if not TextForm.fits(self, text):
            return False
        start, stop = len(self.prefix), len(text) - len(self.suffix)
        if len(self.layout.shape) == 1:
            return text.count(b",", start, stop) == self.layout.count - 1
        return text.count(b"[", start, stop) == self.layout.lists


@dataclass(frozen=True, slots=True)
class BinaryForm:
    """A form whose numbers are bytes after its JSON, which is `text`."""

    text: bytes
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    size: int
    request: InferRequest

    @classmethod
    def of(cls, text: bytes, spec: TensorSpec, request: InferRequest) -> BinaryForm:
        """Return the form of a request that was read, with all of its only input after this text."""
        array = request.inputs[spec.name]
        return cls(text, spec.name, array.dtype, array.shape, array.nbytes, replace(request, inputs={}))

    @property
    def rows(self) -> int:
        """See Form."""
        return self.shape[0]

    def fits(self, body: bytes) -> bool:
        """See Form."""
        return len(body) == len(self.text) + self.size and body.startswith(self.text)

    def read(self, body: bytes) -> InferRequest:
        """See Form."""
        return self.read_all((body,))

    def read_all(self, bodies: Sequence[bytes]) -> InferRequest:
        """See Form."""
        start = len(self.text)
        values = np.frombuffer(b"".join([body[start:] for body in bodies]), self.dtype)
        rows, *dimensions = self.shape
        return self.request.of_inputs({self.name: values.reshape(rows * len(bodies), *dimensions)})


def _is_flat_list(array: bytes) -> bool:
    """Return whether a text has the brackets of a list without lists in it."""
    return array.startswith(b"[") and array.find(b"[", 1) < 0 and array.find(b"]") == len(array) - 1


def _has_lists(array: bytes, lists: int) -> bool:
    """Return whether a text has the brackets of this many lists."""
    return array.count(b"[") == array.count(b"]") == lists
