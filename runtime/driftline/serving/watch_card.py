"""A version on a card under watch: what goes in and comes out is counted while it lies there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from driftline.config import Monitoring
from driftline.engine.lane import Form, Lane
from driftline.engine.model import Model
from driftline.registry.source import Version
from driftline.serving.news import News
from driftline.serving.watch import Watch, length
from driftline.tensors import Tensors

if TYPE_CHECKING:
    from driftline.engine.tally import Tally
    from driftline.monitor.monitor import Monitor


class CardWatch(Watch):
    """As Watch, for a model whose inputs are watched as they cross its lane.

    Counts stay on the card until a look or a window's end falls due, or somebody asks: then they are behind
    a batch, not within. What has to be counted here is: all of a profile with other columns than numeric
    ones, and batches that did not cross.

    lane  of the model
    """

    def __init__(
        self,
        version: Version,
        model: Model,
        lane: Lane,
        profile: Path | None,
        settings: Monitoring,
        news: News,
    ) -> None:
        super().__init__(version, model, profile, settings, news)
        self._lane = lane
        self._tally: Tally | None = None

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """The named outputs of one batch, as the model gives them; see Model.run."""
        tally = self._tally
        if tally is None:
            return super().run(inputs, outputs)
        counted: list[bool] = []
        extra = [name for name in self._outputs if name not in outputs]

        def count(form: Form, rows: int) -> None:
            try:
                counted.append(tally.count(form, rows))
            except Exception as error:  # whatever it is, the request has its answer
                self.observer.skip(rows, str(error))
                counted.append(True)

        results = self._lane.run(inputs, (*outputs, *extra), count)
        took = {name: inputs[name] for name in self._inputs}
        gave = {name: results[name] for name in self._outputs}
        if not any(counted):
            self._observe(took, gave)
        elif (capture := self._capture) is not None:
            capture.add(took | gave, length(took, gave))
        if tally.due:
            self._drain(tally)
        return {name: results[name] for name in outputs} if extra else results

    def catch_up(self) -> None:
        """Observe what has been answered; called on the event loop."""
        super().catch_up()
        if self._tally is not None:
            self._drain(self._tally)

    def close(self) -> None:
        """See Watch.close; lets go of what lies on the card."""
        super().close()
        self._tally = None

    def _drain(self, tally: Tally) -> None:
        rows = tally.rows
        try:
            tally.drain()
        except Exception as error:  # the card's: the request has its answer
            self.observer.skip(rows, str(error))

    def _make(self) -> Monitor:
        from driftline.engine.tally import Tally

        monitor = super()._make()
        self._tally = Tally.of(self._lane, monitor, {*self._inputs, *self._outputs})
        return monitor
