"""A request to a model and its response, as they were sent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Body:
    """A body and the headers that describe it.

    media_type   the Content-Type, as received
    encoding     the Content-Encoding; empty if not encoded
    json_length  bytes of JSON before the tensors' bytes: Inference-Header-Content-Length
    """

    content: bytes
    media_type: bytes = b"application/json"
    encoding: bytes = b""
    json_length: int | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its response.

    path    requested, such as /v2/models/flights/infer; empty if unknown
    answer  None if there is none: then only a profile of inputs can be compared
    """

    path: str
    request: Body
    answer: Body | None = None
