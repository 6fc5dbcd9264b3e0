"""Chooses by the settings where payloads go."""

from __future__ import annotations

from threading import Thread
from typing import Protocol

from driftline.config import Server
from driftline.errors import ConfigError
from driftline.serving.payloads.queue import Queue


class Sink(Protocol):
    """Logs payloads."""

    def threads(self, queue: Queue) -> list[Thread]:
        """Return unstarted threads that log what is in the queue until it is closed and empty."""
        ...


def open_sink(settings: Server) -> Sink:
    """Return the sink that `log_sink` names; ConfigError if it can't be used."""
    sink = settings.log_sink
    if not sink:
        raise ConfigError("--log-payloads: expected --log-sink, a URL or a folder, with it")
    if sink.startswith(("http://", "https://")):
        from driftline.serving.payloads.events import EventSink

        return EventSink(sink, settings.log_namespace, settings.log_batch)
    if "://" in sink:
        scheme = sink.partition("://")[0]  # the rest may hold a password
        raise ConfigError(f"--log-sink: expected an http:// or https:// URL or a folder, got {scheme!r}://")
    from driftline.serving.payloads.files import FileSink

    return FileSink(sink, settings.log_file_bytes, settings.log_file_seconds)
