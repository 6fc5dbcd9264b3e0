"""Requests and responses of ModelInfer: those of REST, by the same rules, in another encoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import orjson

from driftline.errors import BadRequest
from driftline.protocols import binary
from driftline.protocols.classification import greatest
from driftline.protocols.codec import InferRequest
from driftline.protocols.grpc.messages import ModelInferResponse
from driftline.protocols.grpc.wire import Received
from driftline.protocols.v2 import V2Codec
from driftline.tensors import Signature, Tensors

_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where a tensor's values are, if not in raw_input_contents."""

_MAX_ENTRIES = 2**14
"""The most tensors and parameters of a request, and dimensions of a tensor: each becomes a Python object."""

_REST_ONLY = frozenset(("binary_data", "binary_data_output", "binary_data_size"))
"""Parameters that say where bytes are in a REST body."""


class GrpcCodec:
    """Reads requests to one version of a model and writes its responses, whose tensors are all raw."""

    media_type: ClassVar[bytes] = b"application/grpc"

    def __init__(self, signature: Signature, name: str, version: int) -> None:
        self._v2 = V2Codec(signature, name, version)
        self._name, self._version = name, str(version)
        self._batched = signature.batched
        self._datatypes = {spec.name: spec.datatype.name for spec in signature.outputs}

    def decode(self, body: Any, json_length: int | None = None) -> InferRequest:
        """Read a `Received`; see V2Codec.decode for what is refused."""
        return self._v2.read(document_of(body))

    def encode(self, request: InferRequest, outputs: Tensors) -> tuple[bytes, None]:
        """Return a serialised ModelInferResponse."""
        response = ModelInferResponse(model_name=self._name, model_version=self._version, id=request.id or "")
        for name in request.outputs:
            array, datatype = outputs[name], self._datatypes[name]
            if request.classes and name in request.classes:
                array, datatype = greatest(array, request.classes[name], self._batched), "BYTES"
            response.outputs.add(name=name, datatype=datatype, shape=array.shape)
            response.raw_output_contents.append(binary.encode(array))
        return response.SerializeToString(), None

    def as_rest(self, request: InferRequest, outputs: Tensors) -> tuple[bytes, int | None]:
        """Return the same response over REST, all tensors binary: a body, and where its JSON ends."""
        return self._v2.encode(replace(request, binary=frozenset(request.outputs)), outputs)


def as_rest_request(received: Received) -> tuple[bytes, int]:
    """Return a request as REST sends it, raw tensors binary: a body, and where its JSON ends."""
    document, tail = document_of(received), []
    for entry in document["inputs"]:
        if type(entry["data"]) is memoryview:
            tail.append(entry.pop("data"))
            entry["parameters"] = {**entry.get("parameters", {}), "binary_data_size": len(tail[-1])}
        elif entry["datatype"] == "BYTES":
            entry["data"] = [value.decode(errors="replace") for value in entry["data"]]
    text = orjson.dumps(document)
    return b"".join((text, *tail)), len(text)


def document_of(received: Received) -> dict[str, Any]:
    """Convert a received request to the document that REST would have, with raw tensors as memoryviews.

    Raises BadRequest if that is impossible.
    """
    request, raw = received
    _check_size(request)
    if raw and len(raw) != len(request.inputs):
        raise BadRequest(
            f"'raw_input_contents': expected {len(request.inputs)}, one for each input, got {len(raw)}"
        )
    inputs = [
        {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape[:_MAX_ENTRIES])}
        | {"data": _raw_values(tensor, raw[position]) if raw else _typed_values(tensor)}
        | _with_parameters(tensor)
        for position, tensor in enumerate(request.inputs)
    ]
    outputs = [{"name": output.name} | _with_parameters(output) for output in request.outputs]
    return {"id": request.id or None, "inputs": inputs, "outputs": outputs} | _with_parameters(request)


def _check_size(request: Any) -> None:
    tensors = (*request.inputs[:_MAX_ENTRIES], *request.outputs[:_MAX_ENTRIES])
    count = len(request.inputs) + len(request.outputs)
    count += sum(len(message.parameters) for message in (request, *tensors))
    if count > _MAX_ENTRIES:
        raise BadRequest(f"the request: expected at most {_MAX_ENTRIES} tensors and parameters, got {count}")


def end_within(request: Any, seconds: float) -> None:
    """Limit a ModelInferRequest's parameter `timeout` to the time that its client waits."""
    timeout = request.parameters["timeout"]
    if timeout.WhichOneof("parameter_choice") in (
        None,
        "int64_param",
    ):  # any other type is reported when it is read
        remaining = max(1, int(seconds * 1e6))
        if timeout.int64_param >= 0:
            timeout.int64_param = min(timeout.int64_param or remaining, remaining)


def _raw_values(tensor: Any, content: bytes | memoryview) -> memoryview:
    if fields := tensor.contents.ListFields():
        raise BadRequest(
            f"input {tensor.name!r}: expected raw_input_contents alone, got {fields[0][0].name} too"
        )
    return memoryview(content)


def _typed_values(tensor: Any) -> list[Any]:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        if tensor.datatype == "FP16":
            raise BadRequest(f"input {tensor.name!r}: expected FP16 in raw_input_contents, got contents")
        return []  # there is no such datatype, which is reported when it is read
    for sent_field, _ in tensor.contents.ListFields():
        if sent_field.name != field:
            raise BadRequest(
                f"input {tensor.name!r}: expected {field} for {tensor.datatype}, got {sent_field.name}"
            )
    return list(getattr(tensor.contents, field))


def _with_parameters(message: Any) -> dict[str, dict[str, Any]]:
    """Return the key `parameters`, if there are any."""
    if not message.parameters:
        return {}
    return {"parameters": values_of(message.parameters)}


def values_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters by name, without those that only REST has."""
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for name, value in parameters.items()
        if name not in _REST_ONLY
    }
