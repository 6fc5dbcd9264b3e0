"""A version under watch: its batches pass the monitor between the model and the way back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from driftline.blocks import Blocks, join
from driftline.config import Monitoring
from driftline.engine.model import Model
from driftline.monitor.capture import Capturing
from driftline.monitor.observer import Observer
from driftline.monitor.outbox import Outbox
from driftline.registry.source import Version
from driftline.serving import memory
from driftline.serving.news import News
from driftline.tensors import Signature, Tensors, TensorSpec

if TYPE_CHECKING:
    from driftline.monitor.monitor import Monitor
    from driftline.monitor.profile import Profile
    from driftline.monitor.signals import Signal
    from driftline.monitor.window import Window

MOST_COLUMNS = 256
"""A tensor of more columns, an image say, is not watched unless the profile names them."""


TOGETHER = 256
"""Rows that are observed at once: one alone costs as much as ten, and one of 64 twice one of 256."""

LATER_SECONDS = 0.05
"""How long the first of them waits at most."""

Batch = tuple[Tensors, Tensors]
"""What went in and what came out."""


class Watch(Capturing):
    """Runs a model and shows its monitor what went in and what came out.

    version   that is watched, to be named in signals
    model     of this version
    profile   its reference; without one, rows are only counted
    settings  of its monitor
    news      tells of its windows and alarms
    """

    def __init__(
        self,
        version: Version,
        model: Model,
        profile: Path | None,
        settings: Monitoring,
        news: News,
    ) -> None:
        self._version = version
        self._model = model
        self._profile = profile
        self._settings = settings
        self._news = news
        self._history: Outbox[Window] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._later: list[Batch] = []
        self._later_rows = 0
        self._timer: asyncio.TimerHandle | None = None
        self.changes: dict[str, int] = {}
        self.alarms: dict[str, int] = {}
        self.observer = Observer(weakly(self._make), f"{version.name} {version.number}")
        # Until the profile is read: whatever it may name.
        likely = is_table if profile is None else (lambda spec: len(spec.columns) > 0)
        self._inputs = tuple(spec.name for spec in model.signature.inputs if likely(spec))
        self._outputs = tuple(spec.name for spec in model.signature.outputs if likely(spec))

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """The named outputs of one batch, as the model gives them; see Model.run."""
        extra = [name for name in self._outputs if name not in outputs]
        results = self._model.run(inputs, (*outputs, *extra))
        # Blocks go as they are: taking their columns out costs more than joining them with the next.
        took = inputs if type(inputs) is Blocks else {name: inputs[name] for name in self._inputs}
        gave = {name: results[name] for name in self._outputs}
        if self._loop is not None and get_ident() == self._loop_thread:
            self._defer((took, gave), self._loop)
        else:
            self._observe(took, gave)
        return {name: results[name] for name in outputs} if extra else results

    def _defer(self, batch: Batch, loop: asyncio.AbstractEventLoop) -> None:
        """On the loop itself batches are short: let their answers go first, and observe several together."""
        if not self._later:
            self._timer = loop.call_later(LATER_SECONDS, self.catch_up)
        self._later.append(batch)
        before = self._later_rows
        self._later_rows += length(*batch)
        if before < TOGETHER <= self._later_rows:
            loop.call_soon(self.catch_up)

    def catch_up(self) -> None:
        """Observe what has been answered; called on the event loop."""
        if not self._later:
            return
        later, self._later, self._later_rows = self._later, [], 0
        if self._timer is not None:
            self._timer.cancel()
        for took, gave in together(later):
            self._observe(took, gave)

    def _observe(self, took: Tensors, gave: Tensors) -> None:
        rows = length(took, gave)
        columns = {**{name: took[name] for name in self._inputs}, **gave}
        self.observer.observe(columns, rows)
        if (capture := self._capture) is not None:
            capture.add(columns, rows)

    def start(self) -> None:
        """Load the monitor in the background; called on the event loop that runs short batches."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = get_ident()
        self.observer.start()

    def close(self) -> None:
        """Observe what has been answered and nothing more; the last window is kept and told."""
        self.catch_up()
        self.observer.close()
        runs = self._news.runs
        if self.observer.monitor is not None and (self._history is not None or runs is not None):
            self.observer.monitor.finish()
        if self._history is not None:
            self._history.close()
        if runs is not None:
            runs.left(self._version)

    def ready(self) -> Monitor:
        """The monitor, with all rows that have been answered; Unavailable if it is not there."""
        self.catch_up()
        return self.observer.ready()

    def _make(self) -> Monitor:
        """Load the profile and the monitor, in the observer's thread."""
        from driftline.monitor.monitor import Monitor

        profile, settings = self._read_profile(), self._settings
        if settings.history:
            from driftline.monitor.history import History

            history = History(settings.history, profile, self._version.name, self._version.number)
            self._history = Outbox(history.write, "history")
        monitor = Monitor.of(
            profile,
            settings,
            model=self._version.name,
            version=self._version.number,
            on_signal=weakly(self._count),
            on_window=self._on_window(profile),
        )
        monitor.warm_up()
        memory.leave_compiler()
        return monitor

    def _on_window(self, profile: Profile) -> Callable[[Window], None]:
        """What becomes of finished windows; it does not hold this object, see `weakly`."""
        version, history, runs = self._version, self._history, self._news.runs

        def tell(window: Window) -> None:
            if history is not None:
                history.put(window)
            if runs is not None:
                runs.window(version, profile, window)

        return tell

    def _read_profile(self) -> Profile:
        """The reference, one of no rows if there is none; from here on what it names is shown."""
        from driftline.monitor.profile import Profile

        signature = self._model.signature
        if self._profile is None:
            profile = Profile.empty(kinds(signature))
        else:
            profile = Profile.load(self._profile)
            profile.validate(signature)
        self._inputs = tuple(spec.name for spec in signature.inputs if in_profile(spec, profile))
        self._outputs = tuple(spec.name for spec in signature.outputs if in_profile(spec, profile))
        return profile

    def _count(self, signal: Signal) -> None:
        counts = self.alarms if signal.kind == "alarm" else self.changes
        counts[signal.column] = counts.get(signal.column, 0) + 1
        if signal.kind == "alarm":
            self._news.alarm(self._version, signal)


def length(took: Tensors, gave: Tensors) -> int:
    """The rows of a batch."""
    return len(next(chain(took.values(), gave.values()), ()))


def together(batches: list[Batch]) -> list[Batch]:
    """Batches of the same columns as one; as they are if they can't be."""
    took, gave = ([batch[side] for batch in batches] for side in (0, 1))
    if len(batches) > 1 and all(part.keys() == side[0].keys() for side in (took, gave) for part in side):
        with suppress(ValueError):  # dimensions that may vary do
            return [(join(took), join(gave))]
    return batches


def weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method for those whom its object holds: without a cycle, a version's memory goes with its last user.

    When the object is gone, nothing happens and None comes back.
    """
    reference = WeakMethod(method)

    def call(*arguments: object) -> Any:
        found = reference()
        return found(*arguments) if found is not None else None

    return call


def kinds(signature: Signature) -> dict[str, str]:
    """What is counted of a version that has no profile: the columns of its tables, by name."""
    found: dict[str, str] = {}
    for spec in (*signature.inputs, *signature.outputs):
        if is_table(spec):
            kind = {"O": "string", "b": "boolean"}.get(spec.datatype.dtype.kind, "numeric")
            found |= dict.fromkeys(spec.columns, kind)
    return found


def is_table(spec: TensorSpec) -> bool:
    """Whether a tensor is watched without a profile: it is a table of known width, and not too wide."""
    return 0 < len(spec.columns) <= MOST_COLUMNS and spec.shape[1:] != (-1,)


def in_profile(spec: TensorSpec, profile: Profile) -> bool:
    """Whether a profile has any column of a tensor."""
    stems = {name for column in profile.names for name in (column, f"{column.rpartition('_')[0]}_*")}
    return not stems.isdisjoint(spec.columns)
