"""CloudEvents in structured mode, which driftline reads and never writes."""

from __future__ import annotations

from driftline.protocols.cloudevents import STRUCTURED, Event, Fields, to_batch


def to_structured(event: Event) -> tuple[Fields, bytes]:
    """Return the headers and the body of a request: the only object of a batch."""
    _, body = to_batch([event])
    return [(b"content-type", STRUCTURED.encode() + b"; charset=utf-8")], body[1:-1]
