"""Bodies that come compressed, and those that go."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from driftline.errors import BadRequest, TooLarge, shown

_WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
_CHUNK = 4096
"""Bytes read at once: so many are copied at most for what follows a member of gzip, however short that is."""

MOST_MEMBERS = 10_000
"""Members that a body of gzip has at most; each takes time, even an empty one."""


SHORT = 1_400
"""Bytes below which an answer goes as it is: it is one packet either way."""

LONG = 2**16
"""Bytes that take so long to compress that others are not to wait for it."""

_ACCEPTED = re.compile(rb"([^;]+)(?:;q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?")
"""A coding and its weight; what is written otherwise is not read."""

_LEVEL = 1
"""Of zlib's: numbers as text become half, and no other level makes them much less for six times the time."""


def answer_coding(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The coding that a client asks an answer to have, gzip or deflate; None for none.

    headers  of its request, of which Accept-Encoding counts, in as many lines as there are: RFC 9110, 12.5.3

    Libraries list all that they can read, unasked, and mostly the answer would arrive later compressed. Who
    names one coding alone, as Triton's client does, or refuses `identity`, wants it.
    """
    accepted = b",".join([value for name, value in headers if name == b"accept-encoding"])
    each = map(_ACCEPTED.fullmatch, accepted.lower().translate(None, b" \t").split(b","))
    weights = {one[1]: float(one[2] or 1) for one in each if one is not None}
    taken = [name for name, weight in weights.items() if weight > 0]
    codings = [name for name in taken if name in (b"gzip", b"deflate")]
    alone = len(taken) == 1 or weights.get(b"identity") == 0
    return max(codings, key=weights.__getitem__, default=None) if alone else None


def compress(content: bytes, coding: bytes) -> bytes:
    """An answer's body in one of the codings that `answer_coding` gives."""
    return zlib.compress(content, _LEVEL, _WINDOW_BITS[coding])


def decompress(body: bytes, encoding: bytes, most: int) -> bytes:
    """A body of this Content-Encoding as it was.

    The names and their case are those of RFC 9110; gzip may have several members, as RFC 1952 has it.

    Raises BadRequest if it can't be read, TooLarge if it is more than `most` bytes then.
    """
    encoding = encoding.lower()
    if encoding == b"identity":
        return body
    if encoding not in _WINDOW_BITS:
        raise BadRequest(
            f"Content-Encoding: expected gzip or deflate, came {shown(encoding.decode('latin-1'))}"
        )
    invalid = f"the body is no valid {encoding.decode()}"
    text, size, position, members = memoryview(body), 0, 0, 0
    parts: list[bytes] = []
    while not parts or position < len(body):
        if members == (1 if encoding == b"deflate" else MOST_MEMBERS):
            raise BadRequest(f"{invalid}: more follows its end")
        members += 1
        stream = zlib.decompressobj(_WINDOW_BITS[encoding])
        while not stream.eof:
            if position == len(body):
                raise BadRequest(f"{invalid}: it ends too early")
            chunk = text[position : position + _CHUNK]
            try:
                part = stream.decompress(chunk, most - size + 1)
            except zlib.error as error:
                raise BadRequest(f"{invalid}: {error}") from error
            size += len(part)
            if size > most:
                raise TooLarge(f"the body: expected at most {most} bytes, came more when decompressed")
            parts.append(part)
            position += len(chunk) - len(stream.unused_data)
    return b"".join(parts)
