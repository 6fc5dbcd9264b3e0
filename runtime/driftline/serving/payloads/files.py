"""Writes payloads to Parquet files."""

from __future__ import annotations

import logging
import os
import socket
import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

from driftline.backoff import backoff
from driftline.errors import ConfigError
from driftline.files import replacing
from driftline.protocols.payloads import Payload, to_table
from driftline.serving.payloads.queue import Queue

log = logging.getLogger("driftline.payloads")


class FileSink:
    """Writes files whose names begin with the time; each appears when it is complete.

    folder     created if it does not exist
    max_bytes  a file is written when its exchanges take so many bytes
    seconds    a file is written so long after its first payload, even if it is not full

    While a file can't be written, its payloads are kept and others wait in the queue, which drops the oldest.

    Raises ConfigError if the folder can't be made or written to.
    """

    def __init__(self, folder: str, max_bytes: int, seconds: float) -> None:
        self._folder = Path(folder)
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._suffix = f"{socket.gethostname()}-{os.getpid()}.parquet"  # other processes may write here, too
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self._folder, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise ConfigError(f"--log-sink = {folder!r}: {error.strerror}") from error

    def threads(self, queue: Queue) -> list[Thread]:
        """See Sink."""
        return [Thread(target=self._write_all, args=(queue,), name="driftline-payloads", daemon=True)]

    def _write_all(self, queue: Queue) -> None:
        payloads: list[Payload] = []
        size, deadline = 0, 0.0
        while True:
            remaining = deadline - monotonic() if payloads else self._seconds
            exchanges = queue.take(remaining, sys.maxsize, self._max_bytes - size) if remaining > 0 else []
            if exchanges and not payloads:
                deadline = monotonic() + self._seconds
            for exchange in exchanges:
                payloads += exchange.payloads()
                size += exchange.size
            ended = not exchanges and remaining > 0 and queue.closed
            if payloads and (ended or size >= self._max_bytes or monotonic() >= deadline):
                self._write(queue, payloads, size)
                payloads, size = [], 0
            if ended:
                return

    def _write(self, queue: Queue, payloads: list[Payload], size: int) -> None:
        """Write a file of payloads whose exchanges have `size` bytes; retry until the server stops."""
        for failures in count(1):
            try:
                self._write_file(payloads)
            except OSError as error:
                log.error("%d payloads can't be written to %s: %s", len(payloads), self._folder, error)
            except Exception as error:  # a retry would not help
                log.error("%d payloads can't be written: %s: %s", len(payloads), type(error).__name__, error)
                queue.count_done(given_up=len(payloads), size=size)
                return
            else:
                queue.count_done(sent=len(payloads), size=size)
                return
            deadline = monotonic() + backoff(failures)
            while monotonic() < deadline and not queue.ending:
                sleep(0.1)
            if queue.ending:
                queue.count_done(given_up=len(payloads), size=size)
                return

    def _write_file(self, payloads: list[Payload]) -> None:
        import pyarrow.parquet as pq  # takes 0.3 s

        path = self._folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{self._suffix}"
        with replacing(path) as new:
            pq.write_table(to_table(payloads), new, compression="zstd", use_dictionary=["model"])
