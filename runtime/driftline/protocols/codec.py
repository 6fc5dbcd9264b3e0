"""The interface of an inference protocol, independent of its wire format."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import orjson

from driftline.config import Batching
from driftline.errors import BadRequest, TooLarge
from driftline.tensors import Signature, Tensors

_NO_JSON = re.compile(rb"NaN|Infinity")


@dataclass(slots=True)
class InferRequest:
    """A decoded request.

    inputs      the model's input tensors, in the signature's order
    outputs     names of the outputs wanted, in the order of the request
    binary      those of them that are returned as bytes
    timeout_us  the request's deadline in microseconds from its arrival; 0 for none
    by_row      whether the response is row by row, not output by output, in a protocol that has both
    classes     how many classes to return, by output, if any are requested; see protocols.classification
    """

    inputs: Tensors
    outputs: tuple[str, ...]
    binary: frozenset[str] = frozenset()
    id: str | None = None
    timeout_us: int = 0
    by_row: bool = False
    classes: Mapping[str, int] | None = None

    def of_inputs(self, inputs: Tensors) -> InferRequest:
        """Return the same request with other inputs."""
        return InferRequest(
            inputs, self.outputs, self.binary, self.id, self.timeout_us, self.by_row, self.classes
        )


def loads(text: bytes | memoryview) -> Any:
    """Parse a request's JSON, which may have NaN and Infinity as in Triton; BadRequest if it is invalid."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if _NO_JSON.search(text) is not None:
            return python_loads(text)
        raise BadRequest(f"the request is not valid JSON: {error}") from error


def python_loads(text: bytes | memoryview) -> Any:
    """Parse JSON as Python and many clients write it, with NaN and Infinity; BadRequest if it is invalid."""
    try:
        content = bytes(text)
        characters = content.decode(json.detect_encoding(content))
        document = json.loads(characters)
        if "\\u" in characters:  # a lone surrogate, which no model can process
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the request is not valid JSON: {error}") from None
    return document


def row_limit(signature: Signature, limits: Batching) -> int:
    """Return how many rows a request's table may have; if the model is not batched, as many as bytes."""
    return limits.max_queue_rows if signature.batched else limits.max_queue_bytes


def check_limit(actual: int, limit: int, unit: str) -> None:
    """Raise TooLarge if a request has more rows, say, than it may."""
    if actual > limit:
        raise TooLarge(f"the request: expected at most {limit} {unit}, got {actual}")


class Codec(Protocol):
    """Reads requests to one version of a model and writes its responses.

    media_type  of its responses, unless bytes of tensors follow their JSON
    """

    media_type: ClassVar[bytes]

    def decode(self, body: bytes, json_length: int | None) -> InferRequest:
        """Read a request's body; BadRequest if it does not fit the protocol or the signature.

        json_length  where the body's JSON ends and the bytes of its tensors begin; None if it is all JSON
        """
        ...

    def encode(self, request: InferRequest, outputs: Tensors) -> tuple[bytes, int | None]:
        """Return the body of the response, and where its JSON ends; None if it is all JSON."""
        ...


class Form(Protocol):
    """Requests that may run with others as one, judging by their bodies."""

    @property
    def rows(self) -> int:
        """The number of rows of each."""
        ...

    def fits(self, body: bytes) -> bool:
        """Return whether a body is one of these, provided that its values turn out to be valid."""
        ...

    def read_all(self, bodies: Sequence[bytes]) -> InferRequest:
        """Read bodies that fit as one request with the rows of all; Unread if one turns out not to fit."""
        ...


class JoiningCodec(Codec, Protocol):
    """A codec that reads and answers several requests together."""

    def form(self, body: bytes, json_length: int | None) -> Form | None:
        """Return the form of a request; None if it has to run alone."""
        ...

    def encode_all(
        self, request: InferRequest, outputs: Tensors, count: int
    ) -> list[tuple[bytes, int | None]]:
        """Return what `encode` does for each of `count` requests of one form that ran as one request."""
        ...
