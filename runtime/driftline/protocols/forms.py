"""Requests that differ in their numbers only: what surrounds those is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from driftline.protocols.codec import InferRequest
from driftline.protocols.numbers import Layout, Numbers, Unread, read, ready
from driftline.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class Form:
    """A request of one array of numbers, but for these.

    before, behind  the text around the array
    name            of the input; the rest is as in InferRequest
    """

    before: bytes
    behind: bytes
    name: str
    layout: Layout
    outputs: tuple[str, ...]
    binary: frozenset[str]
    timeout_us: int

    @classmethod
    def of(cls, numbers: Numbers, spec: TensorSpec, request: InferRequest) -> Form:
        """The form of a request without an id, as it was read with these numbers for its only input."""
        text, start, stop = numbers
        layout = Layout.of(spec, request.inputs[spec.name].shape)
        before, behind = text[:start], text[stop:]
        return cls(before, behind, spec.name, layout, request.outputs, request.binary, request.timeout_us)

    @property
    def size(self) -> int:
        """Characters around the numbers."""
        return len(self.before) + len(self.behind)

    @property
    def plain(self) -> bool:
        """Whether all is JSON and nothing is in a hurry."""
        return not self.binary and not self.timeout_us

    def fits(self, text: bytes) -> bool:
        """Whether a text is one of these, if what stands between turns out to be an array of numbers."""
        return text.startswith(self.before) and text.endswith(self.behind)

    def read(self, text: bytes) -> InferRequest:
        """The request that a text which fits is; Unread if it is none after all."""
        numbers = Numbers(text, len(self.before), len(text) - len(self.behind))
        array, _ = read(numbers, self.layout)
        return InferRequest({self.name: array}, self.outputs, self.binary, None, self.timeout_us)

    def read_all(self, texts: Sequence[bytes]) -> InferRequest:
        """Requests that fit, each of as many rows, as one request: their arrays become one of arrays.

        Raises Unread if any of them is none after all, or not nested as the first is.
        """
        start, behind = len(self.before), len(self.behind)
        nested = texts[0].startswith(b"[", start + 1)
        shape = (len(texts), *(self.layout.shape if nested else (self.layout.count,)))
        layout = self.layout.reshaped(shape)
        text = b"[%b]" % b",".join([text[start : len(text) - behind] for text in texts])
        if not ready(text):
            raise Unread
        array, levels = read(Numbers(text, 0, len(text)), layout)
        if levels != len(shape):
            raise Unread
        rows, *others = self.layout.shape
        inputs = {self.name: array.reshape(rows * len(texts), *others)}
        return InferRequest(inputs, self.outputs, self.binary, None, self.timeout_us)
