"""Logged payloads: requests and responses as events of KServe's logger and as rows.

The events are those of https://github.com/kserve/kserve, pkg/logger/worker.go. A response has its request's
id and, as in KServe's logger, its request's content type, whatever its own is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from driftline.errors import BadRequest, shown
from driftline.protocols.cloudevents import Event

REQUEST, RESPONSE = "request", "response"
TYPES = {f"org.kubeflow.serving.inference.{kind}": kind for kind in (REQUEST, RESPONSE)}
"""KServe's types of events, and which half of an exchange each is."""

JSON_LENGTH = "jsonlength"
"""The extension that says where a body's JSON ends and its tensors' bytes begin; KServe's logger has none."""

_TYPE_OF = {kind: name for name, kind in TYPES.items()}


class Payload(NamedTuple):
    """One half of an exchange.

    id            of the exchange: both halves have it
    type          'request' or 'response'
    time          when it was answered, or logged, in seconds since 1970
    model         its name; empty if unknown
    version       of the model that answered; empty if none did, or if unknown
    content_type  of the body; a response may have its request's
    json_length   where the JSON ends in a body in which bytes of tensors follow it
    status        of the response; None if unknown
    """

    id: str
    type: str
    time: float
    model: str
    version: str
    content_type: str
    json_length: int | None
    status: int | None
    body: bytes


# -- events -----------------------------------------------------------------------------------------


def to_event(payload: Payload, source: str, namespace: str) -> Event:
    """Return a payload as KServe's logger sends it, with the model as its inference service.

    source     where it is logged: KServe gives the name of the pod
    namespace  Kubernetes's
    """
    attributes: dict[str, str | int] = {
        "id": payload.id,
        "source": source,
        "type": _TYPE_OF[payload.type],
        "time": datetime.fromtimestamp(payload.time, UTC).isoformat().replace("+00:00", "Z"),
        "inferenceservicename": payload.model,
        "namespace": namespace,
        "component": "predictor",
        "endpoint": "default",
        "metadata": "{}",
    }
    if payload.version:
        attributes["modelversion"] = payload.version
    if payload.json_length is not None:
        attributes[JSON_LENGTH] = payload.json_length
    return Event(attributes, payload.content_type, payload.body)


def of_event(event: Event, json_length: int | None = None) -> Payload:
    """Return the payload of an event of KServe's logger or of ours.

    json_length  where its JSON ends, if that is given beside the event

    Raises BadRequest for an event of another type.
    """
    kind = TYPES.get(event.type)
    if kind is None:
        raise BadRequest(f"the event: 'type': expected one of {', '.join(TYPES)}, got {shown(event.type)}")
    attributes = event.attributes
    if JSON_LENGTH in attributes:
        length = str(attributes[JSON_LENGTH])
        if not length.isdecimal() or int(length) > len(event.data):
            raise BadRequest(
                f"the event: {JSON_LENGTH!r}: expected 0 to the {len(event.data)} bytes of the data, "
                f"got {shown(length)}"
            )
        json_length = int(length)
    time = datetime.fromisoformat(str(attributes["time"])).timestamp() if "time" in attributes else 0.0
    model, version = str(attributes.get("inferenceservicename", "")), str(attributes.get("modelversion", ""))
    return Payload(event.id, kind, time, model, version, event.content_type, json_length, None, event.data)


# -- rows -------------------------------------------------------------------------------------------

COLUMNS = Payload._fields
"""The columns of a table of payloads; `time` has microseconds in UTC."""


@lru_cache(1)
def schema() -> Any:
    """Return the Arrow schema of a table of payloads."""
    import pyarrow as pa

    types = {
        "id": pa.string(), "type": pa.string(), "time": pa.timestamp("us", "UTC"), "model": pa.string(),
        "version": pa.string(), "content_type": pa.string(), "json_length": pa.int32(),
        "status": pa.int16(), "body": pa.binary(),
    }  # fmt: skip
    return pa.schema([pa.field(name, types[name]) for name in COLUMNS])


def to_table(payloads: Sequence[Payload]) -> Any:
    """Return payloads as an Arrow table."""
    import pyarrow as pa

    columns: dict[str, Sequence[Any]] = dict(zip(COLUMNS, zip(*payloads, strict=True), strict=False))
    columns["time"] = [round(time * 1e6) for time in columns.get("time", ())]
    arrays = [pa.array(columns.get(field.name, ()), field.type) for field in schema()]
    return pa.table(arrays, schema=schema())


def of_table(table: Any) -> Iterator[Payload]:
    """Yield the payloads of an Arrow table or batch of these columns; BadRequest if it has others."""
    import pyarrow as pa

    try:
        rows = pa.table(
            {name: table.column(name).cast(field.type) for name, field in zip(COLUMNS, schema(), strict=True)}
        )
    except (KeyError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise BadRequest(f"payloads: expected the columns {', '.join(COLUMNS)}: {reason}") from error
    seconds = [time / 1e6 for time in rows.column("time").cast(pa.int64()).to_pylist()]
    columns = [seconds if name == "time" else rows.column(name).to_pylist() for name in COLUMNS]
    for row in zip(*columns, strict=True):
        yield Payload(*row)
