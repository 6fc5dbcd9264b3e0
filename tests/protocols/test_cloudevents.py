"""CloudEvents there and back in all modes, and what is none."""

from __future__ import annotations

import json
import string
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structured import to_structured

from driftline.errors import BadRequest, UnsupportedMedia
from driftline.protocols.cloudevents import (
    BATCH,
    STRUCTURED,
    Event,
    from_http,
    to_batch,
    to_binary,
)  # fmt: skip

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
NEEDED = TEXT.filter(bool)
NAME = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20).filter(
    lambda name: name not in ("specversion", "datacontenttype", "data", "time")
)
TIME = st.datetimes().map(lambda when: when.isoformat() + "Z")
VALUE = TEXT | st.booleans() | st.integers(-(2**31), 2**31 - 1)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)
CONTENT = (
    st.tuples(st.just("application/octet-stream"), st.binary(max_size=50))
    | st.tuples(st.sampled_from(["application/json; charset=utf-8", "text/json", "a/b+json", ""]),
                JSON.map(lambda value: json.dumps(value).encode()))
    | st.tuples(st.just("application/json"), st.binary(max_size=50))
)  # fmt: skip


@st.composite
def events(draw: st.DrawFn, values: st.SearchStrategy[Any] = VALUE) -> Event:
    attributes = draw(st.dictionaries(NAME, values, max_size=4))
    attributes |= {"id": draw(NEEDED), "source": draw(NEEDED), "type": draw(NEEDED)}
    if draw(st.booleans()):
        attributes["time"] = draw(TIME)
    return Event(attributes, *draw(CONTENT))


def same(received: Event, sent: Event) -> bool:
    """Whether two are one event; JSON may be written otherwise."""
    if (received.attributes, received.content_type) != (sent.attributes, sent.content_type):
        return False
    try:
        return received.data == sent.data or json.loads(received.data) == json.loads(sent.data)
    except ValueError:
        return False


@given(events(TEXT))
def test_binary_mode_keeps_every_byte(event: Event) -> None:
    # HTTP takes the spaces around a header's value for its own: they are escaped.
    assert from_http(*to_binary(event)) == [event]


@given(events())
def test_structured_mode_keeps_types_and_data(event: Event) -> None:
    (received,) = from_http(*to_structured(event))
    assert same(received, event)


@given(st.lists(events(), max_size=3))
def test_batches_keep_all_in_order(sent: list[Event]) -> None:
    received = from_http(*to_batch(sent))
    assert len(received) == len(sent)
    assert all(map(same, received, sent))


@given(events())
def test_headers_are_printable_ascii(event: Event) -> None:
    fields, _ = to_binary(event)
    assert all(0x20 <= byte < 0x7F for name, value in fields for byte in name + value)


GOOD = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
HEADERS = [(b"ce-" + name.encode(), value.encode()) for name, value in GOOD.items()]


def test_what_go_sends_is_read() -> None:
    (event,) = from_http(
        [*HEADERS, (b"ce-time", b"2026-11-24T10:11:12.123456789Z"), (b"ce-metadata", b'{"a":["b"]}'),
         (b"content-type", b"application/json"), (b"host", b"x")],
        b"{}",
    )  # fmt: skip
    assert event.attributes["metadata"] == '{"a":["b"]}'
    assert (event.id, event.source, event.type) == ("1", "/s", "t")
    assert (event.content_type, event.data) == ("application/json", b"{}")


def test_quoted_and_escaped_values_are_read() -> None:
    (event,) = from_http([*HEADERS, (b"ce-subject", b'"a \\"b\\" %C3%A4"')], b"")
    assert event.attributes["subject"] == 'a "b" ä'


def test_text_stands_as_it_is_in_json() -> None:
    document = {**GOOD, "datacontenttype": "text/csv", "data": "a,b\n1,2\n"}
    (event,) = from_http([(b"content-type", STRUCTURED.encode())], json.dumps(document).encode())
    assert event.data == b"a,b\n1,2\n"


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in GOOD.items() if key != name}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "the event is not valid JSON"),
        ("[]", "the event: expected an object, got []"),
        (without("specversion"), "'specversion': expected '1.0', got nothing"),
        ({**GOOD, "specversion": "0.3"}, "'specversion': expected '1.0', got '0.3'"),
        (without("id"), "'id': expected a text, got nothing"),
        ({**GOOD, "source": ""}, "'source': expected a text, got ''"),
        ({**GOOD, "type": 7}, "'type': expected a text, got 7"),
        ({**GOOD, "a_b": "x"}, "expected names of letters a to z and digits, got 'a_b'"),
        ({**GOOD, "a": 2**31}, "'a': expected a text, a boolean or an integer of 32 bits, got 2147483648"),
        ({**GOOD, "a": [1]}, "'a': expected a text, a boolean or an integer of 32 bits, got [1]"),
        ({**GOOD, "time": "noon"}, "'time': expected a time such as 2026-01-31T12:00:00.5Z, got 'noon'"),
        ({**GOOD, "time": "2026-01-31"}, "'time': expected a time"),
        ({**GOOD, "data_base64": "?"}, "'data_base64': expected a text in base64, got '?'"),
        ({**GOOD, "data_base64": 7}, "'data_base64': expected a text in base64, got 7"),
        ({**GOOD, "data": 1, "data_base64": "AA=="}, "expected one of 'data' and 'data_base64', got both"),
        ({**GOOD, "datacontenttype": 1}, "'datacontenttype': expected a text, got 1"),
    ],
)
def test_what_is_no_event_is_refused_in_words(document: Any, message: str) -> None:
    body = (document if type(document) is str else json.dumps(document)).encode()
    with pytest.raises(BadRequest) as caught:
        from_http([(b"content-type", STRUCTURED.encode())], body)
    assert message in str(caught.value)


def test_one_of_a_batch_is_named() -> None:
    body = json.dumps([GOOD, without("id")]).encode()
    with pytest.raises(BadRequest, match="event 1: 'id': expected a text, got nothing"):
        from_http([(b"content-type", BATCH.encode())], body)
    with pytest.raises(BadRequest, match="the batch: expected a list of events"):
        from_http([(b"content-type", BATCH.encode())], b"{}")


def test_headers_that_are_none_are_refused() -> None:
    with pytest.raises(BadRequest, match=r"'specversion': expected '1\.0', got nothing"):
        from_http([(b"content-type", b"application/json")], b"{}")
    with pytest.raises(BadRequest, match="expected names of letters"):
        from_http([*HEADERS, (b"ce-a-b", b"x")], b"{}")


def test_other_formats_are_refused() -> None:
    with pytest.raises(UnsupportedMedia, match=r"got 'application/cloudevents\+avro'"):
        from_http([(b"content-type", b"application/cloudevents+avro")], b"")


@given(st.binary(max_size=60), st.sampled_from([STRUCTURED, BATCH, "application/json"]))
def test_whatever_comes_is_an_event_or_refused(body: bytes, content_type: str) -> None:
    for headers in ([], HEADERS):
        with suppress(BadRequest):
            from_http([*headers, (b"content-type", content_type.encode())], body)
