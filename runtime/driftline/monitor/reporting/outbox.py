"""Background work, done one item at a time by a thread that nothing waits for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

log = logging.getLogger("driftline.monitor")

Item = TypeVar("Item")


class Outbox(Generic[Item]):
    """A bounded queue and the thread that works through it.

    work  called with each item; its exceptions are logged
    name  of the work, for log lines
    size  maximum number of items that wait; beyond it, the oldest are dropped and counted
    """

    def __init__(self, work: Callable[[Item], None], name: str, size: int = 1000) -> None:
        self.dropped = 0
        self._work = work
        self._name = name
        self._items: Queue[Item] = Queue(size)
        self._closed = Event()
        self._thread: Thread | None = None

    def put(self, item: Item) -> None:
        """Queue an item; never blocks."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name=f"driftline-{self._name}", daemon=True)
            self._thread.start()
        while True:
            try:
                self._items.put_nowait(item)
                return
            except Full:
                self._drop()

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

    def close(self, seconds: float = 10.0) -> None:
        """Take no more items; wait at most `seconds` for those in the queue to be done."""
        self.end()
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                log.error(
                    "%s: not done in %g s; %d more wait and are lost", self._name, seconds, self.waiting
                )

    def _drop(self) -> None:
        with suppress(Empty):  # the thread has just taken one
            self._items.get_nowait()
            self.dropped += 1
            log.warning("%s: %d wait already, the oldest is dropped", self._name, self._items.maxsize)

    def _run(self) -> None:
        while not (self._closed.is_set() and self._items.empty()):
            try:
                item = self._items.get(timeout=0.2)
            except Empty:
                continue
            try:
                self._work(item)
            except Exception as error:
                log.error("%s: %s: %s", self._name, type(error).__name__, error)
