"""The headers that a proxy forwards: RFC 9110, section 7.6.1."""

from __future__ import annotations

from collections.abc import Iterable

Field = tuple[bytes, bytes, bytes]
"""A name in lower case, the name as received, and its value."""

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
"""Headers of a connection, not of a message. Trailers are not forwarded, so neither is `Trailer`."""

_STAY = frozenset((b"close", b"keep-alive", b"", b"content-length", b"host"))
"""Tokens of `Connection` that remove no header: without its length, one request would be read as two."""


def named(connection: bytes) -> frozenset[bytes]:
    """Return the headers that a Connection header makes hop-by-hop."""
    return frozenset(token.strip() for token in connection.lower().split(b",")) - _STAY


def lines(fields: Iterable[Field], without: frozenset[bytes]) -> list[bytes]:
    """Return headers as they are written."""
    if without:
        fields = [field for field in fields if field[0] not in without]
    return [b"%b: %b\r\n" % field[1:] for field in fields]
