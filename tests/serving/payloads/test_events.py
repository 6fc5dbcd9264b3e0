"""Payloads posted to receivers that refuse, are slow, fail and are away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from payload_sink import Sinking, receiving
from waiting import until

from driftline.protocols.cloudevents import BATCH
from driftline.serving.payloads import events as module


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly any rest between attempts."""
    monkeypatch.setattr(module, "FIRST_DELAY_SECONDS", 0.001)


@contextmanager
def logging_to(url: str, **settings: Any) -> Iterator[Sinking]:
    payloads = Sinking(url, **settings)
    try:
        yield payloads
    finally:
        payloads.close()


def test_both_halves_come_with_one_id() -> None:
    with receiving() as receiver:
        with logging_to(receiver.url) as payloads:
            for _ in range(10):
                payloads.put()
        events = receiver.wait(20)
        assert {(event.type.rpartition(".")[2], event.data) for event in events} == {
            ("request", b"qq"), ("response", b"aa"),
        }  # fmt: skip
        assert len({event.id for event in events}) == 10
        assert payloads.shared["sent"] == 20
        assert all(headers["content-type"] == "application/json" for headers in receiver.headers)


def test_what_fails_is_tried_again() -> None:
    with receiving(503, 429, 500, 503) as receiver:
        with logging_to(receiver.url) as payloads:
            payloads.put()
            receiver.wait(2)
        assert (payloads.shared["sent"], payloads.shared["given_up"]) == (2, 0)


def test_a_refusal_is_final_and_names_the_host_and_the_port_only(caplog: pytest.LogCaptureFixture) -> None:
    with receiving(403, 403) as receiver, logging_to(receiver.url) as payloads:
        payloads.put()
        until(lambda: payloads.shared["given_up"] == 2, "what was refused")
    assert f"payloads could not be posted to {urlsplit(receiver.url).netloc}: 403" in caplog.text
    assert "secret" not in caplog.text


def test_all_that_was_refused_is_said_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with receiving(*[403] * 20) as receiver, logging_to(receiver.url) as payloads:
        for _ in range(10):
            payloads.put()
    counts = [int(line.split()[0]) for line in caplog.messages if "could not be posted" in line]
    assert sum(counts) == 20
    assert len(counts) <= 1 + module.SENDERS


def test_a_rest_that_was_refused_is_said_after_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.05)
    with receiving(403, 403) as receiver, logging_to(receiver.url) as payloads:
        payloads.put()

        def said() -> int:
            return sum(int(line.split()[0]) for line in caplog.messages if "could not be posted" in line)

        until(lambda: said() == 2, "both")


def test_nobody_there_is_said_at_once_and_given_up_in_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving() as receiver:
        url = receiver.url
    monkeypatch.setattr(module, "FIRST_DELAY_SECONDS", 60.0)
    where = urlsplit(url).netloc
    line = f"payloads can't be posted to {where}: ConnectionRefusedError; more attempts follow"
    with logging_to(url) as payloads:
        for _ in range(10):
            payloads.put()
        until(lambda: line in caplog.messages, "the line")
    assert payloads.shared["given_up"] == 20
    assert caplog.messages.count(line) == 1


def test_a_connection_that_was_closed_meanwhile_is_opened_anew() -> None:
    with receiving() as receiver:
        sender = module.Sender(urlsplit(receiver.url))
        fields = [(b"ce-specversion", b"1.0"), (b"ce-id", b"1"), (b"ce-source", b"s"), (b"ce-type", b"t")]
        assert sender.post(fields, b"{}") == 200
        connection = sender._connection
        assert connection is not None
        assert connection.sock is not None
        connection.sock.shutdown(2)
        assert sender.post(fields, b"{}") == 200
        sender.close()
        assert len(receiver.events) == 2


def test_a_user_and_a_password_are_not_in_the_address() -> None:
    with receiving() as receiver:
        with logging_to(receiver.url.replace("//", "//me:p%40ss@")) as payloads:
            payloads.put()
        receiver.wait(2)
        assert receiver.headers[0]["authorization"] == "Basic bWU6cEBzcw=="


@pytest.mark.parametrize("batch", [2, 5, 64])
def test_what_waits_goes_together(batch: int) -> None:
    with receiving() as receiver:
        receiver.gate.clear()
        with logging_to(receiver.url, log_batch=batch) as payloads:
            for _ in range(module.SENDERS + 100):
                payloads.put()
            receiver.gate.set()
            count = 2 * (module.SENDERS + 100)
            events = receiver.wait(count)
        assert payloads.shared["sent"] == count
        assert len({(event.id, event.type) for event in events}) == count
        posts = receiver.headers
        assert {headers["content-type"].partition(";")[0] for headers in posts} == {BATCH}
        assert len(posts) >= count / batch
        assert len(posts) <= count / 2
    with receiving(400) as receiver, logging_to(receiver.url, log_batch=batch) as payloads:
        payloads.put()
        until(lambda: payloads.shared["given_up"] == 2, "a refusal")


def test_large_ones_do_not_wait_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_POST_BYTES", 10_000)
    with receiving() as receiver:
        with logging_to(receiver.url, log_batch=1000) as payloads:
            for _ in range(20):
                payloads.put(b"q" * 6_000, None)
            receiver.wait(20)
        assert len(receiver.headers) >= 10


def test_a_sink_that_can_not_be_reached_does_not_delay_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[bytes] = []

    def refuse(sender: module.Sender, fields: object, body: bytes) -> int:
        attempts.append(body)
        raise ConnectionRefusedError

    monkeypatch.setattr(module.Sender, "post", refuse)
    monkeypatch.setattr(module, "FIRST_DELAY_SECONDS", 60.0)
    with logging_to("http://127.0.0.1:1/") as payloads:
        for _ in range(100):
            payloads.put()
        until(lambda: len(attempts) == module.SENDERS, "the first attempts")
    assert payloads.shared["given_up"] == 200
    assert len(attempts) <= 2 * module.SENDERS * module.ATTEMPTS


def test_a_sink_that_refuses_for_a_while_gets_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = module.SENDERS * module.ATTEMPTS
    with receiving(*[503] * refusals) as receiver:
        with logging_to(receiver.url) as payloads:
            for _ in range(20):
                payloads.put()
        counts = payloads.shared["sent"], payloads.shared["given_up"]
        assert sum(counts) == 40
        assert counts[0] == len(receiver.events) >= 40 - refusals // module.ATTEMPTS
