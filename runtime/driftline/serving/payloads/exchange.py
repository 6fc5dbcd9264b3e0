"""A request and its response, to be logged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import getrandbits
from typing import NamedTuple

from driftline.protocols.payloads import REQUEST, RESPONSE, Payload

RECORD_BYTES = 700
"""Approximate bytes of an exchange in memory, without its bodies."""

_JSON_LENGTH = re.compile(rb"inference-header-content-length: (\d+)\r\n")


class RequestHead(NamedTuple):
    """What payloads record from the head of a request.

    name          the model requested; None for the default
    content_type  empty if there is none
    id            of the exchange, from the header `ce-id`; empty if one is to be made
    json_length   bytes of JSON at the start of the body; None if not given
    """

    name: str | None
    content_type: bytes
    id: bytes
    json_length: int | None

    @classmethod
    def of(cls, name: str | None, headers: dict[bytes, bytes], json_length: int | None) -> RequestHead:
        """Make one from a request's headers."""
        return cls(name, headers.get(b"content-type", b""), headers.get(b"ce-id", b""), json_length)


class Exchange(NamedTuple):
    """A request and its response, or only one of them, as they were sent.

    time              of the response, in seconds since 1970
    model, version    that responded; if none did, the model requested and ""
    content_type, id, json_length  see RequestHead
    request, response their bodies; None if not to be logged
    fields            the lines of the response's headers
    halves            number of payloads: 1 or 2
    size              approximate bytes in memory
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
    halves: int
    size: int

    @classmethod
    def of(
        cls,
        request_head: RequestHead,
        time: float,
        model: str,
        version: str,
        request: bytes | None,
        status: int,
        fields: bytes,
        response: bytes | None,
    ) -> Exchange:
        """Make one from a request's head and its response."""
        _, content_type, exchange_id, json_length = request_head
        halves, size = 0, RECORD_BYTES
        if request is not None:
            halves, size = 1, size + len(request)
        if response is not None:
            halves, size = halves + 1, size + len(response)
        return cls(
            time,
            model,
            version,
            content_type,
            exchange_id,
            json_length,
            request,
            status,
            fields,
            response,
            halves,
            size,
        )

    def payloads(self) -> Iterator[Payload]:
        """Yield the payload of the request, then that of the response."""
        exchange_id = self.id.decode("latin-1") or new_id()
        common = (self.time, self.model, self.version, self.content_type.decode("latin-1"))
        if self.request is not None:
            yield Payload(exchange_id, REQUEST, *common, self.json_length, self.status, self.request)
        if self.response is not None:
            length = _JSON_LENGTH.search(self.fields)
            json_length = int(length[1]) if length is not None else None
            yield Payload(exchange_id, RESPONSE, *common, json_length, self.status, self.response)


def new_id() -> str:
    """Return a UUID of version 4 that is not secure: uuid.uuid4 takes longer than all else here."""
    digits = f"{getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
