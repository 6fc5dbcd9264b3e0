"""KServe's v1 protocol, which is TensorFlow Serving's: instances in, predictions out."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Sequence
from typing import Any, ClassVar

import orjson

from driftline.blocks import Blocks
from driftline.errors import BadRequest, shown
from driftline.protocols import numbers
from driftline.protocols.codec import InferRequest, loads
from driftline.protocols.forms import NumberForm
from driftline.protocols.objects import Objects
from driftline.protocols.rows import END, RowForm
from driftline.tensors import Array, Signature, Tensors

_SHORT = 300
"""Characters below which the kernel saves nothing."""

_OPENING = re.compile(rb'[ \t\n\r]*\{[ \t\n\r]*"(instances|inputs)"[ \t\n\r]*:[ \t\n\r]*(?=\[)')


class V1Codec:
    """Reads `:predict` requests to one version of a model and writes its responses.

    `{"instances": [...]}` has an entry for each row: its value, or an object of values by input name, where 1
    stands for [1] if an input is (rows, 1).
    `{"inputs": ...}` has the tensors: the value of the only one, or an object of them by input name.
    `{"b64": "..."}` stands for the bytes of a string, unless an input has that name.
    The response is `{"predictions": [...]}`, with an entry for each row: its value, or an object of values by
    output name if the model has several.
    """

    media_type: ClassVar[bytes] = b"application/json"

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._outputs = tuple(spec.name for spec in signature.outputs)
        self._is_numeric = len(signature.inputs) == 1 and numbers.readable(signature.inputs[0])
        self._rows = numbers.Rows(signature.inputs[0])
        self._batched = signature.batched
        all_doubles = signature.raw and {spec.datatype.name for spec in signature.inputs} == {"FP64"}
        self._names = tuple(spec.name for spec in signature.inputs)
        has_strings = any(spec.datatype.name == "BYTES" for spec in signature.inputs)
        self._decodes_base64 = has_strings and "b64" not in self._names
        self._objects = Objects(self._names) if all_doubles and signature.batched else None

    def decode(self, body: bytes, json_length: int | None = None) -> InferRequest:
        """Read a request's body; BadRequest if it does not fit the signature."""
        if self._is_numeric and len(body) >= _SHORT and numbers.ready(body):
            try:
                return InferRequest(self._read_numbers(body), self._outputs)
            except numbers.Unread:
                pass
        if self._objects is not None and (opening := _OPENING.match(body)) is not None:
            try:
                return self._read_objects(body, opening, self._objects)
            except numbers.Unread:
                pass
        document = loads(body)
        keys = [key for key in ("instances", "inputs") if type(document) is dict and key in document]
        if len(keys) != 1:
            raise BadRequest(f"the request: expected one of 'instances' and 'inputs', got {shown(document)}")
        value = document[keys[0]]
        if self._decodes_base64 and b'"b64"' in body:
            value = decode_base64(value)
        if keys == ["inputs"]:
            inputs = self._signature.inputs_of(value)
        else:
            inputs = inputs_of_rows(self._signature, value)
        return InferRequest(inputs, self._outputs)

    def _read_numbers(self, body: bytes) -> Tensors:
        """Return the input of a model with one, if the body has only its numbers; else raise Unread."""
        opening, stop = _OPENING.match(body), body.rfind(b"]") + 1
        if opening is None or END.match(body, stop) is None:
            raise numbers.Unread
        return {self._signature.inputs[0].name: self._rows.read(numbers.Numbers(body, opening.end(), stop))}

    def _read_objects(self, body: bytes, opening: re.Match[bytes], objects: Objects) -> InferRequest:
        """Read a request of rows of raw columns that are all numbers; else raise Unread."""
        stop = body.rfind(b"]")
        if opening[1] != b"instances" or END.match(body, stop + 1) is None:
            raise numbers.Unread
        return self._request_of_matrix(objects.read(body, opening.end() + 1, stop))

    def _request_of_matrix(self, matrix: Array) -> InferRequest:
        return InferRequest(Blocks(self._names, [matrix.T]), self._outputs)

    def encode(self, request: InferRequest, outputs: Tensors) -> tuple[bytes, int | None]:
        """Return the body of the response; NaN and infinity, which JSON lacks, are null."""
        return orjson.dumps({"predictions": self._predictions(request, outputs)}), None

    def _predictions(self, request: InferRequest, outputs: Tensors) -> Any:
        columns = {name: outputs[name].tolist() for name in request.outputs}
        if len(columns) == 1:
            return columns[self._outputs[0]]
        if not self._signature.batched:
            return columns
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    # -- several requests together --------------------------------------------------------------

    def form(self, body: bytes, json_length: int | None) -> RowForm | NumberForm | None:
        """Return the text around a row of raw columns, or around rows of numbers; see JoiningCodec.

        Requests with equally many rows of numbers may run as one.
        """
        opening = _OPENING.match(body) if self._batched else None
        if opening is None:
            return None
        if self._is_numeric:
            return self._form_of_numbers(body, opening.end())
        if opening[1] != b"instances" or not self._signature.raw:
            return None
        return RowForm.of(self, body, opening.end() + 1)

    def _form_of_numbers(self, body: bytes, start: int) -> NumberForm | None:
        stop = body.rfind(b"]") + 1
        if END.match(body, stop) is None:
            return None
        request = InferRequest({}, self._outputs)
        return NumberForm.of_rows(numbers.Numbers(body, start, stop), self._rows, request)

    def read_rows(self, rows: Sequence[bytes]) -> InferRequest:
        """See RowReader.

        Each row begins with its only opening brace, or is separated by a line break, which no JSON string may
        contain: a client's row never becomes its neighbour's.
        """
        if self._objects is not None:
            try:
                return self._request_of_matrix(self._objects.read_rows(rows))
            except numbers.Unread:
                pass
        try:
            lists = orjson.loads(b"[[%b]]" % b"],\n[".join(rows))
        except orjson.JSONDecodeError:
            raise numbers.Unread from None
        if len(lists) != len(rows) or {*map(type, lists)} != {list} or {*map(len, lists)} != {1}:
            raise numbers.Unread
        inputs = self._signature.blocks_of_rows([row for (row,) in lists])
        if inputs is None:
            raise numbers.Unread
        return InferRequest(inputs, self._outputs)

    def encode_all(
        self, request: InferRequest, outputs: Tensors, count: int
    ) -> list[tuple[bytes, int | None]]:
        """Return what `encode` does for each of `count` requests of equally many rows that ran as one."""
        rows = self._predictions(request, outputs)
        size = len(rows) // count
        return [
            (orjson.dumps({"predictions": rows[first : first + size]}), None)
            for first in range(0, len(rows), size)
        ]


def decode_base64(value: object) -> object:
    """Replace each `{"b64": "..."}` in a value by its bytes; BadRequest if one is not base64."""
    try:
        return _decode_base64(value)
    except RecursionError:
        raise BadRequest("the request: expected fewer levels of nested lists") from None


def _decode_base64(value: Any) -> object:
    if type(value) is list:
        return list(map(_decode_base64, value))
    if type(value) is not dict:
        return value
    encoded = value.get("b64")
    if len(value) > 1 or type(encoded) is not str:
        return {name: _decode_base64(item) for name, item in value.items()}
    try:
        return b64decode(encoded, validate=True)
    except ValueError as error:
        raise BadRequest(f"'b64': expected base64, got {shown(encoded)}: {error}") from None


def inputs_of_rows(signature: Signature, instances: object) -> Tensors:
    """Return a model's input tensors from rows: values, or objects of values by input name.

    Raises BadRequest if they do not fit the signature.
    """
    blocks = signature.blocks_of_rows(instances) if type(instances) is list else None
    if blocks is not None:
        return blocks
    columns = columns_of(instances)
    if type(columns) is dict:
        for spec in signature.inputs:
            values = columns.get(spec.name)
            if values and spec.shape[1:] == (1,) and list not in map(type, values):
                columns[spec.name] = [[value] for value in values]
    return signature.inputs_of(columns)


def columns_of(instances: object) -> object:
    """Convert rows of `{name: value}` to columns by name; return other rows unchanged."""
    if type(instances) is not list:
        raise BadRequest(f"'instances': expected a list of rows, got {shown(instances)}")
    if not instances:
        raise BadRequest("'instances': expected at least one row, got none")
    if type(instances[0]) is not dict:
        return instances
    names = instances[0].keys()
    for position, row in enumerate(instances):
        if type(row) is not dict or row.keys() != names:
            raise BadRequest(
                f"instance {position}: expected the keys {', '.join(names)} of the first one, "
                f"got {shown(row)}"
            )
    return {name: [row[name] for row in instances] for name in names}
