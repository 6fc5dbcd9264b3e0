"""Alarms by HTTP, to receivers that refuse, fail and are away."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from server_process import receiver

from driftline.errors import ConfigError
from driftline.monitor.comparison.statistics import Statistic
from driftline.monitor.detection.signals import Signal
from driftline.monitor.reporting import webhook as module
from driftline.monitor.reporting.outbox import Outbox
from driftline.monitor.reporting.webhook import Webhook, event

SIGNAL = Signal(
    "alarm", "flights", 3, "dep delay", datetime(2026, 1, 2, tzinfo=UTC), 1000, 14.0, (),
    {"psi": Statistic(0.3, 0.01)}, "mean up 0.4 sd",
)  # fmt: skip


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rest between attempts."""
    monkeypatch.setattr(Outbox, "rest", lambda self, seconds: True)


def test_an_alarm_is_a_cloud_event() -> None:
    content = event(SIGNAL)
    assert content.pop("id") != event(SIGNAL)["id"]
    assert content == {
        "specversion": "1.0",
        "source": "/v2/models/flights/versions/3",
        "type": "io.driftline.alarm",
        "subject": "dep delay",
        "time": "2026-01-02T00:00:00+00:00",
        "datacontenttype": "application/json",
        "data": SIGNAL.to_dict(),
    }


def test_what_fails_is_tried_again_as_the_same_event() -> None:
    with receiver(503, 429, 500) as (url, bodies):
        webhook = Webhook(url)
        webhook.post(SIGNAL)
        webhook.close()
    assert len(bodies) == 4
    assert len({body["id"] for _, body in bodies}) == 1


def test_a_refusal_is_final_and_names_the_host_and_the_port_only(caplog: pytest.LogCaptureFixture) -> None:
    with receiver(403) as (url, bodies):
        webhook = Webhook(url)
        webhook.post(SIGNAL)
        webhook.close()
    assert len(bodies) == 1
    assert (
        f"the alarm of flights 3 dep delay could not be posted to {urlsplit(url).netloc}: 403" in caplog.text
    )
    assert webhook.dropped == 1
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("driftline")]
    assert ours
    assert not any("secret" in line for line in ours)


def test_nobody_there_is_given_up_in_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with receiver() as (url, _):
        pass
    webhook = Webhook(url)
    webhook.post(SIGNAL)
    webhook.close()
    where = urlsplit(url).netloc
    assert [line for line in caplog.messages if "alarm" in line] == [
        f"the alarm of flights 3 dep delay can't be posted to {where}: ConnectError; "
        "more attempts follow, 0 more alarms wait",
        f"the alarm of flights 3 dep delay could not be posted to {where}: ConnectError",
    ]
    assert webhook.dropped == 1


def test_what_waits_at_the_end_is_named_in_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Outbox, "rest", lambda self, seconds: False)
    with receiver() as (url, _):
        pass
    webhook = Webhook(url)
    webhook.post(SIGNAL)
    webhook.post(replace(SIGNAL, column=""))
    webhook.close()
    (line,) = [line for line in caplog.messages if "could not" in line]
    assert line == (
        f"2 alarms could not be posted to {urlsplit(url).netloc}: "
        "flights 3 dep delay (ConnectError), flights 3 (ConnectError)"
    )
    assert webhook.dropped == 2


def test_all_columns_of_a_wide_model_may_alarm_at_once() -> None:
    with receiver() as (url, bodies):
        webhook = Webhook(url)
        for number in range(300):
            webhook.post(replace(SIGNAL, column=f"c{number}"))
        webhook.close()
    assert [body["subject"] for _, body in bodies] == [f"c{number}" for number in range(300)]
    assert webhook.dropped == 0


def test_what_there_is_no_time_for_is_named_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, taken, go = Outbox.close, threading.Event(), threading.Event()

    def stall(*arguments: object) -> tuple[str, bool]:
        taken.set()
        go.wait(30)
        return "503", False

    monkeypatch.setattr(Webhook, "_post", stall)
    monkeypatch.setattr(Outbox, "close", lambda self: close(self, 0.1))
    webhook = Webhook("http://here/")
    for number in range(8):
        webhook.post(replace(SIGNAL, column=f"c{number}"))
    assert taken.wait(30)
    webhook.close()
    named = ", ".join(f"flights 3 c{number} (no time left)" for number in range(6))
    assert f"8 alarms could not be posted to here: {named}, 2 more" in caplog.messages
    go.set()
    webhook._outbox._thread.join(30)  # type: ignore[union-attr]
    assert webhook.dropped == 8


def test_what_fails_unexpectedly_is_named_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    webhook = Webhook("http://xn--/")  # no HTTPError in httpx
    webhook.post(SIGNAL)
    webhook.close()
    assert "the alarm of flights 3 dep delay could not be posted to xn--: IDNAError" in caplog.messages
    assert webhook.dropped == 1


def test_one_client_posts_all(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[httpx.Client] = []

    class Client(httpx.Client):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            made.append(self)

    monkeypatch.setattr(httpx, "Client", Client)
    with receiver() as (url, bodies):
        webhook = Webhook(url)
        for _ in range(3):
            webhook.post(SIGNAL)
        webhook.close()
    assert len(bodies) == 3
    assert [client.is_closed for client in made] == [True]


@pytest.mark.parametrize(
    "url", ["", "flights", "ftp://x/", "http://", "http://x/\n", "http://x/\0", " http://x/", "http://x "]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected an http:// or https:// URL"):
        Webhook(url)


def test_attempts_are_bounded() -> None:
    with receiver(*[500] * 100) as (url, bodies):
        webhook = Webhook(url)
        webhook.post(SIGNAL)
        webhook.close()
    assert len(bodies) == module.ATTEMPTS
