"""The payloads of a server, logged."""

from __future__ import annotations

import logging
import random
from threading import Thread
from time import monotonic, time
from typing import Protocol

from driftline.config import Server
from driftline.errors import ConfigError
from driftline.registry.source import Version
from driftline.serving.payloads.queue import Asked, Counts, Exchange, Queue

log = logging.getLogger("driftline.payloads")

CLOSE_SECONDS = 5.0
"""So long may it take to log what waits when the server stops."""


class Sink(Protocol):
    """Where payloads go."""

    def threads(self) -> list[Thread]:
        """The threads that will take what waits and log it, until the queue is closed and empty."""
        ...


class PayloadLog:
    """Takes what was asked and answered, and has it logged by threads of its own.

    requests, responses  which halves
    sample               the part of all exchanges that is logged; both halves are or none
    """

    def __init__(self, queue: Queue, sink: Sink, requests: bool, responses: bool, sample: float) -> None:
        self._queue = queue
        self._sink = sink
        self._requests = requests
        self._responses = responses
        self._sample = sample
        self._threads: list[Thread] = []

    @classmethod
    def of(cls, settings: Server) -> PayloadLog | None:
        """As the settings say; None if nothing is to be logged. ConfigError if that is not possible."""
        mode, sink = settings.log_payloads, settings.log_sink
        if mode == "none":
            if sink:
                raise ConfigError("log_sink: expected log_payloads = 'all', 'request' or 'response' with it")
            return None
        queue = Queue(settings.log_queue_bytes)
        return cls(
            queue, open_sink(settings, queue), mode != "response", mode != "request", settings.log_sample
        )

    def record(
        self,
        asked: Asked,
        body: bytes,
        status: int,
        fields: bytes,
        content: bytes,
        version: Version | None,
    ) -> None:
        """Leave an exchange to be logged, if it is of the sample; of answers, only those of status 200.

        Called on the event loop only; never waits.
        """
        if self._sample < 1.0 and random.random() >= self._sample:  # noqa: S311
            return
        request = body if self._requests else None
        response = content if self._responses and status == 200 else None
        if request is None and response is None:
            return
        if not self._threads:
            self._threads = self._sink.threads()
            for thread in self._threads:
                thread.start()
        self._queue.put(Exchange(time(), asked, request, status, fields, response, version))

    @property
    def counts(self) -> Counts:
        """Payloads by what became of them."""
        return self._queue.counts

    def close(self) -> None:
        """Log what waits, for some seconds at most."""
        self._queue.close(CLOSE_SECONDS)
        until = monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - monotonic()))
        if left := self._queue.counts.queued:
            log.error("%d payloads were not logged", left)


def open_sink(settings: Server, queue: Queue) -> Sink:
    """What logs to `log_sink`; ConfigError if that is not possible."""
    sink = settings.log_sink
    if not sink:
        raise ConfigError("log_payloads: expected log_sink, a URL or a folder, with it")
    if sink.startswith(("http://", "https://")):
        from driftline.serving.payloads.events import EventSink

        return EventSink(sink, queue, settings.log_namespace, settings.log_batch)
    if "://" in sink:
        scheme = sink.partition("://")[0]  # the rest may hold a password
        raise ConfigError(f"log_sink: expected an http:// or https:// URL or a folder, came {scheme!r}://")
    from driftline.serving.payloads.files import FileSink

    return FileSink(sink, queue, settings.log_file_bytes, settings.log_file_seconds)
