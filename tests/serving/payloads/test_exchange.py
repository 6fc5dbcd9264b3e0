"""From what went over the wire to payloads."""

from __future__ import annotations

from uuid import UUID

from payload_sink import exchange

from driftline.serving.payloads.exchange import new_id


def test_halves_have_one_id_and_what_their_heads_said() -> None:
    answer = b"content-type: x\r\ninference-header-content-length: 2\r\n"
    request, response = exchange(b"{} ", b"{}")._replace(json_length=3, fields=answer).payloads()
    assert request.id == response.id
    assert (request.type, request.json_length, request.body) == ("request", 3, b"{} ")
    assert (response.type, response.json_length, response.body) == ("response", 2, b"{}")
    assert {request.content_type, response.content_type} == {"application/json"}
    (alone,) = exchange(None)._replace(id=b"seven").payloads()
    assert (alone.id, alone.type) == ("seven", "response")


def test_each_exchange_without_an_id_gets_one_of_its_own() -> None:
    assert len({payload.id for _ in range(10) for payload in exchange().payloads()}) == 10


def test_a_new_id_is_a_uuid_of_version_4() -> None:
    uuid = UUID(new_id())
    assert (uuid.version, str(uuid.variant)) == (4, "specified in RFC 4122")
