"""Payloads posted to receivers that refuse, are slow, fail and are away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from payload_sink import receiving, until

from driftline.config import Server
from driftline.errors import ConfigError
from driftline.protocols.cloudevents import BATCH
from driftline.serving.payloads import events as module
from driftline.serving.payloads.log import PayloadLog
from driftline.serving.payloads.queue import Asked

ASKED = Asked("m", b"application/json", b"", None)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly any rest between attempts."""
    monkeypatch.setattr(module, "FIRST_REST", 0.001)


@contextmanager
def logging_to(url: str, mode: str = "all", **settings: object) -> Iterator[PayloadLog]:
    payloads = PayloadLog.of(Server(log_payloads=mode, log_sink=url, **settings))  # type: ignore[arg-type]
    assert payloads is not None
    try:
        yield payloads
    finally:
        payloads.close()


def say(payloads: PayloadLog, status: int = 200, size: int = 2) -> None:
    payloads.record(ASKED, b"q" * size, status, b"", b"a" * size, None)


def test_both_halves_come_with_one_id() -> None:
    with receiving() as receiver:
        with logging_to(receiver.url) as payloads:
            for _ in range(10):
                say(payloads)
        found = receiver.wait(20)
        assert {(event.type.rpartition(".")[2], event.data) for event in found} == {
            ("request", b"qq"), ("response", b"aa"),
        }  # fmt: skip
        assert len({event.id for event in found}) == 10
        assert payloads.counts.sent == 20
        assert all(headers["content-type"] == "application/json" for headers in receiver.headers)


@pytest.mark.parametrize(("mode", "types"), [("request", ["request"]), ("response", ["response"])])
def test_one_half_may_do(mode: str, types: list[str]) -> None:
    with receiving() as receiver:
        with logging_to(receiver.url, mode) as payloads:
            say(payloads)
        assert [event.type.rpartition(".")[2] for event in receiver.wait(1)] == types
        assert payloads.counts.sent == 1


def test_what_was_refused_has_no_answer() -> None:
    with receiving() as receiver:
        with logging_to(receiver.url) as payloads:
            say(payloads, 400)
        assert [event.data for event in receiver.wait(1)] == [b"qq"]


def test_what_fails_is_tried_again() -> None:
    with receiving(503, 429, 500, 503) as receiver:
        with logging_to(receiver.url) as payloads:
            say(payloads)
            receiver.wait(2)
        assert (payloads.counts.sent, payloads.counts.dropped) == (2, 0)


def test_a_refusal_is_final_and_names_the_host_only(caplog: pytest.LogCaptureFixture) -> None:
    with receiving(403, 403) as receiver, logging_to(receiver.url) as payloads:
        say(payloads)
        until(lambda: payloads.counts.dropped == 2, "what was refused")
    assert "payloads could not be posted to 127.0.0.1: 403" in caplog.text
    assert "secret" not in caplog.text


def test_halves_are_sampled_together() -> None:
    with receiving() as receiver:
        with logging_to(receiver.url, log_sample=0.25) as payloads:
            for _ in range(200):
                say(payloads)
        counts = payloads.counts
        assert counts.sent == len(receiver.events)
        halves = [event.id for event in receiver.events]
        assert all(halves.count(one) == 2 for one in set(halves))
        assert 10 <= len(set(halves)) <= 100  # 50 on average, with a standard deviation of 6


def test_who_is_slow_costs_the_oldest_and_no_memory() -> None:
    with receiving() as receiver:
        receiver.gate.clear()
        with logging_to(receiver.url, log_queue_bytes=2**20) as payloads:
            process = psutil.Process(os.getpid())
            for _ in range(100):
                say(payloads, size=5000)
            before = process.memory_info().rss
            for _ in range(10_000):
                say(payloads, size=5000)
                assert payloads.counts.queued_bytes <= 2**20
            assert process.memory_info().rss - before < 20 * 2**20
            assert payloads.counts.dropped > 19_000
            receiver.gate.set()
        counts = payloads.counts
        assert counts.queued == 0
        assert counts.sent + counts.dropped == 20_200


def test_nobody_there_is_given_up_in_the_end() -> None:
    with receiving() as receiver:
        url = receiver.url
    with logging_to(url) as payloads:
        say(payloads)
        until(lambda: payloads.counts.dropped == 2, "what was given up")


def test_a_connection_that_was_closed_meanwhile_is_opened_anew() -> None:
    from urllib.parse import urlsplit

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
            say(payloads)
        receiver.wait(2)
        assert receiver.headers[0]["authorization"] == "Basic bWU6cEBzcw=="


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"log_payloads": "all"}, "log_payloads: expected log_sink, a URL or a folder, with it"),
        ({"log_sink": "x"}, "log_sink: expected log_payloads = 'all', 'request' or 'response' with it"),
        ({"log_payloads": "all", "log_sink": "s3://a:b@c"}, "or a folder, came 's3'://"),
        ({"log_payloads": "all", "log_sink": "http://"}, "expected a URL such as http://host:8080/path"),
        ({"log_payloads": "all", "log_sink": "http://a:x/"}, "expected a URL such as"),
        ({"log_payloads": "all", "log_sink": "/proc/none"}, "log_sink = '/proc/none'"),
    ],
)
def test_what_can_not_be_logged_to_is_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PayloadLog.of(Server(**settings))  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_nothing_is_logged_if_nobody_says_so() -> None:
    assert PayloadLog.of(Server()) is None


@pytest.mark.parametrize("batch", [2, 5, 64])
def test_what_waits_goes_together(batch: int) -> None:
    with receiving() as receiver:
        receiver.gate.clear()
        with logging_to(receiver.url, log_batch=batch) as payloads:
            for _ in range(module.SENDERS + 100):
                say(payloads)
            receiver.gate.set()
            count = 2 * (module.SENDERS + 100)
            found = receiver.wait(count)
        assert payloads.counts.sent == count
        assert len({(event.id, event.type) for event in found}) == count
        posts = receiver.headers
        assert {headers["content-type"].partition(";")[0] for headers in posts} == {BATCH}
        assert len(posts) >= count / batch
        assert len(posts) <= count / 2
    with receiving(400) as receiver, logging_to(receiver.url, log_batch=batch) as payloads:
        say(payloads)
        until(lambda: payloads.counts.dropped == 2, "a refusal")


def test_large_ones_do_not_wait_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_POST_BYTES", 10_000)
    with receiving() as receiver:
        with logging_to(receiver.url, "request", log_batch=1000) as payloads:
            for _ in range(20):
                say(payloads, size=6_000)
            receiver.wait(20)
        assert len(receiver.headers) >= 10
