"""Posts payloads to a URL as events of KServe's logger, singly or in batches, with retries."""

from __future__ import annotations

import logging
import socket
import ssl
from base64 import b64encode
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from threading import Lock, Thread
from time import monotonic, sleep
from urllib.parse import SplitResult, unquote

from driftline.backoff import backoff, jittered
from driftline.errors import ConfigError
from driftline.protocols import cloudevents
from driftline.protocols.payloads import Payload, to_event
from driftline.rules import host_and_port, url_parts
from driftline.serving.payloads.queue import Queue

log = logging.getLogger("driftline.payloads")

SENDERS = 4
"""Connections to the sink; KServe's logger has 5."""

ATTEMPTS = 8
FIRST_DELAY_SECONDS = 0.25
"""Seconds between the first two attempts; doubled after each."""
TIMEOUT_SECONDS = 10.0

SILENCE_SECONDS = 60.0
"""Least seconds between two log lines about payloads that could not be posted, or not yet."""

MAX_POST_BYTES = 2**20
"""Most bytes of bodies in a post of several payloads."""

_POLL_SECONDS = 1.0
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class EventSink:
    """Posts each payload in CloudEvents' binary mode, or several as a batch.

    Network errors, 429 and 5xx are retried; other responses are final. Log lines name
    the host and the port only, since URLs may hold secrets.

    url        http or https; a user and a password in it become basic authentication
    namespace  of Kubernetes; if empty, that of the pod, or `default` outside a pod
    max_batch  most payloads in a post; 1: binary mode

    Raises ConfigError for any other URL.
    """

    def __init__(self, url: str, namespace: str = "", max_batch: int = 1) -> None:
        parts = url_parts(url)
        if parts is None:
            raise ConfigError("--log-sink: expected a URL such as http://host:8080/path")
        self._url = parts
        self._target = host_and_port(parts)
        self._source = socket.gethostname()
        self._namespace = namespace or pod_namespace()
        self._max_batch = max_batch
        self._last_error = self._last_warning = -SILENCE_SECONDS
        self._unreported = 0
        self._last_reason = ""
        self._unreachable_reason = ""
        self._log_lock = Lock()

    def threads(self, queue: Queue) -> list[Thread]:
        """See Sink."""
        return [
            Thread(target=self._send_all, args=(queue,), name=f"driftline-payloads-{number}", daemon=True)
            for number in range(SENDERS)
        ]

    def _send_all(self, queue: Queue) -> None:
        sender = Sender(self._url)
        try:
            while not queue.late:
                posts, size = self._take_posts(queue)
                for remaining_posts, payloads in zip(reversed(range(len(posts))), posts, strict=True):
                    try:
                        failure = self._deliver(queue, sender, payloads)
                    except Exception as error:  # unexpected; the next post may succeed
                        failure = f"{type(error).__name__}: {error}"
                    if failure:
                        self._log_failure(failure, len(payloads))
                    given_up = len(payloads) if failure else 0
                    queue.count_done(len(payloads) - given_up, given_up, 0 if remaining_posts else size)
                self._log_failures()
                if not posts and queue.closed:
                    return
        finally:
            sender.close()
            self._log_failures(at_end=True)

    def _take_posts(self, queue: Queue) -> tuple[list[list[Payload]], int]:
        """Take payloads from the queue; none if none arrives for _POLL_SECONDS.

        Returns them grouped into posts, and the bytes of their exchanges.
        """
        exchanges = queue.take(_POLL_SECONDS, self._max_batch, MAX_POST_BYTES)
        payloads = [payload for exchange in exchanges for payload in exchange.payloads()]
        size = self._max_batch
        posts = [payloads[start : start + size] for start in range(0, len(payloads), size)]
        return posts, sum(exchange.size for exchange in exchanges)

    def _deliver(self, queue: Queue, sender: Sender, payloads: list[Payload]) -> str:
        """Send a post, with retries; return why it was given up, "" if it was not.

        Once a sink can't be reached in all attempts while the server stops, nothing more is tried: what waits
        would only delay the end.
        """
        if self._unreachable_reason:
            return self._unreachable_reason
        events = [to_event(payload, self._source, self._namespace) for payload in payloads]
        single = self._max_batch == 1
        fields, body = cloudevents.to_binary(events[0]) if single else cloudevents.to_batch(events)
        reason = "the server stops"
        for attempt in range(ATTEMPTS):
            if attempt and not self._wait(queue, attempt):
                break
            try:
                status = sender.post(fields, body)
            except (OSError, HTTPException) as error:
                sender.close()
                reason = type(error).__name__
                self._log_retry(reason)
                if queue.ending and attempt == ATTEMPTS - 1:
                    self._unreachable_reason = reason
                continue
            if 200 <= status < 300:
                return ""
            reason = str(status)
            if status != 429 and status < 500:
                break
            self._log_retry(reason)
        return reason

    def _wait(self, queue: Queue, attempt: int) -> bool:
        """Wait before the next attempt; return False if there is no time for one."""
        deadline = monotonic() + jittered(backoff(attempt, FIRST_DELAY_SECONDS))
        while (remaining := deadline - monotonic()) > 0 and not queue.ending:
            sleep(min(remaining, 0.1))
        if queue.ending:
            sleep(min(max(0.0, deadline - monotonic()), 0.1))
        return not queue.late

    def _log_retry(self, reason: str) -> None:
        now = monotonic()
        with self._log_lock:
            if now - self._last_warning < SILENCE_SECONDS:
                return
            self._last_warning = now
        log.warning("payloads can't be posted to %s: %s; more attempts follow", self._target, reason)

    def _log_failure(self, reason: str, count: int) -> None:
        with self._log_lock:
            self._unreported += count
            self._last_reason = reason
        self._log_failures()

    def _log_failures(self, at_end: bool = False) -> None:
        """Log the failures that are not logged yet, unless the last line is recent."""
        now = monotonic()
        with self._log_lock:
            recent = now - self._last_error < SILENCE_SECONDS
            if not self._unreported or (recent and not at_end):
                return
            count, self._unreported, self._last_error = self._unreported, 0, now
            reason = self._last_reason
        log.error("%d payloads could not be posted to %s: %s", count, self._target, reason)


class Sender:
    """A keep-alive connection, opened with the first post."""

    def __init__(self, url: SplitResult) -> None:
        self._url = url
        self._target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._context = ssl.create_default_context() if url.scheme == "https" else None
        self._default_fields = [(b"user-agent", b"driftline")]
        if url.username is not None:
            credentials = f"{unquote(url.username)}:{unquote(url.password or '')}".encode()
            self._default_fields.append((b"authorization", b"Basic " + b64encode(credentials)))
        self._connection: HTTPConnection | None = None

    def post(self, fields: cloudevents.Fields, body: bytes) -> int:
        """Send a POST and return the response's status; raise OSError or HTTPException without a response.

        A server may close an idle connection just as it is reused: then the post is sent once more, over a
        new one.
        """
        if self._connection is not None:
            with suppress(OSError, HTTPException):
                return self._post(self._connection, fields, body)
            self.close()
        self._connection = self._open()
        return self._post(self._connection, fields, body)

    def _open(self) -> HTTPConnection:
        host = str(self._url.hostname)
        if self._context is not None:
            return HTTPSConnection(host, self._url.port, timeout=TIMEOUT_SECONDS, context=self._context)
        return HTTPConnection(host, self._url.port, timeout=TIMEOUT_SECONDS)

    def _post(self, connection: HTTPConnection, fields: cloudevents.Fields, body: bytes) -> int:
        connection.putrequest("POST", self._target, skip_accept_encoding=True)
        for name, value in (*self._default_fields, *fields, (b"content-length", b"%d" % len(body))):
            connection.putheader(name.decode(), value)
        connection.endheaders(body)
        response: HTTPResponse = connection.getresponse()
        response.read()
        if response.will_close:
            self.close()
        return response.status

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def pod_namespace() -> str:
    """Return the namespace of this process's pod, `default` outside a pod."""
    try:
        return _NAMESPACE.read_text(encoding="ascii").strip() or "default"
    except (OSError, ValueError):
        return "default"
