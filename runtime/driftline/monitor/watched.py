"""What all that watch a model have: servers, and agents beside other servers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from driftline.errors import Unavailable
from driftline.monitor.observer import Observer
from driftline.monitor.reference.capture import Capture
from driftline.tensors import Tensors

if TYPE_CHECKING:
    from driftline.monitor.detection.signals import Signal
    from driftline.monitor.monitor import Monitor

log = logging.getLogger("driftline.monitor")


class Watched:
    """A model that is watched: whoever observes its rows, and can be told to keep some of them.

    make, about      see Observer
    changes, alarms  how many there have been, by column
    """

    def __init__(self, make: Callable[[], Monitor], about: str) -> None:
        self.observer = Observer(make, about)
        self.changes: dict[str, int] = {}
        self.alarms: dict[str, int] = {}
        self._capture: Capture | None = None

    def ready(self) -> Monitor:
        """The monitor; Unavailable if it is not there."""
        return self.observer.ready()

    @contextmanager
    def capturing(self, rows: int) -> Iterator[Capture]:
        """Keep the next rows, up to so many, while this lasts; Unavailable if that is being done already."""
        if self._capture is not None:
            raise Unavailable("another profile of live traffic is being made", retry_after=60)
        self._capture = Capture(rows)
        try:
            yield self._capture
        finally:
            self._capture = None

    def _keep(self, columns: Tensors, rows: int) -> None:
        """Keep a batch if that is wanted; see Capture.add. It never fails who observes."""
        if (capture := self._capture) is not None:
            try:
                capture.add(columns, rows)
            except Exception:
                log.exception("rows can't be kept for a profile")

    def _count(self, signal: Signal) -> None:
        counts = self.alarms if signal.kind == "alarm" else self.changes
        counts[signal.column] = counts.get(signal.column, 0) + 1
