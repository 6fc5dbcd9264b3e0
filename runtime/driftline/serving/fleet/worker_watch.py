"""A worker's side of a version's monitor: counts rows for the monitor in the supervisor."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

from driftline.config import Monitoring
from driftline.engine.model import Model
from driftline.errors import Unavailable
from driftline.monitor.reference.capture import Capture
from driftline.registry.source import Version
from driftline.serving.monitoring.notifier import Notifier
from driftline.serving.monitoring.watch import Watch
from driftline.serving.monitoring.watch_gpu import GpuWatch
from driftline.tensors import Tensors


class WorkerWatch(Watch):
    """Counts the rows of a version into its slab, from which the supervisor's monitor takes them.

    slab  maps the slab, (words,) int64 of shared memory, once the supervisor has sent its region; None if
          there is no monitor
    """

    def __init__(
        self, version: Version, model: Model, profile: Path | None, settings: Monitoring, slab: Future[Any]
    ) -> None:
        super().__init__(version, model, profile, settings, Notifier())
        self.slab = slab

    def follow(self) -> None:
        """Hand over counts to the supervisor, if it has requested them."""
        self.catch_up()
        share: Any = self.observer.monitor
        if share is not None:
            share.follow()

    def capture(self, rows: int) -> None:
        """Keep the next rows for the supervisor, up to so many; 0 stops."""
        self.catch_up()
        self._capture = Capture(rows) if rows else None

    def take_captured(self) -> list[tuple[Tensors, int]]:
        """Return the batches kept since the last call, and their rows."""
        return self._capture.take() if self._capture is not None else []

    def close(self) -> None:
        """Count all finished batches, then no more."""
        super().close()
        if not self.slab.done():
            self.slab.set_result(None)

    def _make_monitor(self) -> Any:
        """Make a Share, in place of a monitor.

        It waits for the slab, and so for the supervisor's monitor: kernels that have to be compiled are
        compiled there, once for all workers.
        """
        from driftline.monitor.slab import Share

        profile, map_slab = self._read_profile(), self.slab.result()
        if map_slab is None:
            raise Unavailable("the supervisor's log says why")
        share = Share(profile, map_slab())
        share.warm_up()
        return share


class WorkerGpuWatch(GpuWatch, WorkerWatch):
    """A WorkerWatch for a model on GPUs; counts are fetched from them in a thread."""

    def follow(self) -> None:
        """See WorkerWatch.follow; does not wait for batches in progress."""
        share: Any = self.observer.monitor
        if share is not None:
            share.follow()
        self.fetch_in_background()
