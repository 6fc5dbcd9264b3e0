"""A version on cards under watch: what goes in and comes out is counted while it lies there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from driftline.engine.cuda.session import DeviceBuffers
from driftline.serving.monitoring.deferred import length
from driftline.serving.monitoring.watch import Watch
from driftline.tensors import Tensors

if TYPE_CHECKING:
    from driftline.engine.cuda.counter import CategoryCounts, DeviceCounters
    from driftline.monitor.monitor import Monitor

log = logging.getLogger("driftline.device")


class CardWatch(Watch):
    """As Watch, for a model whose inputs cross to cards.

    Counts stay there until a look or a window's end falls due, or somebody asks: then they are behind a
    batch, not within. What has to be counted here is: categories, and batches that did not cross.
    """

    _counters: DeviceCounters | None = None
    _fetching: asyncio.Future[None] | None = None

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """The named outputs of one batch, as the model gives them; see Model.run."""
        counters = self._counters
        if counters is None:
            return super().run(inputs, outputs)
        batch = Batch(counters)
        columns: Tensors = {}
        extra = [name for name in self._outputs if name not in outputs]
        try:
            results = self._model.run(inputs, (*outputs, *extra), batch.count)
            gave = {name: results[name] for name in self._outputs}
            columns = {**{name: inputs[name] for name in self._inputs}, **gave}
        finally:
            batch.settle(columns)
        if batch.failure:
            self.observer.skip(length(inputs, gave), batch.failure)
        if not batch.crossed:
            self._observe(inputs, gave)
        else:
            self._keep(columns, length(inputs, gave))
        if counters.due:
            self._drain(counters)
        return {name: results[name] for name in outputs} if extra else results

    async def caught_up(self) -> None:
        """See Watch.caught_up; the event loop goes on while cards are asked."""
        self.catch_up()
        await asyncio.to_thread(self.fetch)

    def fetch(self) -> None:
        """Let the monitor have what was counted on cards; of batches under way, when they are answered."""
        if (counters := self._counters) is not None:
            self._drain(counters)

    def fetch_beside(self) -> None:
        """As `fetch`, in a thread, if none does yet: it may wait for batches that are under way."""
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.get_running_loop().run_in_executor(None, self.fetch)

    def _keep_time(self) -> None:
        """See Watch; what lies on cards comes first."""
        counters = self._counters
        if counters is not None and counters.rows and counters.due:
            self.fetch_beside()
        else:
            super()._keep_time()

    def close(self) -> None:
        """See Watch.close; what lies on cards goes with their sessions."""
        self.fetch()
        self._counters = None
        super().close()

    def _drain(self, counters: DeviceCounters) -> None:
        rows = counters.rows
        try:
            counters.drain()
        except Exception as error:  # the card's: the request has its answer
            self.observer.skip(rows, str(error))

    def _make(self) -> Monitor:
        from driftline.engine.cuda.counter import DeviceCounters

        monitor = super()._make()
        try:
            self._counters = DeviceCounters.of(self._model.device_sessions, monitor)
        except Exception as error:  # no room there, say
            log.warning("%s %d is counted on the CPU: %s", self._version.name, self._version.number, error)
        return monitor


class Batch:
    """One batch and how far it is counted; whatever fails, its request has its answer.

    crossed  whether it came to a card
    failure  why it is not counted, or not wholly
    """

    def __init__(self, counters: DeviceCounters) -> None:
        self.crossed = False
        self.failure = ""
        self._counters = counters
        self._categories: CategoryCounts | None = None

    def count(self, buffers: DeviceBuffers, rows: int) -> None:
        """Count its numbers, where they lie; see `OnComputed` of engine/cuda/session.py."""
        try:
            self._categories = self._counters.count(buffers, rows)
            self.crossed = self._categories is not None
        except Exception as error:
            self.crossed, self.failure = True, str(error)

    def settle(self, columns: Tensors) -> None:
        """Count its categories; none of no columns."""
        try:
            if self._categories is not None:
                self._categories.settle(columns)
        except Exception as error:
            self.failure = str(error)
