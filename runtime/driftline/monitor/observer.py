"""The layer between serving and monitoring: observing never fails a request and never delays one."""

from __future__ import annotations

import errno
import logging
from collections import deque
from collections.abc import Callable
from itertools import count
from threading import Event, Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING

from driftline.backoff import backoff
from driftline.blocks import copy, size_in_bytes
from driftline.errors import Unavailable
from driftline.tensors import Tensors
from driftline_kernels import compiling

if TYPE_CHECKING:
    from driftline.monitor.monitor import Monitor

log = logging.getLogger("driftline.monitor")

MAX_BYTES = 64 * 2**20
"""Bytes of batches that may wait while the monitor is loaded; others are counted as skipped."""

TICK_SECONDS = 0.25
"""Seconds between two calls of `keep_time`."""

SILENCE_SECONDS = 60.0
"""The least seconds between two log lines about rows that could not be observed."""


SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
"""Temporary shortages of a machine or a process: of files, memory or threads."""


class Observer:
    """Observes the batches of one version as they are served.

    A monitor needs Numba, which takes half a second or more to load: until then, batches wait in a
    bounded queue. Batches that do not fit the profile are skipped, counted, and logged now and then. If the
    monitor can't be loaded for lack of files or memory, it is retried with backoff, and batches keep waiting.

    make_monitor  called in a thread of its own
    name          of the model and version, in log lines
    """

    def __init__(self, make_monitor: Callable[[], Monitor], name: str) -> None:
        self.monitor: Monitor | None = None
        self.failure = ""
        self.skipped_rows = 0
        self.waiting_rows = 0
        self._make_monitor = make_monitor
        self._name = name
        self._waiting: deque[tuple[Tensors, int, int]] = deque()
        self._waiting_bytes = 0
        self._lock = Lock()
        self._started = False
        self._closed = False
        self._stop = Event()
        self._last_log_time = -SILENCE_SECONDS

    def start(self) -> None:
        """Start loading the monitor in the background, if not done yet; batches may arrive meanwhile."""
        if not self._started:
            self._started = True
            Thread(target=self._load, name="driftline-monitor", daemon=True).start()

    def close(self) -> None:
        """Drop the waiting batches; nothing more is observed."""
        with self._lock:
            self._closed = True
            self._clear_queue()
        self._stop.set()

    def observe(self, columns: Tensors, rows: int) -> bool:
        """Count a batch of so many rows: inputs and outputs by name; return False if it was skipped."""
        if self.monitor is None and (is_queued := self._enqueue(columns, rows)) is not None:
            return is_queued
        assert self.monitor is not None
        try:
            self.monitor.observe(columns)
        except Exception as error:  # whatever it is, it must not fail the request
            self.skip(rows, str(error))
            return False
        return True

    def keep_time(self) -> None:
        """Look at the latest rows, and end the window, if due; call this every TICK_SECONDS."""
        if self.monitor is not None:
            try:
                self.monitor.keep_time()
            except Exception:  # whatever it is, the next call may succeed
                log.exception("%s: what is due by the clock can't be done", self._name)

    def skip(self, rows: int, reason: str) -> None:
        """Count rows that are not observed, and log them now and then."""
        self.skipped_rows += rows
        now = monotonic()
        if rows and now - self._last_log_time >= SILENCE_SECONDS:
            self._last_log_time = now
            log.warning(
                "%s: %d rows were not monitored, %d so far: %s", self._name, rows, self.skipped_rows, reason
            )

    def ready(self) -> Monitor:
        """Return the monitor; raise Unavailable if it is still being loaded, or can't be."""
        if self.monitor is None:
            raise Unavailable(
                f"{self._name} is not monitored: {self.failure}"
                if self.failure
                else f"the monitor of {self._name} is being loaded"
            )
        return self.monitor

    def _load(self) -> None:
        for failures in count(1):
            try:
                compiling.load()
                monitor = self._make_monitor()
                break
            except Exception as error:  # a wrong profile, say: serving continues
                self.failure = str(error)
                if not is_temporary(error):
                    self._give_up(error)
                    return
                delay = backoff(failures)
                log.error("%s is not monitored: %s; next try in %d s", self._name, error, delay)
                if self._stop.wait(delay):
                    return
        self.failure = ""
        while True:
            with self._lock:
                if not self._waiting or self._closed:
                    self.monitor = None if self._closed else monitor
                    return
                columns, rows, nbytes = self._waiting.popleft()
                self.waiting_rows -= rows
                self._waiting_bytes -= nbytes
            try:
                monitor.observe(columns)
            except Exception as error:
                self.skip(rows, str(error))

    def _give_up(self, error: Exception) -> None:
        log.error("%s is not monitored: %s", self._name, error)
        with self._lock:
            self._closed = True
            self.skip(self.waiting_rows, self.failure)
            self._clear_queue()

    def _enqueue(self, columns: Tensors, rows: int) -> bool | None:
        """Queue a batch for the monitor; return False if it was skipped, None if the monitor is loaded."""
        with self._lock:
            if self.monitor is not None:
                return None
            nbytes = size_in_bytes(columns)
            if not self._closed and self._waiting_bytes + nbytes <= MAX_BYTES:
                self._waiting.append((copy(columns), rows, nbytes))
                self._waiting_bytes += nbytes
                self.waiting_rows += rows
                return True
        self.skip(rows, self.failure or "too many rows wait for the monitor to be loaded")
        return False

    def _clear_queue(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = self.waiting_rows = 0


def is_temporary(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, is a temporary shortage: a retry may succeed."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in SHORTAGES):
            return True
        error = error.__cause__ or error.__context__
    return False
