"""What servers, and agents beside other servers, share when they watch a model."""

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
    """A watched model: observes its rows, and keeps some of them on request.

    make_monitor, name  see Observer
    changes, alarms     number of signals so far, by column
    """

    def __init__(self, make_monitor: Callable[[], Monitor], name: str) -> None:
        self.observer = Observer(make_monitor, name)
        self.changes: dict[str, int] = {}
        self.alarms: dict[str, int] = {}
        self._capture: Capture | None = None

    def ready(self) -> Monitor:
        """Return the monitor; raise Unavailable if it is not loaded."""
        return self.observer.ready()

    @contextmanager
    def capturing(self, rows: int) -> Iterator[Capture]:
        """Keep the next rows, up to so many, within the context; raise Unavailable if a capture runs."""
        if self._capture is not None:
            raise Unavailable("another profile of live traffic is being made", retry_after=60)
        self._capture = Capture(rows)
        try:
            yield self._capture
        finally:
            self._capture = None

    def _keep(self, columns: Tensors, rows: int) -> None:
        """Keep a batch if a capture runs, see Capture.add; errors are only logged."""
        if (capture := self._capture) is not None:
            try:
                capture.add(columns, rows)
            except Exception:
                log.exception("rows can't be kept for a profile")

    def _count(self, signal: Signal) -> None:
        counts = self.alarms if signal.kind == "alarm" else self.changes
        counts[signal.column] = counts.get(signal.column, 0) + 1
