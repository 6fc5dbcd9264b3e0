"""The OpenAPI description, generated from the routes so that it stays true."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from driftline import __version__
from driftline.answers import json
from driftline.protocols.mlflow.scoring import MEDIA_TYPES
from driftline.tensors import DATATYPES

PATH = "/openapi.json"

Json = dict[str, Any]

_STRING: Json = {"type": "string"}
_SHAPE: Json = {"type": "array", "items": {"type": "integer"}}
_OBJECT: Json = {"type": "object"}


def _object(required: Sequence[str], **properties: Json) -> Json:
    return {"type": "object", "required": list(required), "properties": properties}


def _list(name: str) -> Json:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}


def _one_of(**properties: Json) -> Json:
    """Return the schema of an object with one of these."""
    return _OBJECT | {"oneOf": [_object([name], **{name: schema}) for name, schema in properties.items()]}


_NOT_EMPTY: Json = {"minItems": 1}
_ROWS: Json = {"type": "array"} | _NOT_EMPTY
_ANY: Json = {"not": {"type": "null"}}
_TENSOR = {"name": _STRING, "datatype": {"enum": list(DATATYPES)}, "shape": _SHAPE}
SCHEMAS: Json = {
    "InferenceRequest": _object(
        ["inputs"],
        id=_STRING, parameters=_OBJECT, inputs=_list("Input") | _NOT_EMPTY, outputs=_list("RequestedOutput"),
    ),
    "Input": _object([*_TENSOR], **_TENSOR, parameters=_OBJECT, data={"type": "array"}),
    "RequestedOutput": _object(["name"], name=_STRING, parameters=_OBJECT),
    "InferenceResponse": _object(
        ["model_name", "model_version", "outputs"],
        model_name=_STRING, model_version=_STRING, id=_STRING, outputs=_list("Output"),
    ),
    "Output": _object([*_TENSOR], **_TENSOR, parameters=_OBJECT, data={"type": "array"}),
    "ModelMetadata": _object(
        ["name", "versions", "platform", "inputs", "outputs"],
        name=_STRING, versions={"type": "array", "items": _STRING}, platform=_STRING,
        inputs=_list("Tensor"), outputs=_list("Tensor"),
    ),
    "Tensor": _object([*_TENSOR], **_TENSOR),
    "PredictRequest": _one_of(instances=_ROWS, inputs=_ANY),
    "ScoringRequest": _one_of(
        dataframe_split=_object(["data"], columns={"type": "array"}, index={"type": "array"}, data=_ROWS),
        dataframe_records=_ROWS, instances=_ROWS, inputs=_ANY,
    ),
    "PredictResponse": _object(["predictions"], predictions={}),
    "Error": _object(["error"], error=_STRING),
    "ScoringError": _object(["error_code", "message"], error_code=_STRING, message=_STRING),
}  # fmt: skip

_V2_INFERENCE = (
    "The Open Inference Protocol, with Triton's extensions.", "InferenceRequest", "InferenceResponse",
)  # fmt: skip
_MLFLOW_INFERENCE = "MLflow's scoring protocol: JSON, CSV, Parquet.", "ScoringRequest", "PredictResponse"
_MODEL, _VERSION = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
INFERENCE: dict[str, tuple[str, str, str]] = {
    f"{_MODEL}/infer": _V2_INFERENCE,
    f"{_VERSION}/infer": _V2_INFERENCE,
    "/v1/models/{name}:predict": ("KServe's v1.", "PredictRequest", "PredictResponse"),
    "/invocations": _MLFLOW_INFERENCE,
    "/models/{name}/invocations": _MLFLOW_INFERENCE,
}
"""The inference paths, which are not routes: a description, the schemas of body and response."""

_RESPONSE_SCHEMAS = {_MODEL: "ModelMetadata", _VERSION: "ModelMetadata"}


def route_of(routes: Sequence[Route]) -> Route:
    """Return the route that describes these routes and inference."""

    async def openapi(request: Request) -> Response:
        """This description."""
        return json(description([*routes, description_route]))

    description_route = Route(PATH, openapi)
    return description_route


def description(routes: Sequence[Route]) -> Json:
    """Return the OpenAPI document of these routes and inference."""
    paths: dict[str, Json] = {}
    for path, (text, body, response) in INFERENCE.items():
        paths[path] = _path_item(path, "post", text, body, response)
    for route in routes:
        method = "post" if "POST" in (route.methods or ()) else "get"
        text = inspect.getdoc(route.endpoint) or ""
        paths[route.path] = _path_item(route.path, method, text, "", _RESPONSE_SCHEMAS.get(route.path, ""))
    return {
        "openapi": "3.1.0",
        "info": {"title": "driftline", "version": __version__},
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }


def _path_item(path: str, method: str, text: str, body: str, response: str) -> Json:
    summary, _, details = text.partition("\n\n")
    error = "ScoringError" if path.endswith("/invocations") else "Error"
    operation: Json = {
        "operationId": method + re.sub(r"\W+", "_", path),
        "summary": " ".join(summary.split()),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _STRING}
            for name in re.findall(r"\{(\w+)\}", path)
        ],
        "responses": {
            "200": {"description": "OK"} | (_content(response) if response else {}),
            "default": {"description": "What is wrong"} | _content(error),
        },
    }
    if details:
        operation["description"] = details
    if body:
        content = _content(body)["content"]
        if body == "ScoringRequest":
            content |= {media_type: {"schema": {}} for media_type in MEDIA_TYPES if media_type not in content}
        operation["requestBody"] = {"required": True, "content": content}
    return {method: operation}


def _content(name: str) -> Json:
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}
