"""Background work, done one item at a time by a thread that nothing waits for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Lock, Thread
from time import monotonic
from typing import Generic, TypeVar

from driftline.errors import listed

log = logging.getLogger("driftline.monitor")

SILENCE_SECONDS = 60.0
"""Minimum seconds between two log lines about dropped items."""

Item = TypeVar("Item")


class Outbox(Generic[Item]):
    """A bounded queue and the thread that works through it.

    work   called with each item; its exceptions are logged
    name   of the work, for log lines
    size   maximum number of items that wait; beyond it, the oldest are dropped, counted and logged
    label  returns an item's name, for log lines
    """

    def __init__(
        self, work: Callable[[Item], None], name: str, size: int = 1000, label: Callable[[Item], str] = str
    ) -> None:
        self.dropped = 0
        self._work = work
        self._name = name
        self._label = label
        self._dropped_names: list[str] = []
        self._last_line = -SILENCE_SECONDS
        self._lock = Lock()
        self._in_progress: list[Item] = []
        self._items: Queue[Item] = Queue(size)
        self._closed = Event()
        self._thread: Thread | None = None

    def put(self, item: Item) -> None:
        """Queue an item; never blocks."""
        while True:
            try:
                self._items.put_nowait(item)
                break
            except Full:
                self._drop()
        self._start()

    def _start(self) -> None:
        """Start the thread, if it does not run yet. While the system has none to spare, items wait."""
        with self._lock:
            if self._thread is not None:
                return
            thread = Thread(target=self._run, name=f"driftline-{self._name}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                log.error("%s: %s; %d wait", self._name, error, self.waiting)
            else:
                self._thread = thread

    @property
    def waiting(self) -> int:
        """The number of items that wait."""
        return self._items.qsize()

    def rest(self, seconds: float) -> bool:
        """Wait between attempts in `work`; return False if the outbox was closed meanwhile."""
        return not self._closed.wait(seconds)

    def end(self) -> None:
        """Take no more items; the thread ends once those that wait are done."""
        self._closed.set()

    def close(self, seconds: float = 10.0) -> list[Item]:
        """Take no more items; wait at most `seconds` for those in the queue to be done; return the others."""
        self.end()
        if self.waiting:
            self._start()
        if self._thread is not None:
            self._thread.join(seconds)
            self._log_dropped(at_end=True)
        if not (self._thread.is_alive() if self._thread is not None else self.waiting):
            return []
        log.error("%s: not done in %g s; %d more wait and are lost", self._name, seconds, self.waiting)
        with self._items.mutex:
            return [*self._in_progress, *self._items.queue]

    def _drop(self) -> None:
        with suppress(Empty):  # the thread has just taken one
            item = self._items.get_nowait()
            with self._lock:
                self.dropped += 1
                self._dropped_names.append(self._label(item))
            self._log_dropped()

    def _log_dropped(self, at_end: bool = False) -> None:
        """Log the drops that are not logged yet, unless the last line is recent."""
        now = monotonic()
        with self._lock:
            is_recent = now - self._last_line < SILENCE_SECONDS
            if not self._dropped_names or (is_recent and not at_end):
                return
            names, self._dropped_names, self._last_line = self._dropped_names, [], now
        log.warning(
            "%s: %d wait already, so the oldest were dropped, %d in all: %s",
            self._name, self._items.maxsize, len(names), listed(names, 6),
        )  # fmt: skip

    def _run(self) -> None:
        while not (self._closed.is_set() and self._items.empty()):
            self._log_dropped()
            try:
                item = self._items.get(timeout=0.2)
            except Empty:
                continue
            self._in_progress = [item]
            try:
                self._work(item)
            except Exception as error:
                log.error("%s: %s: %s", self._name, type(error).__name__, error)
            self._in_progress = []
