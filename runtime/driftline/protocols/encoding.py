"""Bodies that came compressed."""

from __future__ import annotations

import zlib

from driftline.errors import BadRequest, TooLarge
from driftline.tensors import shorten

_WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
_CHUNK = 4096
"""Bytes read at once: so many are copied at most for what follows a member of gzip, however short that is."""

MOST_MEMBERS = 10_000
"""Members that a body of gzip has at most; each takes time, even an empty one."""


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
            f"Content-Encoding: expected gzip or deflate, came {shorten(encoding.decode('latin-1'))}"
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
