"""What every inference protocol gives to the rooms below it, whatever its wire looks like."""

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
    outputs     names of the outputs wanted, in the order they were asked for
    binary      those of them to be answered as bytes
    timeout_us  the request's deadline in microseconds from its arrival; 0 for none
    by_row      whether a protocol that has both answers row by row, not output by output
    classes     how many classes an output is to tell, by its name, if any is; see protocols.classification
    """

    inputs: Tensors
    outputs: tuple[str, ...]
    binary: frozenset[str] = frozenset()
    id: str | None = None
    timeout_us: int = 0
    by_row: bool = False
    classes: Mapping[str, int] | None = None

    def of_inputs(self, inputs: Tensors) -> InferRequest:
        """The same request of other inputs."""
        return InferRequest(
            inputs, self.outputs, self.binary, self.id, self.timeout_us, self.by_row, self.classes
        )


def loads(text: bytes | memoryview) -> Any:
    """A request's JSON, which may have NaN and Infinity as Triton's has; BadRequest if it is none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if _NO_JSON.search(text) is not None:
            return python_loads(text)
        raise BadRequest(f"the request is not valid JSON: {error}") from error


def python_loads(text: bytes | memoryview) -> Any:
    """JSON as Python reads it and many a client writes it, with NaN and Infinity; else BadRequest."""
    try:
        content = bytes(text)
        characters = content.decode(json.detect_encoding(content))
        document = json.loads(characters)
        if "\\u" in characters:  # half of a pair of surrogates, which no model can compute with
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the request is not valid JSON: {error}") from None
    return document


def most_rows(signature: Signature, limits: Batching) -> int:
    """Rows that a table has at most if it may be a request: of a model that takes it whole, a byte each."""
    return limits.max_queue_rows if signature.batched else limits.max_queue_bytes


def check_most(came: int, most: int, what: str) -> None:
    """TooLarge if a request has more rows, say, than it may."""
    if came > most:
        raise TooLarge(f"the request: expected at most {most} {what}, came {came}")


class Codec(Protocol):
    """Reads requests to one version of a model and writes its answers.

    media_type  of its answers, unless bytes of tensors follow their JSON
    """

    media_type: ClassVar[bytes]

    def decode(self, body: bytes, json_length: int | None) -> InferRequest:
        """Read a request's body; BadRequest for whatever does not fit protocol or signature.

        json_length  where the body's JSON ends and the bytes of its tensors begin; None if it is all JSON
        """
        ...

    def encode(self, request: InferRequest, outputs: Tensors) -> tuple[bytes, int | None]:
        """The body of the answer, and where its JSON ends; None if it is all JSON."""
        ...


class Form(Protocol):
    """Requests that may run with others as one, as far as their bodies show."""

    @property
    def rows(self) -> int:
        """Of each."""
        ...

    def fits(self, body: bytes) -> bool:
        """Whether a body is one of these, if what stands for its values turns out to be such."""
        ...

    def read_all(self, bodies: Sequence[bytes]) -> InferRequest:
        """Bodies that fit as one request, of the rows of all; Unread if one of them is none after all."""
        ...


class JoiningCodec(Codec, Protocol):
    """One that reads and answers several requests together."""

    def form(self, body: bytes, json_length: int | None) -> Form | None:
        """The form of a request; None if it has to go alone."""
        ...

    def encode_all(
        self, request: InferRequest, outputs: Tensors, count: int
    ) -> list[tuple[bytes, int | None]]:
        """What `encode` gives for each of `count` requests of one form that ran as one request."""
        ...
