"""Bodies that came compressed."""

from __future__ import annotations

import zlib

from driftline.errors import BadRequest, TooLarge
from driftline.tensors import shorten

_WINDOW_BITS = {b"gzip": 31, b"deflate": 15}


def decompress(body: bytes, encoding: bytes, most: int) -> bytes:
    """A body of this Content-Encoding as it was.

    Raises BadRequest if it can't be read, TooLarge if it is more than `most` bytes then.
    """
    if encoding not in _WINDOW_BITS:
        raise BadRequest(
            f"Content-Encoding: expected gzip or deflate, came {shorten(encoding.decode('latin-1'))}"
        )
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        plain = stream.decompress(body, most)
    except zlib.error as error:
        raise BadRequest(f"the body is no valid {encoding.decode()}: {error}") from error
    if stream.unconsumed_tail:
        raise TooLarge(f"the body: expected at most {most} bytes, came more when decompressed")
    if not stream.eof:
        raise BadRequest(f"the body is no valid {encoding.decode()}: it ends too early")
    return plain
