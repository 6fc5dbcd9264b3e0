"""Joins requests and responses that arrive separately, in any order, by their ids."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any

from driftline.protocols.payloads import REQUEST, Payload

RECORD_BYTES = 700
"""Approximate bytes of a half in memory, without its body and its texts."""

JOINED_BYTES = 250
"""Bytes to remember a joined id, besides the id."""

Pair = tuple[Payload, Payload | None]
"""A request and its response, if it has one."""


class Halves:
    """A bounded table of halves that wait for the others.

    An id is known until it expires, so that what a logger sends twice is counted once. A request whose
    response does not arrive is given up, unless no response ever came: then none are logged, and it stands
    alone.

    max_bytes   that may wait; beyond that, the oldest are dropped
    seconds     that a half waits for the other

    counts    halves by outcome: 'joined', 'alone', 'duplicate', 'dropped' for lack of room, 'expired' without
            the other, 'lost' with an agent that was killed; and 'late', the joined requests that came after
            their responses
    unpaired  halves that wait for the others
    """

    def __init__(self, max_bytes: int, seconds: float) -> None:
        self.counts: Counter[str] = Counter(
            dict.fromkeys(("joined", "alone", "duplicate", "dropped", "expired", "lost", "late"), 0)
        )
        self.unpaired = 0
        self.bytes = 0
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._entries: OrderedDict[str, tuple[float, Payload | None]] = OrderedDict()
        self._has_responses = False

    @property
    def known_ids(self) -> int:
        """Ids that are known."""
        return len(self._entries)

    def add(self, key: str, payload: Payload, now: float) -> Pair | None:
        """Add a half; return the pair if the other half was waiting.

        key  common to both halves: their id and its source
        now  in seconds, never less than before
        """
        self._has_responses = self._has_responses or payload.type != REQUEST
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = now, payload
            self.unpaired += 1
            self.bytes += size_of(key, payload)
            self._make_room()
            return None
        since, other = entry
        if other is None or other.type == payload.type:
            self.counts["duplicate"] += 1
            return None
        self._entries[key] = since, None
        self.unpaired -= 1
        self.bytes += size_of(key, None) - size_of(key, other)
        self.counts["joined"] += 2
        if payload.type == REQUEST:
            self.counts["late"] += 1
            return payload, other
        return other, payload

    def expire(self, now: float) -> list[Pair]:
        """Remove expired ids; return requests that stand alone."""
        alone: list[Pair] = []
        while self._entries:
            since, payload = next(iter(self._entries.values()))
            if now - since < self._seconds:
                break
            self._pop()
            if payload is None:
                continue
            if payload.type == REQUEST and not self._has_responses:
                self.counts["alone"] += 1
                alone.append((payload, None))
            else:
                self.counts["expired"] += 1
        return alone

    def _make_room(self) -> None:
        while self.bytes > self._max_bytes:
            if self._pop() is not None:
                self.counts["dropped"] += 1

    def _pop(self) -> Payload | None:
        """Remove the oldest id; return the half that waited there."""
        key, (_, payload) = self._entries.popitem(last=False)
        self.bytes -= size_of(key, payload)
        self.unpaired -= payload is not None
        return payload

    # -- over a restart -----------------------------------------------------------------------------

    def snapshot(self) -> list[Any]:
        """Return the waiting halves in JSON's types."""
        return [
            [key, *payload[:-1], b64encode(payload.body).decode()]
            for key, (_, payload) in self._entries.items()
            if payload is not None
        ]

    def restore(self, snapshot: Sequence[Any], now: float) -> None:
        """Restore the waiting halves; TypeError or ValueError if that is impossible."""
        for key, *values, body in snapshot:
            self.add(key, Payload(*[*values, b64decode(body)]), now)


def size_of(key: str, payload: Payload | None) -> int:
    """Return the bytes of an id and the half that waits there, if any; texts may be of any length."""
    if payload is None:
        return JOINED_BYTES + len(key)
    texts = key, payload.id, payload.model, payload.version, payload.content_type
    return RECORD_BYTES + len(payload.body) + sum(map(len, texts))
