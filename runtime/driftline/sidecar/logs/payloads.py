"""From logged payloads to exchanges; the format of a body is detected from the body.

KServe's logger gives a response the content type of its request, and no half says how long its JSON is if
tensors' bytes follow. So the content type counts only if the body does not show its format.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import orjson

from driftline.errors import BadRequest
from driftline.protocols.payloads import Payload
from driftline.sidecar.exchange import Body, Exchange
from driftline.sidecar.logs.halves import Pair

_JSON, _PARQUET = b"application/json", b"application/vnd.apache.parquet"
_OBJECT = re.compile(rb"[ \t\r\n]*\{")
_SIZE = b'"binary_data_size"'
_DECODER = json.JSONDecoder(strict=False)


def exchange_of(pair: Pair) -> Exchange:
    """Make an Exchange of a request and its response; BadRequest if the end of a body's JSON is not found."""
    request, answer = pair
    return Exchange(_path(request.model), body_of(request), body_of(answer) if answer is not None else None)


@lru_cache(1_000)
def _path(model: str) -> str:
    """Return the inference path of a model; empty if the model is unknown."""
    return f"/v2/models/{quote(model, safe='')}/infer" if model else ""


def body_of(payload: Payload) -> Body:
    """Return a payload's body in its detected format."""
    content = payload.body
    if _OBJECT.match(content) is not None:
        length = payload.json_length
        if length is None and _SIZE in content:
            length = json_end(content)
        return Body(content, _JSON, b"", length)
    if content.startswith(b"PAR1"):
        return Body(content, _PARQUET)
    return Body(content, payload.content_type.encode("latin-1", "replace"), b"", payload.json_length)


def json_end(content: bytes) -> int | None:
    """Return where the JSON ends in a body that tensors' bytes may follow; None if all of it is JSON.

    It is parsed: the rest must have the length that the tensors declare; BadRequest if it has not.
    """
    text = content.decode("latin-1")  # a character a byte
    try:
        document, end = _DECODER.raw_decode(text, len(text) - len(text.lstrip(" \t\r\n")))
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"a body that may be binary: its JSON can't be read: {error}") from error
    size = sum(map(_size_of, _list(document.get("inputs")) + _list(document.get("outputs"))))
    if size and len(content) - end == size:
        return end
    try:
        orjson.loads(content)
    except orjson.JSONDecodeError:
        raise BadRequest(
            f"a binary body: expected {size} bytes behind its JSON, got {len(content) - end}"
        ) from None
    return None


def _list(value: Any) -> list[Any]:
    return value if type(value) is list else []


def _size_of(tensor: Any) -> int:
    """Return the number of bytes of a tensor that follow the JSON."""
    parameters = tensor.get("parameters") if type(tensor) is dict else None
    size = parameters.get("binary_data_size") if type(parameters) is dict else None
    return size if type(size) is int else 0
