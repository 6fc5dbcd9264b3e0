"""Payloads as events of KServe's logger and as rows, there and back."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import BadRequest
from driftline.protocols.cloudevents import Event, from_http, to_binary
from driftline.protocols.payloads import Payload, of_event, of_table, to_event, to_table

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@st.composite
def payloads(draw: st.DrawFn, statuses: st.SearchStrategy[int | None]) -> Payload:
    body = draw(st.binary(max_size=30))
    return Payload(
        id=draw(TEXT.filter(bool)),
        type=draw(st.sampled_from(["request", "response"])),
        time=draw(st.integers(0, 2**42)) / 1e6,
        model=draw(TEXT),
        version=draw(st.sampled_from(["", "1", "77"])),
        content_type=draw(st.sampled_from(["", "application/json", "application/octet-stream"])),
        json_length=draw(st.none() | st.integers(0, len(body))),
        status=draw(statuses),
        body=body,
    )


@given(payloads(st.none()))
def test_events_keep_all_but_the_status(payload: Payload) -> None:
    (event,) = from_http(*to_binary(to_event(payload, "pod-1", "default")))
    assert of_event(event) == payload


@given(st.lists(payloads(st.none() | st.integers(200, 599)), max_size=4))
def test_rows_keep_all(sent: list[Payload]) -> None:
    assert list(of_table(to_table(sent))) == sent


def test_an_event_is_what_kserve_sends() -> None:
    payload = Payload("7", "response", 1.5, "flights", "3", "application/json", None, 200, b"{}")
    fields, body = to_binary(to_event(payload, "pod-1", "prod"))
    assert dict(fields) == {
        b"ce-specversion": b"1.0",
        b"ce-id": b"7",
        b"ce-source": b"pod-1",
        b"ce-type": b"org.kubeflow.serving.inference.response",
        b"ce-time": b"1970-01-01T00:00:01.500000Z",
        b"ce-inferenceservicename": b"flights",
        b"ce-namespace": b"prod",
        b"ce-component": b"predictor",
        b"ce-endpoint": b"default",
        b"ce-metadata": b"{}",
        b"ce-modelversion": b"3",
        b"content-type": b"application/json",
    }
    assert body == b"{}"


def test_where_the_json_ends_may_be_said_beside_the_event() -> None:
    event = Event({"id": "1", "source": "s", "type": "org.kubeflow.serving.inference.request"}, "", b"{}x")
    assert of_event(event, 2).json_length == 2
    assert of_event(event).json_length is None


@pytest.mark.parametrize("length", ["4", "-1", "x", True])
def test_a_length_that_can_not_be_is_refused(length: str | int) -> None:
    attributes = {"id": "1", "source": "s", "type": "org.kubeflow.serving.inference.request"}
    with pytest.raises(BadRequest, match="'jsonlength': expected 0 to the 3 bytes"):
        of_event(Event({**attributes, "jsonlength": length}, "", b"{}x"))


def test_other_events_and_tables_are_refused() -> None:
    with pytest.raises(BadRequest, match=r"expected one of org\.kubeflow\.serving\.inference\.request"):
        of_event(Event({"id": "1", "source": "s", "type": "io.driftline.alarm"}))
    with pytest.raises(BadRequest, match="payloads: expected the columns id, type, time"):
        list(of_table(pa.table({"id": ["1"]})))
    with pytest.raises(BadRequest, match="payloads: expected the columns"):
        list(of_table(to_table([]).set_column(0, "id", pa.array([], pa.list_(pa.int8())))))
