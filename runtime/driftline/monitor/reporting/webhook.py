"""Post alarms over HTTP as CloudEvents, with retries, without holding up serving."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

import orjson

from driftline.backoff import backoff
from driftline.errors import ConfigError, listed
from driftline.monitor.reporting.outbox import Outbox
from driftline.rules import host_and_port, url_parts, without_secrets

if TYPE_CHECKING:
    import httpx

    from driftline.monitor.detection.signals import Signal  # which loads kernels

log = logging.getLogger("driftline.webhook")

ATTEMPTS = 8
TIMEOUT_SECONDS = 10.0

MAX_WAITING = 10_000
"""Alarms that may wait: all columns of many wide models may alarm in one look."""

SILENCE_SECONDS = 60.0
"""Minimum seconds between two log lines about alarms that are not posted yet."""


class Webhook:
    """Posts each alarm to a URL, as a CloudEvent in structured JSON.

    Network errors, 429 and 5xx are retried with increasing delays; other responses are final. Log lines
    contain only the host and the port, since URLs may hold secrets.

    Raises ConfigError if the URL is not http:// or https://.
    """

    def __init__(self, url: str) -> None:
        parts = url_parts(url)
        if parts is None:
            raise ConfigError(
                f"alarm_webhook = {without_secrets(url)!r}: expected an http:// or https:// URL"
            )
        self._url = url
        self._target = host_and_port(parts)
        self._lost = 0
        self._lost_at_end: list[str] = []
        self._last_warning = -SILENCE_SECONDS
        self._client: httpx.Client | None = None
        self._out_of_time = False
        self._outbox: Outbox[dict[str, Any]] = Outbox(self._deliver, "alarm-webhook", MAX_WAITING, _label)

    @property
    def dropped(self) -> int:
        """Alarms that were not posted: given up, dropped from a full queue, or left when it was closed."""
        return self._outbox.dropped + self._lost

    def post(self, signal: Signal) -> None:
        """Queue an alarm to be posted; never blocks."""
        self._outbox.put(event(signal))

    def close(self) -> None:
        """Post the queued alarms, for ten seconds at most; log those that could not be posted."""
        remaining = self._outbox.close()
        self._out_of_time = bool(remaining)
        self._lost += len(remaining)
        if lost := [*self._lost_at_end, *(f"{_label(content)} (no time left)" for content in remaining)]:
            log.error("%d alarms could not be posted to %s: %s", len(lost), self._target, listed(lost, 6))
        if self._client is not None and not remaining:
            self._client.close()

    def _deliver(self, content: dict[str, Any]) -> None:
        if self._out_of_time:
            return
        was_closed = False
        try:
            reason, was_closed = self._post(content)
        except Exception as error:  # unexpected, but the alarm must be named and counted all the same
            reason = type(error).__name__
        if not reason or self._out_of_time:
            return
        self._lost += 1
        if was_closed:
            self._lost_at_end.append(f"{_label(content)} ({reason})")
        else:
            log.error("the alarm of %s could not be posted to %s: %s", _label(content), self._target, reason)

    def _post(self, content: dict[str, Any]) -> tuple[str, bool]:
        """Post an alarm, with retries; return why it was given up, "" if it was not, and whether that was
        because the outbox was closed."""
        import httpx  # takes 0.1 s, so only when there are alarms

        if self._client is None:
            self._client = httpx.Client(timeout=TIMEOUT_SECONDS)  # one: each takes 26 ms for its certificates
        body = orjson.dumps(content)
        headers = {"content-type": "application/cloudevents+json; charset=utf-8"}
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt and not self._outbox.rest(backoff(attempt)):
                return reason, True
            try:
                response = self._client.post(self._url, content=body, headers=headers)
            except httpx.HTTPError as error:
                reason = type(error).__name__
                self._log_retry(content, reason)
                continue
            reason = str(response.status_code)
            if response.is_success:
                return "", False
            if response.status_code != 429 and response.status_code < 500:
                break
            self._log_retry(content, reason)
        return reason, False

    def _log_retry(self, content: dict[str, Any], reason: str) -> None:
        now = monotonic()
        if now - self._last_warning >= SILENCE_SECONDS:
            self._last_warning = now
            log.warning(
                "the alarm of %s can't be posted to %s: %s; more attempts follow, %d more alarms wait",
                _label(content), self._target, reason, self._outbox.waiting,
            )  # fmt: skip


def event(signal: Signal) -> dict[str, Any]:
    """Return a signal as a CloudEvent 1.0."""
    content = {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": f"/v2/models/{quote(signal.model)}/versions/{signal.version}",
        "type": f"io.driftline.{signal.kind}",
        "time": signal.when.isoformat(),
        "datacontenttype": "application/json",
        "data": signal.to_dict(),
    }
    return content | {"subject": signal.column} if signal.column else content


def _label(content: dict[str, Any]) -> str:
    """Return an alarm's model, version and column, for messages."""
    data = content["data"]
    return " ".join(str(data[key]) for key in ("model", "version", "column") if data.get(key))
