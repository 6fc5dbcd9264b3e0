"""A request and its answer, on their way to where payloads are logged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from uuid import uuid4

from driftline.protocols.payloads import REQUEST, RESPONSE, Payload

RECORD_BYTES = 700
"""What an exchange takes in memory besides its bodies, about."""

_JSON_LENGTH = re.compile(rb"inference-header-content-length: (\d+)\r\n")


class Asked(NamedTuple):
    """What the head of a request says that goes into its payloads.

    name          the model that is asked; None for the default
    content_type  empty if there is none
    id            of the exchange, the header `ce-id`; empty if one is to be made
    json_length   where the body's JSON ends; None if that is not said
    """

    name: str | None
    content_type: bytes
    id: bytes
    json_length: int | None

    @classmethod
    def of(cls, name: str | None, headers: dict[bytes, bytes], json_length: int | None) -> Asked:
        """Of a request's headers."""
        return cls(name, headers.get(b"content-type", b""), headers.get(b"ce-id", b""), json_length)


class Exchange(NamedTuple):
    """A request and its answer, or one of them, as they went over the wire.

    time              of the answer, in seconds since 1970
    model, version    that has answered; the model that was asked for and nothing if none has
    content_type, id, json_length  see Asked
    request, response their bodies; None for what is not to be logged
    fields            the lines of the answer's headers
    """

    time: float
    model: str
    version: str
    content_type: bytes
    id: bytes
    json_length: int | None
    request: bytes | None
    status: int
    fields: bytes
    response: bytes | None

    @property
    def halves(self) -> int:
        """How many payloads it has."""
        return (self.request is not None) + (self.response is not None)

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, about."""
        return len(self.request or b"") + len(self.response or b"") + RECORD_BYTES

    def payloads(self) -> Iterator[Payload]:
        """The request, then the answer."""
        name = self.id.decode("latin-1") or str(uuid4())
        about = (self.time, self.model, self.version, self.content_type.decode("latin-1"))
        if self.request is not None:
            yield Payload(name, REQUEST, *about, self.json_length, self.status, self.request)
        if self.response is not None:
            length = _JSON_LENGTH.search(self.fields)
            json_length = int(length[1]) if length is not None else None
            yield Payload(name, RESPONSE, *about, json_length, self.status, self.response)
