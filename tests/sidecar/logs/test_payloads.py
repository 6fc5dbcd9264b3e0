"""Bodies whose headers are lost or wrong."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import BadRequest
from driftline.protocols.payloads import Payload
from driftline.sidecar.logs.payloads import body_of, exchange_of, json_end


def payload(body: bytes, content_type: str = "application/json", json_length: int | None = None) -> Payload:
    return Payload("1", "request", 0.0, "m", "", content_type, json_length, None, body)


def binary(data: bytes, **more: object) -> bytes:
    parameters = {"binary_data_size": len(data)}
    tensor = {"name": "x", "datatype": "UINT8", "shape": [len(data)], "parameters": parameters}
    return json.dumps({"inputs": [tensor], **more}).encode()


@given(st.binary(min_size=1, max_size=40), st.text(max_size=10))
def test_where_json_ends_is_found_whatever_follows(data: bytes, name: str) -> None:
    head = b" \r\n\t" + binary(data, id=name)
    assert json_end(head + data) == len(head)
    assert body_of(payload(head + data)).json_length == len(head)


def test_what_is_said_is_not_looked_for() -> None:
    head = binary(b"1234")
    assert body_of(payload(head + b"123", json_length=len(head))).json_length == len(head)


@pytest.mark.parametrize("tail", [b"", b"123", b"12345"])
def test_a_tail_of_another_length_is_refused(tail: bytes) -> None:
    head = binary(b"1234")
    if not tail:  # it is JSON, whatever its parameters say
        assert json_end(head) is None
        return
    with pytest.raises(BadRequest, match=f"expected 4 bytes behind its JSON, got {len(tail)}"):
        json_end(head + tail)


def test_what_only_speaks_of_binary_is_json() -> None:
    assert json_end(b'{"inputs": [], "parameters": {"binary_data_size": 3}}') is None
    assert json_end(b'{"inputs": 7, "outputs": [7, {"parameters": 7}]} ') is None
    with pytest.raises(BadRequest, match="its JSON can't be read"):
        json_end(b'{"binary_data_size"')


def test_the_body_says_better_what_it_is() -> None:
    assert body_of(payload(b' {"predictions": []}', "text/csv")).media_type == b"application/json"
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": np.arange(3)}), sink)
    assert body_of(payload(sink.getvalue(), "")).media_type == b"application/vnd.apache.parquet"
    assert body_of(payload(b"a,b\n1,2\n", "text/csv")).media_type == b"text/csv"


def test_an_exchange_names_its_model() -> None:
    request = payload(b"{}")
    assert exchange_of((request, None)).path == "/v2/models/m/infer"
    assert exchange_of((request, request)).answer == body_of(request)
