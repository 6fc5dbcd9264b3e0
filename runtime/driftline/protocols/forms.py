"""Requests that differ in their numbers only: what surrounds those is read once."""

from __future__ import annotations

from dataclasses import dataclass

from driftline.protocols.codec import InferRequest
from driftline.protocols.numbers import Layout, Numbers, read
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

    def fits(self, text: bytes) -> bool:
        """Whether a text is one of these, if what stands between turns out to be an array of numbers."""
        return text.startswith(self.before) and text.endswith(self.behind)

    def read(self, text: bytes) -> InferRequest:
        """The request that a text which fits is; Unread if it is none after all."""
        numbers = Numbers(text, len(self.before), len(text) - len(self.behind))
        array, _ = read(numbers, self.layout)
        return InferRequest({self.name: array}, self.outputs, self.binary, None, self.timeout_us)
