"""Many at once, or one alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock, local


class Gate:
    """Lets threads pass together, except while one wants to be alone; who is inside may pass again."""

    def __init__(self) -> None:
        self._long = Lock()
        self._changed = Condition()
        self._inside = 0
        self._shut = False
        self._mine = local()

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Inside, with others."""
        depth = getattr(self._mine, "depth", 0)
        if not depth:
            with self._changed:
                self._changed.wait_for(lambda: not self._shut)
                self._inside += 1
        self._mine.depth = depth + 1
        try:
            yield
        finally:
            self._mine.depth = depth
            if not depth:
                with self._changed:
                    self._inside -= 1
                    self._changed.notify_all()

    @contextmanager
    def passing_long(self) -> Iterator[None]:
        """As `passing`, for what takes long, one thread at a time. The gate is not shut meanwhile, since all
        others would have to wait until this one has left: see `alone`."""
        with self._long, self.passing():
            yield

    @contextmanager
    def alone(self, patience: float) -> Iterator[bool]:
        """Inside when all others have left; they may pass again afterwards. Not for a thread that is inside.

        False, and nobody had to leave, if a thread in `passing_long` stays for more than `patience` seconds.
        """
        assert not getattr(self._mine, "depth", 0), "it would wait for itself"
        if not self._long.acquire(timeout=patience):
            yield False
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._shut)
            self._shut = True
        try:
            with self._changed:
                self._changed.wait_for(lambda: not self._inside)
            yield True
        finally:
            with self._changed:
                self._shut = False
                self._changed.notify_all()
            self._long.release()
