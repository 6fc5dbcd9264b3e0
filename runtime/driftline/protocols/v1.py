"""KServe's v1 protocol, which is TensorFlow Serving's: instances in, predictions out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import orjson

from driftline.errors import BadRequest
from driftline.protocols import numbers
from driftline.protocols.codec import InferRequest
from driftline.tensors import Signature, Tensors, shorten

_SHORT = 300
"""Characters below which the kernel saves nothing."""

_BEFORE = re.compile(rb'[ \t\n\r]*\{[ \t\n\r]*"(instances|inputs)"[ \t\n\r]*:[ \t\n\r]*(?=\[)')
_BEHIND = re.compile(rb"[ \t\n\r]*\}[ \t\n\r]*\Z")


class V1Codec:
    """Reads `:predict` requests to one version of a model and writes its answers.

    `{"instances": [...]}` has an entry a row: its value, or an object of values by input name.
    `{"inputs": ...}` has the tensors: the value of the only one, or an object of them by input name.
    The answer is `{"predictions": [...]}`, an entry a row: its value, or an object of values by output
    name if the model has several.
    """

    media_type: ClassVar[bytes] = b"application/json"

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._outputs = tuple(spec.name for spec in signature.outputs)
        self._of_numbers = len(signature.inputs) == 1 and numbers.readable(signature.inputs[0])
        self._rows = numbers.Rows(signature.inputs[0])
        self._joins = signature.batched and signature.raw

    def decode(self, body: bytes, json_length: int | None = None) -> InferRequest:
        """Read a request's body; BadRequest for whatever does not fit the signature."""
        if self._of_numbers and len(body) >= _SHORT and numbers.ready(body):
            try:
                return InferRequest(self._read_numbers(body), self._outputs)
            except numbers.Unread:
                pass
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"the request is no valid JSON: {error}") from error
        given = [key for key in ("instances", "inputs") if type(document) is dict and key in document]
        if len(given) != 1:
            raise BadRequest(
                f"the request: expected one of 'instances' and 'inputs', came {shorten(document)}"
            )
        if given == ["inputs"]:
            inputs = self._signature.inputs_of(document["inputs"])
        else:
            inputs = inputs_of_rows(self._signature, document["instances"])
        return InferRequest(inputs, self._outputs)

    def _read_numbers(self, body: bytes) -> Tensors:
        """The input of a model of one, if its numbers are all there is in the body; else Unread."""
        before, stop = _BEFORE.match(body), body.rfind(b"]") + 1
        if before is None or _BEHIND.match(body, stop) is None:
            raise numbers.Unread
        return {self._signature.inputs[0].name: self._rows.read(numbers.Numbers(body, before.end(), stop))}

    def encode(self, request: InferRequest, outputs: Tensors) -> tuple[bytes, int | None]:
        """The body of the answer; NaN and infinity, which JSON has not, are null."""
        return orjson.dumps({"predictions": self._predictions(request, outputs)}), None

    def _predictions(self, request: InferRequest, outputs: Tensors) -> Any:
        columns = {name: outputs[name].tolist() for name in request.outputs}
        if len(columns) == 1:
            return columns[self._outputs[0]]
        if not self._signature.batched:
            return columns
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    # -- several requests together --------------------------------------------------------------

    def form(self, body: bytes, json_length: int | None) -> Self | None:
        """Itself, since all requests of one row of raw columns may run as one."""
        return self if self._joins and self.fits(body) else None

    def fits(self, body: bytes) -> bool:
        """Whether a body is rows, if what stands for them turns out to be such."""
        before = _BEFORE.match(body)
        return (
            before is not None
            and before[1] == b"instances"
            and body.count(b"[") == body.count(b"]") == 1
            and _BEHIND.match(body, body.find(b"]") + 1) is not None
        )

    def read_all(self, bodies: Sequence[bytes]) -> InferRequest:
        """Bodies that fit as one request of a row for each; Unread if one of them is otherwise.

        Each has one pair of brackets, and a line's end comes between, which no JSON text may have in it: so
        each is one list of those that are read here, and a client's row never becomes its neighbour's.
        """
        texts = [body[body.find(b"[") : body.find(b"]") + 1] for body in bodies]
        try:
            lists = orjson.loads(b"[%b]" % b",\n".join(texts))
        except orjson.JSONDecodeError:
            raise numbers.Unread from None
        if len(lists) != len(bodies) or {*map(type, lists)} != {list} or {*map(len, lists)} != {1}:
            raise numbers.Unread
        inputs = self._signature.blocks_of_rows([row for (row,) in lists])
        if inputs is None:
            raise numbers.Unread
        return InferRequest(inputs, self._outputs)

    def encode_all(
        self, request: InferRequest, outputs: Tensors, count: int
    ) -> list[tuple[bytes, int | None]]:
        """What `encode` gives for each of `count` requests of a row that ran as one request."""
        rows = self._predictions(request, outputs)
        return [(orjson.dumps({"predictions": [row]}), None) for row in rows]


def inputs_of_rows(signature: Signature, instances: object) -> Tensors:
    """A model's input tensors out of rows: values, or objects of values by input name.

    Raises BadRequest for what does not fit the signature.
    """
    blocks = signature.blocks_of_rows(instances) if type(instances) is list else None
    return signature.inputs_of(columns_of(instances)) if blocks is None else blocks


def columns_of(instances: object) -> object:
    """Rows of `{name: value}` as columns by name; other rows as they are."""
    if type(instances) is not list or not instances:
        raise BadRequest(f"'instances': expected a list of rows, came {shorten(instances)}")
    if type(instances[0]) is not dict:
        return instances
    names = instances[0].keys()
    for position, row in enumerate(instances):
        if type(row) is not dict or row.keys() != names:
            raise BadRequest(
                f"instance {position}: expected the keys {', '.join(names)} of the first one, "
                f"came {shorten(row)}"
            )
    return {name: [row[name] for row in instances] for name in names}
