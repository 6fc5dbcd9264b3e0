"""The Open Inference Protocol v2 over REST, with Triton's binary tensors.

Specification: https://github.com/kserve/open-inference-protocol and Triton's "Binary tensor data" extension.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, ClassVar

import orjson

from driftline.blocks import Blocks
from driftline.errors import BadRequest, shown
from driftline.protocols import binary, classification, fields, numbers
from driftline.protocols.codec import InferRequest, loads
from driftline.protocols.forms import BinaryForm, Form, TextForm
from driftline.tensors import Array, Signature, Tensors, TensorSpec, as_column, coerce

_INTEGER = {int}
_DATA = numbers.key("data")
_COLUMN_KEYS = ("name", "datatype", "shape", "data")
_SHORT = 2_000
"""Characters below which cutting a text costs more than the kernel saves."""

_MAX_FORMS = 64
_MAX_FORM_LENGTH = 1_000
"""The most characters around the numbers of a form that is kept."""


class V2Codec:
    """Reads requests to one version of a model and writes its responses."""

    media_type: ClassVar[bytes] = b"application/json"

    def __init__(self, signature: Signature, name: str, version: int) -> None:
        self._signature = signature
        self._inputs = {spec.name: spec for spec in signature.inputs}
        self._outputs = {spec.name: spec for spec in signature.outputs}
        self._all_outputs = tuple(self._outputs)
        self._batched = signature.batched
        self._forms: dict[bytes, Form] = {}
        self._binary_forms: dict[bytes, Form] = {}
        self._numeric_outputs = {spec.name for spec in signature.outputs if spec.datatype.dtype != object}
        self._is_numeric = all(map(numbers.readable, signature.inputs))
        # What all responses share is written once; orjson would spend more on it than on the numbers.
        self._opening = orjson.dumps({"model_name": name, "model_version": str(version)})[:-1] + b","
        self._entries = {spec.name: _entry(spec.name, spec.datatype.name) for spec in signature.outputs}

    # -- requests -----------------------------------------------------------------------------

    def decode(self, body: bytes, json_length: int | None = None) -> InferRequest:
        """Read a request's body.

        json_length  the header Inference-Header-Content-Length: where the JSON ends and the bytes of the
                     tensors begin; 0 if the whole body is one tensor; None if it is all JSON

        Raises BadRequest if it does not fit the protocol or the model's signature.
        """
        if json_length is None:
            return self._decode_json(body, memoryview(b""))
        if not 0 <= json_length <= len(body):
            raise BadRequest(
                f"Inference-Header-Content-Length: expected 0 to the body's length of {len(body)}, "
                f"got {json_length}"
            )
        view = memoryview(body)
        if json_length == 0:
            return self._decode_raw(view)
        form = self._binary_forms.get(body[:json_length])
        if form is not None and form.fits(body):
            return form.read(body)
        request = self._decode_json(view[:json_length], view[json_length:])
        single = self._is_numeric and len(self._inputs) == 1 and not request.classes
        if single and json_length <= _MAX_FORM_LENGTH:
            (spec,) = self._inputs.values()
            if len(body) - json_length == request.inputs[spec.name].nbytes and spec.datatype.dtype != bool:
                remember(
                    self._binary_forms, body[:json_length], BinaryForm.of(body[:json_length], spec, request)
                )
        return request

    def _decode_json(self, text: bytes | memoryview, tail: memoryview) -> InferRequest:
        if self._is_numeric and type(text) is bytes and numbers.ready(text):
            try:
                return self._read_numbers(text)
            except (numbers.Unread, BadRequest):
                pass  # the error is reported for the original text
        return self.read(loads(text), tail)

    def _read_numbers(self, text: bytes) -> InferRequest:
        """Read a request whose inputs are arrays of numbers; Unread or BadRequest if it is anything else.

        If requests differ in their numbers only, the text around those is read once. Any other short text is
        Unread: orjson reads it faster than it can be cut.
        """
        head = text[: max(0, text.find(b'"data"'))]
        form = self._forms.get(head)
        if form is not None and form.fits(text):
            return form.read(text)
        single = len(self._inputs) == 1
        if len(text) < _SHORT and (form is not None or not single or b'"id"' in text):
            raise numbers.Unread
        document, arrays = numbers.cut(text, _DATA)
        request = self.read(_with_arrays(document, arrays))
        if single and request.id is None and not request.classes:
            (spec,) = self._inputs.values()
            form_of_request = TextForm.of(arrays[0], spec, request)
            if form_of_request.length <= _MAX_FORM_LENGTH:
                remember(self._forms, head, form_of_request)
        return request

    # -- several requests together --------------------------------------------------------------

    def form(self, body: bytes, json_length: int | None) -> Form | None:
        """Return the form of a request that may run, and be answered, with others as one; None for others."""
        if json_length is None:
            form = self._forms.get(body[: max(0, body.find(b'"data"'))])
        else:
            form = self._binary_forms.get(body[:json_length])
        if form is None or not self._batched or form.request.timeout_us or not form.fits(body):
            return None
        return form if self._numeric_outputs.issuperset(form.request.outputs) else None

    def encode_all(
        self, request: InferRequest, outputs: Tensors, count: int
    ) -> list[tuple[bytes, int | None]]:
        """Return what `encode` does for each of `count` requests of one form that ran as one request."""
        columns, tails = [], []
        for name in request.outputs:
            array = outputs[name]
            shape = orjson.dumps((len(array) // count, *array.shape[1:]))
            if name in request.binary:
                data = binary.encode(array)
                size = len(data) // count
                tails.append([data[first : first + size] for first in range(0, size * count, size or 1)])
                contents = [b'"parameters":{"binary_data_size":%d}' % size] * count
            else:
                rows = orjson.dumps(array.reshape(count, -1), option=orjson.OPT_SERIALIZE_NUMPY)
                contents = [b'"data":[%b]' % row for row in rows[2:-2].split(b"],[")]
            prefix = self._entries[name] + shape + b","
            columns.append([b"%b%b}" % (prefix, content) for content in contents])
        id_field = b'"id":%b,' % orjson.dumps(request.id) if request.id is not None else b""
        opening = b'%b%b"outputs":[' % (self._opening, id_field)
        texts = [b"%b%b]}" % (opening, b",".join(entries)) for entries in zip(*columns, strict=True)]
        if not request.binary:
            return [(text, None) for text in texts]
        return [(b"".join(parts), len(parts[0])) for parts in zip(texts, *tails, strict=True)]

    def read(self, document: object, tail: memoryview = memoryview(b"")) -> InferRequest:  # noqa: B008 - of nothing
        """Read a request whose data are lists, memoryviews of bytes, or in `tail`; see decode."""
        if type(document) is not dict:
            raise BadRequest(f"the request: expected an object with 'inputs', got {shown(document)}")
        request = InferRequest(self._read_inputs(document.get("inputs"), tail), self._all_outputs)
        all_binary = False
        if "parameters" in document:
            parameters = fields.parameters_of(document, "the request")
            request.timeout_us = fields.integer(parameters, "the request", "timeout")
            all_binary = fields.boolean(parameters, "the request", "binary_data_output")
            if all_binary:
                request.binary = frozenset(self._all_outputs)
        if document.get("outputs") not in (None, []):
            self._read_outputs(document["outputs"], all_binary, request)
        request.id = fields.string(document, "id")
        return request

    def _read_inputs(self, entries: object, tail: memoryview) -> Tensors:
        if type(entries) is not list or not entries:
            raise BadRequest(f"'inputs': expected a list of tensors, got {shown(entries)}")
        blocks = None if tail else self._read_columns(entries)
        if blocks is not None:
            return blocks
        tensors: dict[str, Array] = {}
        for entry in entries:
            spec = self._spec_of(entry, tensors)
            array, tail = self._read_input(spec, entry, tail)
            tensors[spec.name] = as_column(spec, array) if spec.raw else array
        if tail:
            raise BadRequest(f"the body has {len(tail)} bytes more than its inputs account for")
        if len(tensors) != len(self._inputs):
            missing = next(spec for name, spec in self._inputs.items() if name not in tensors)
            raise BadRequest(
                f"input {missing.name!r}: expected {missing.datatype.name} {list(missing.shape)}, got nothing"
            )
        return {name: tensors[name] for name in self._inputs} if len(tensors) > 1 else tensors

    def _read_columns(self, entries: list[Any]) -> Blocks | None:
        """Read raw columns in JSON all at once; None for anything more complex, or wrong."""
        columns: dict[str, Any] = {}
        for entry in entries:
            if type(entry) is not dict or len(entry) != len(_COLUMN_KEYS):
                return None
            name, datatype, shape, data = map(entry.get, _COLUMN_KEYS)
            spec = self._inputs.get(name) if type(name) is str else None
            if spec is None or not spec.raw or datatype != spec.datatype.name or type(data) is not list:
                return None
            if shape not in ([len(data)], [len(data), 1]) or not _INTEGER.issuperset(map(type, shape)):
                return None
            if name in columns:
                return None
            columns[spec.name] = data
        return self._signature.blocks(columns)

    def _spec_of(self, entry: object, seen: Mapping[str, object]) -> TensorSpec:
        name = entry.get("name") if type(entry) is dict else None
        spec = self._inputs.get(name) if type(name) is str else None
        if spec is None:
            wrong_name = shown(entry if name is None else name)
            raise BadRequest(
                f"input {wrong_name}: the model has no such input; it has: {', '.join(self._inputs)}"
            )
        if name in seen:
            raise BadRequest(f"input {name!r}: expected once, got twice")
        return spec

    def _read_input(
        self, spec: TensorSpec, entry: Mapping[str, Any], tail: memoryview
    ) -> tuple[Array, memoryview]:
        """Return one input's tensor, and the rest of the bytes after the JSON."""
        sent_spec = fields.with_datatype(spec, entry.get("datatype"))
        shape = fields.shape_of(spec, entry.get("shape"))
        count = prod(shape)
        if "parameters" in entry:
            where = f"input {spec.name!r}"
            parameters = fields.parameters_of(entry, where)
            if "binary_data_size" in parameters:
                size = fields.integer(parameters, where, "binary_data_size")
                if size > len(tail):
                    raise BadRequest(
                        f"{where}: expected {size} bytes of binary data after the JSON, got {len(tail)}"
                    )
                return binary.decode(sent_spec, tail[:size], shape, count), tail[size:]
        data = entry.get("data")
        if type(data) is numbers.Numbers:
            return numbers.read(data, numbers.Layout.of(spec, shape))[0], tail
        if type(data) is not list:
            if type(data) is memoryview:
                return binary.decode(sent_spec, data, shape, count), tail
            raise BadRequest(f"input {spec.name!r}: expected 'data' as a list, got {shown(data)}")
        array = coerce(spec, data)
        if array.size != count:
            raise BadRequest(
                f"input {spec.name!r}: expected {count} elements for shape {list(shape)}, got {array.size}"
            )
        return array.reshape(shape), tail

    def _read_outputs(self, entries: object, all_binary: bool, request: InferRequest) -> None:
        if type(entries) is not list:
            raise BadRequest(f"'outputs': expected a list, got {shown(entries)}")
        as_bytes: dict[str, bool] = {}
        for entry in entries:
            name = entry.get("name") if type(entry) is dict else None
            if type(name) is not str or name not in self._outputs:
                wrong_name = shown(entry if name is None else name)
                raise BadRequest(
                    f"output {wrong_name}: the model has no such output; it has: {', '.join(self._outputs)}"
                )
            if name in as_bytes:
                raise BadRequest(f"output {name!r}: expected once, got twice")
            as_bytes[name] = all_binary
            if "parameters" in entry:
                where = f"output {name!r}"
                parameters = fields.parameters_of(entry, where)
                if count := fields.integer(parameters, where, "classification"):
                    classification.check(self._outputs[name])
                    request.classes = {**(request.classes or {}), name: count}
                as_bytes[name] = fields.boolean(parameters, where, "binary_data", all_binary)
        request.outputs = tuple(as_bytes)
        request.binary = frozenset(name for name, wanted in as_bytes.items() if wanted)

    def _decode_raw(self, body: memoryview) -> InferRequest:
        """Read a body that is one tensor and nothing else: one row of the model's only input."""
        if len(self._inputs) != 1:
            raise BadRequest(f"a raw body: expected a model of one input, it has: {', '.join(self._inputs)}")
        spec = next(iter(self._inputs.values()))
        shape = list(spec.shape)
        if self._batched:
            shape[0] = 1
        if shape.count(-1) > 1:
            raise BadRequest(f"input {spec.name!r}: its shape {shape} can't be inferred from a raw body")
        if spec.datatype.dtype == object:
            body = memoryview(len(body).to_bytes(4, "little") + bytes(body))
            elements = 1
        else:
            elements = len(body) // spec.datatype.dtype.itemsize
        if -1 in shape:
            shape[shape.index(-1)] = elements // max(1, prod(size for size in shape if size != -1))
        array = binary.decode(spec, body, tuple(shape), prod(shape))
        return InferRequest({spec.name: array}, self._all_outputs, frozenset(self._all_outputs))

    # -- responses ----------------------------------------------------------------------------

    def encode(self, request: InferRequest, outputs: Tensors) -> tuple[bytes, int | None]:
        """Return the body of the response, and where its JSON ends; None if it is all JSON.

        NaN and infinity, which JSON lacks, become null; binary tensors keep them.
        """
        entries = []
        tail = []
        for name in request.outputs:
            array, entry = outputs[name], self._entries[name]
            if request.classes and name in request.classes:
                array = classification.greatest(array, request.classes[name], self._batched)
                entry = _entry(name, "BYTES")
            if name in request.binary:
                tail.append(binary.encode(array))
                content = b'"parameters":{"binary_data_size":%d}' % len(tail[-1])
            else:
                data = array.ravel() if array.dtype != object else array.ravel().tolist()
                content = b'"data":%b' % orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)
            entries.append(b"%b%b,%b}" % (entry, orjson.dumps(array.shape), content))
        id_field = b'"id":%b,' % orjson.dumps(request.id) if request.id is not None else b""
        text = b'%b%b"outputs":[%b]}' % (self._opening, id_field, b",".join(entries))
        return (b"".join((text, *tail)), len(text)) if request.binary else (text, None)


def _entry(name: str, datatype: str) -> bytes:
    """Return the beginning of an output's entry, up to its shape."""
    return orjson.dumps({"name": name, "datatype": datatype})[:-1] + b',"shape":'


def remember(forms: dict[bytes, Form], head: bytes, form: Form) -> None:
    """Keep a form by the start of its requests; when there are too many, drop all others."""
    if len(forms) == _MAX_FORMS:
        forms.clear()
    forms[head] = form


def _with_arrays(document: Any, arrays: list[numbers.Numbers]) -> object:
    """Put the arrays that were cut out of a request back; Unread if they are not the data of its inputs."""
    entries = document.get("inputs") if type(document) is dict else None
    if type(entries) is not list or len(entries) != len(arrays):
        raise numbers.Unread
    for entry, array in zip(entries, arrays, strict=True):
        # Not with parameters, which may say that this array is not read at all.
        if type(entry) is not dict or entry.get("data", array) is not None or "parameters" in entry:
            raise numbers.Unread
        entry["data"] = array
    return document
