"""CloudEvents 1.0 over HTTP: reads binary mode, structured JSON and batches; writes binary mode and batches.

Specifications: https://github.com/cloudevents/spec, `spec.md`, `bindings/http-protocol-binding.md` and
`formats/json-format.md` at version 1.0.2.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as InvalidBase64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import orjson

from driftline.errors import BadRequest, UnsupportedMedia, shown

Fields = list[tuple[bytes, bytes]]
"""HTTP headers, with names in lower case."""

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"

REQUIRED = ("id", "source", "type")
"""The attributes that every event has, besides its specversion."""

_PREFIX = b"ce-"
_NAME = re.compile(r"[a-z0-9]+")
_JSON_TYPE = re.compile(r"[^/]+/(?:[^;]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
_UNESCAPED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_MIN_INTEGER, _MAX_INTEGER = -(2**31), 2**31 - 1


@dataclass(frozen=True, slots=True)
class Event:
    """A CloudEvent.

    attributes    by name, without `specversion` and `datacontenttype`: `id`, `source` and `type` are nonempty
                  texts, others may be integers or booleans, which binary mode sends as texts
    content_type  of the data, `datacontenttype`; empty if it is not given
    data          empty if there is none
    """

    attributes: Mapping[str, str | int]
    content_type: str = ""
    data: bytes = b""

    @property
    def id(self) -> str:
        """Its id, unique together with its source; an event that is sent twice has the same."""
        return str(self.attributes["id"])

    @property
    def source(self) -> str:
        """Where it comes from."""
        return str(self.attributes["source"])

    @property
    def type(self) -> str:
        """What happened."""
        return str(self.attributes["type"])


# -- out --------------------------------------------------------------------------------------------


def to_binary(event: Event) -> tuple[Fields, bytes]:
    """Return headers and body of a request in binary mode: attributes are headers, the data is the body."""
    fields = [(b"ce-specversion", b"1.0")]
    for name, value in event.attributes.items():
        fields.append((_PREFIX + name.encode(), _to_header(_text(value))))
    if event.content_type:
        fields.append((b"content-type", event.content_type.encode("latin-1")))
    return fields, event.data


def to_batch(events: Sequence[Event]) -> tuple[Fields, bytes]:
    """Return headers and body of a request with several events: a JSON array of objects."""
    body = orjson.dumps([_document(event) for event in events])
    return [(b"content-type", BATCH.encode() + b"; charset=utf-8")], body


def _text(value: str | int) -> str:
    if value is True or value is False:
        return "true" if value else "false"
    return str(value)


def _to_header(text: str) -> bytes:
    """Escape a text for a header: spaces, quotes, % and everything that is not printable ASCII."""
    return quote_from_bytes(text.encode(), safe=_UNESCAPED).encode()


def _document(event: Event) -> dict[str, Any]:
    """Return an event as a JSON object; data that is JSON is embedded as such, other data in base64."""
    document: dict[str, Any] = {"specversion": "1.0", **event.attributes}
    if event.content_type:
        document["datacontenttype"] = event.content_type
    if not event.data:
        return document
    if not event.content_type or _JSON_TYPE.fullmatch(event.content_type):
        try:
            orjson.loads(event.data)
        except orjson.JSONDecodeError:
            pass
        else:
            return document | {"data": orjson.Fragment(event.data)}
    return document | {"data_base64": b64encode(event.data).decode()}


# -- in ---------------------------------------------------------------------------------------------


def from_http(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> list[Event]:
    """Return the events of a request: one, or all of a batch.

    headers  with names in lower case

    Raises BadRequest for an invalid event, with the attribute, what was expected and what came, and
    UnsupportedMedia for structured events in a format other than JSON.
    """
    content_type, attributes = "", {}
    for name, value in headers:
        if name[:3] == _PREFIX:
            is_plain = b"%" not in value and value[:1] != b'"'
            attributes[_attribute(name)] = (
                value.decode("utf-8", "replace") if is_plain else _from_header(value)
            )
        elif name == b"content-type":
            content_type = value.decode("latin-1")
    if content_type[:23].lower() != "application/cloudevents":
        return [_checked_event(attributes, content_type, body)]
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == STRUCTURED:
        return [_from_document(_loads(body), "the event")]
    if media_type != BATCH:
        raise UnsupportedMedia(f"Content-Type: expected {STRUCTURED} or {BATCH}, got {shown(media_type)}")
    documents = _loads(body)
    if type(documents) is not list:
        raise BadRequest(f"the batch: expected a list of events, got {shown(documents)}")
    return [_from_document(document, f"event {index}") for index, document in enumerate(documents)]


@lru_cache(1_000)
def _attribute(header: bytes) -> str:
    """Return the attribute that a header is named after."""
    return header[len(_PREFIX) :].decode("latin-1")


@lru_cache(1_000)
def _is_attribute_name(name: str) -> bool:
    """Return whether an attribute may have this name."""
    return _NAME.fullmatch(name) is not None


def _from_header(value: bytes) -> str:
    """Return the text of a header's value, which may also be quoted, as the specification once required."""
    if len(value) > 1 and value[:1] == value[-1:] == b'"':
        value = _QUOTED_PAIR.sub(rb"\1", value[1:-1])
    if b"%" in value:
        value = unquote_to_bytes(value)
    return value.decode("utf-8", "replace")


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the event is not valid JSON: {error}") from error


def _from_document(document: Any, where: str) -> Event:
    if type(document) is not dict:
        raise BadRequest(f"{where}: expected an object, got {shown(document)}")
    attributes = {name: value for name, value in document.items() if value is not None or name == "data"}
    content_type, data, encoded = (
        attributes.pop(key, None) for key in ("datacontenttype", "data", "data_base64")
    )
    if content_type is not None and type(content_type) is not str:
        raise BadRequest(f"{where}: 'datacontenttype': expected a text, got {shown(content_type)}")
    content_type = content_type or ""
    if encoded is not None:
        if "data" in document:
            raise BadRequest(f"{where}: expected one of 'data' and 'data_base64', got both")
        return _checked_event(attributes, content_type, _from_base64(encoded, where), where)
    if "data" not in document:
        return _checked_event(attributes, content_type, b"", where)
    if type(data) is str and content_type and not _JSON_TYPE.fullmatch(content_type):
        return _checked_event(attributes, content_type, data.encode(), where)
    return _checked_event(attributes, content_type, orjson.dumps(data), where)


def _from_base64(encoded: object, where: str) -> bytes:
    try:
        if type(encoded) is str:
            return b64decode(encoded, validate=True)
    except InvalidBase64:
        pass
    raise BadRequest(f"{where}: 'data_base64': expected a text in base64, got {shown(encoded)}")


def _checked_event(
    attributes: dict[str, Any], content_type: str, data: bytes, where: str = "the event"
) -> Event:
    """Check attributes and return an event with them."""
    version = attributes.pop("specversion", None)
    if version != "1.0":
        actual = "nothing" if version is None else shown(version)
        raise BadRequest(f"{where}: 'specversion': expected '1.0', got {actual}")
    for name in REQUIRED:
        value = attributes.get(name)
        if type(value) is not str or not value:
            actual = "nothing" if value is None else shown(value)
            raise BadRequest(f"{where}: {name!r}: expected a text, got {actual}")
    for name, value in attributes.items():
        if not _is_attribute_name(name):
            raise BadRequest(f"{where}: expected names of letters a to z and digits, got {shown(name)}")
        if type(value) is not str and type(value) is not bool:
            if type(value) is not int or not _MIN_INTEGER <= value <= _MAX_INTEGER:
                raise BadRequest(
                    f"{where}: {name!r}: expected a text, a boolean or an integer of 32 bits, "
                    f"got {shown(value)}"
                )
    if (time := attributes.get("time")) is not None:
        _check_time(time, where)
    return Event(attributes, content_type, data)


def _check_time(time: object, where: str) -> None:
    try:
        if datetime.fromisoformat(str(time)).tzinfo is not None:
            return
    except ValueError:
        pass
    raise BadRequest(f"{where}: 'time': expected a time such as 2026-01-31T12:00:00.5Z, got {shown(time)}")
