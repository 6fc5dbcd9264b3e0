"""Compression of request and response bodies."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from driftline.errors import BadRequest, TooLarge, shown

_WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
_CHUNK = 4096
"""Bytes read at once. After each gzip member, however short it is, zlib copies those that follow it."""

MAX_MEMBERS = 10_000
"""The most members that a gzip body may have; each takes time, even an empty one."""


SHORT = 1_400
"""Bytes below which a response is not compressed: it is one packet either way."""

LONG = 2**16
"""Bytes that take so long to compress that other requests should not wait for it."""

_ACCEPTED = re.compile(rb"([^;]+)(?:;q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?")
"""A coding and its weight; anything else is ignored."""

_LEVEL = 1
"""zlib's level. It halves numbers as text; the others gain little, in up to six times the time."""


def response_coding(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the coding that a client wants the response to have, gzip or deflate; None for none.

    headers  of its request, of which every Accept-Encoding counts: RFC 9110, 12.5.3

    By default, libraries list all codings that they can read, and most responses would arrive later if
    compressed. A client that names one coding alone, as Triton's does, or refuses `identity`, wants it.
    """
    accepted = b",".join([value for name, value in headers if name == b"accept-encoding"])
    matches = map(_ACCEPTED.fullmatch, accepted.lower().translate(None, b" \t").split(b","))
    weights = {match[1]: float(match[2] or 1) for match in matches if match is not None}
    acceptable = [name for name, weight in weights.items() if weight > 0]
    codings = [name for name in acceptable if name in (b"gzip", b"deflate")]
    is_wanted = len(acceptable) == 1 or weights.get(b"identity") == 0
    return max(codings, key=weights.__getitem__, default=None) if is_wanted else None


def compress(content: bytes, coding: bytes) -> bytes:
    """Compress a response's body in one of the codings that `response_coding` returns."""
    return zlib.compress(content, _LEVEL, _WINDOW_BITS[coding])


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Decompress a body of this Content-Encoding.

    The names are those of RFC 9110, in upper or lower case; gzip may have several members, as in RFC 1952.

    Raises BadRequest if it can't be read, TooLarge if it decompresses to more than `limit` bytes.
    """
    encoding = encoding.lower()
    if encoding == b"identity":
        return body
    if encoding not in _WINDOW_BITS:
        raise BadRequest(
            f"Content-Encoding: expected gzip or deflate, got {shown(encoding.decode('latin-1'))}"
        )
    invalid = f"the body is not valid {encoding.decode()}"
    text, size, position, members = memoryview(body), 0, 0, 0
    parts: list[bytes] = []
    while not parts or position < len(body):
        if members == (1 if encoding == b"deflate" else MAX_MEMBERS):
            raise BadRequest(f"{invalid}: more follows its end")
        members += 1
        stream = zlib.decompressobj(_WINDOW_BITS[encoding])
        while not stream.eof:
            if position == len(body):
                raise BadRequest(f"{invalid}: it ends too early")
            chunk = text[position : position + _CHUNK]
            try:
                part = stream.decompress(chunk, limit - size + 1)
            except zlib.error as error:
                raise BadRequest(f"{invalid}: {error}") from error
            size += len(part)
            if size > limit:
                raise TooLarge(f"the body: expected at most {limit} bytes, got more when decompressed")
            parts.append(part)
            position += len(chunk) - len(stream.unused_data)
    return b"".join(parts)
