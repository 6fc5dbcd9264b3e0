"""Which headers a proxy passes on: RFC 9110, section 7.6.1."""

from __future__ import annotations

from collections.abc import Iterable

Field = tuple[bytes, bytes, bytes]
"""A name in lower case, as it came, and its value."""

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
"""Headers of a connection, not of a message. Trailers are not passed on, so `Trailer` is not either."""

_STAY = frozenset((b"close", b"keep-alive", b"", b"content-length", b"host"))
"""What `Connection` may say without a header going: without its length, one request would be read as two."""


def named(connection: bytes) -> frozenset[bytes]:
    """The headers that a Connection header makes hop-by-hop."""
    return frozenset(token.strip() for token in connection.lower().split(b",")) - _STAY


def lines(fields: Iterable[Field], without: frozenset[bytes]) -> list[bytes]:
    """Headers as they are written."""
    if without:
        fields = [field for field in fields if field[0] not in without]
    return [b"%b: %b\r\n" % field[1:] for field in fields]
