"""A lock that many threads hold together, or one thread alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock, local


class SharedLock:
    """A shared/exclusive lock.

    Shared holders wait only while an exclusive one waits or holds the lock. Shared holds may be nested: a
    thread that has one never waits for another.
    """

    def __init__(self) -> None:
        self._long_lock = Lock()  # of the one exclusive holder, or of one in `shared_long`
        self._changed = Condition()
        self._holders = 0
        self._closed = False  # an exclusive holder waits or is inside
        self._local = local()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with others."""
        depth = getattr(self._local, "depth", 0)
        if not depth:
            with self._changed:
                self._changed.wait_for(lambda: not self._closed)
                self._holders += 1
        self._local.depth = depth + 1
        try:
            yield
        finally:
            self._local.depth = depth
            if not depth:
                with self._changed:
                    self._holders -= 1
                    self._changed.notify_all()

    @contextmanager
    def shared_long(self) -> Iterator[None]:
        """As `shared`, for work of seconds or minutes, by one thread at a time.

        `exclusive` waits for the end of such work without keeping new holders out, who would wait just as
        long, and gives up after its timeout.
        """
        with self._long_lock, self.shared():
            yield

    @contextmanager
    def exclusive(self, timeout: float) -> Iterator[bool]:
        """Hold the lock alone: wait until all holders have left, and keep others out until this ends.

        Yields False, without the lock, if a thread is in `shared_long` for more than `timeout` seconds.
        A thread that holds the lock must not call it.
        """
        assert not getattr(self._local, "depth", 0), "it would wait for itself"
        if not self._long_lock.acquire(timeout=timeout):
            yield False
            return
        try:
            with self._changed:
                self._closed = True
                self._changed.wait_for(lambda: not self._holders)
            yield True
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()
            self._long_lock.release()
