"""A request to a model and its answer, as they were on the wire."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Body:
    """A body, and what its headers say of it.

    media_type   the Content-Type, as it came
    encoding     the Content-Encoding; empty if it is as it is
    json_length  where its JSON ends and the bytes of its tensors begin: Inference-Header-Content-Length
    """

    content: bytes
    media_type: bytes = b"application/json"
    encoding: bytes = b""
    json_length: int | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a model was asked and what it answered.

    path    that was asked, such as /v2/models/flights/infer; empty if it is not known
    answer  None if there is none: then a profile of inputs only can be held against it
    """

    path: str
    request: Body
    answer: Body | None = None
