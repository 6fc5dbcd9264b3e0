"""A Watch for a version on GPUs, which counts inputs and outputs in device memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from driftline.engine.cuda.session import DeviceBuffers
from driftline.serving.monitoring.deferred import row_count
from driftline.serving.monitoring.watch import Watch
from driftline.tensors import Tensors

if TYPE_CHECKING:
    from driftline.engine.cuda.counter import CategoryCounts, DeviceCounters
    from driftline.monitor.monitor import Monitor

log = logging.getLogger("driftline.device")


class GpuWatch(Watch):
    """A Watch for a model whose inputs are copied to GPUs.

    Counts stay on the GPU until a look or a window's end is due, or a report is requested; they are fetched
    between batches. Categories, and batches that were not copied to a GPU, are counted on the CPU.
    """

    _counters: DeviceCounters | None = None
    _fetch_task: asyncio.Future[None] | None = None

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Return the named outputs of one batch, as the model computes them; see Model.run."""
        counters = self._counters
        if counters is None:
            return super().run(inputs, outputs)
        batch = Batch(counters)
        columns: Tensors = {}
        extra = [name for name in self._outputs if name not in outputs]
        try:
            results = self._model.run(inputs, (*outputs, *extra), batch.count)
            watched_outputs = {name: results[name] for name in self._outputs}
            columns = {**{name: inputs[name] for name in self._inputs}, **watched_outputs}
        finally:
            batch.settle(columns)
        if batch.failure:
            self.observer.skip(row_count(inputs, watched_outputs), batch.failure)
        if not batch.crossed:
            self._observe(inputs, watched_outputs)
        else:
            self._keep(columns, row_count(inputs, watched_outputs))
        if counters.due:
            self._drain(counters)
        return {name: results[name] for name in outputs} if extra else results

    async def catch_up_everywhere(self) -> None:
        """See Watch.catch_up_everywhere; the event loop runs on while counts are fetched from GPUs."""
        self.catch_up()
        await asyncio.to_thread(self.fetch)

    def fetch(self) -> None:
        """Give the monitor what was counted on GPUs, after batches in progress."""
        if (counters := self._counters) is not None:
            self._drain(counters)

    def fetch_in_background(self) -> None:
        """As `fetch`, in a thread, unless one does already: it may wait for batches in progress."""
        if self._fetch_task is None or self._fetch_task.done():
            self._fetch_task = asyncio.get_running_loop().run_in_executor(None, self.fetch)

    def _keep_time(self) -> None:
        """See Watch; counts on GPUs are fetched first."""
        counters = self._counters
        if counters is not None and counters.rows and counters.due:
            self.fetch_in_background()
        else:
            super()._keep_time()

    def close(self) -> None:
        """See Watch.close; counts on GPUs are freed with their sessions."""
        self.fetch()
        self._counters = None
        super().close()

    def _drain(self, counters: DeviceCounters) -> None:
        rows = counters.rows
        try:
            counters.drain()
        except Exception as error:  # an error of the GPU must not fail the request
            self.observer.skip(rows, str(error))

    def _make_monitor(self) -> Monitor:
        from driftline.engine.cuda.counter import DeviceCounters

        monitor = super()._make_monitor()
        try:
            self._counters = DeviceCounters.of(self._model.device_sessions, monitor)
        except Exception as error:  # too little device memory, say
            log.warning("%s %d is counted on the CPU: %s", self._version.name, self._version.number, error)
        return monitor


class Batch:
    """One batch and how far it is counted; no failure here fails its request.

    crossed  whether it was copied to a GPU
    failure  why it is not, or only partly, counted
    """

    def __init__(self, counters: DeviceCounters) -> None:
        self.crossed = False
        self.failure = ""
        self._counters = counters
        self._categories: CategoryCounts | None = None

    def count(self, buffers: DeviceBuffers, rows: int) -> None:
        """Count its numbers in device memory; see `OnComputed` of engine/cuda/session.py."""
        try:
            self._categories = self._counters.count(buffers, rows)
            self.crossed = self._categories is not None
        except Exception as error:
            self.crossed, self.failure = True, str(error)

    def settle(self, columns: Tensors) -> None:
        """Count its categories; `columns` is empty if the batch failed."""
        try:
            if self._categories is not None:
                self._categories.settle(columns)
        except Exception as error:
            self.failure = str(error)
