"""A version under watch: its batches pass the monitor between the model and the way back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from driftline.blocks import Blocks
from driftline.config import Monitoring
from driftline.engine.model import Model
from driftline.monitor.observer import TICK_SECONDS
from driftline.monitor.reporting.outbox import Outbox
from driftline.monitor.watched import Watched
from driftline.registry.source import Version
from driftline.serving import memory
from driftline.serving.monitoring.deferred import Batch, Deferred, length
from driftline.serving.monitoring.notifier import Notifier
from driftline.tensors import Signature, Tensors, TensorSpec

if TYPE_CHECKING:
    from driftline.monitor.detection.signals import Signal
    from driftline.monitor.monitor import Monitor
    from driftline.monitor.reference.profile import Profile
    from driftline.monitor.window import Window

MOST_COLUMNS = 256
"""A tensor of more columns, an image say, is not watched unless the profile names them."""

MOST_WANTED = 100
"""Sets of outputs that requests want, of which it is remembered what to compute."""


class Watch(Watched):
    """Runs a model and shows its monitor what went in and what came out.

    version   that is watched, to be named in signals
    model     of this version
    profile   its reference; without one, rows are only counted
    settings  of its monitor
    notifier  tells of its windows and alarms
    """

    def __init__(
        self,
        version: Version,
        model: Model,
        profile: Path | None,
        settings: Monitoring,
        notifier: Notifier,
    ) -> None:
        super().__init__(weakly(self._make), f"{version.name} {version.number}")
        self._version = version
        self._model = model
        self._profile = profile
        self._settings = settings
        self._notifier = notifier
        self._history: Outbox[Window] | None = None
        self._loop_thread = 0
        self._tick: asyncio.TimerHandle | None = None
        self._looking: asyncio.Future[None] | None = None
        self._deferred = Deferred(weakly(self._observe))
        # Until the profile is read: whatever it may name.
        likely = is_table if profile is None else (lambda spec: len(spec.columns) > 0)
        self._watch(likely)

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """The named outputs of one batch, as the model gives them; see Model.run."""
        wanted = self._wanted.get(outputs) if type(outputs) is tuple else None
        results = self._model.run(inputs, wanted or self._with_watched(outputs))
        if get_ident() == self._loop_thread:
            self._deferred.add(*(inputs, results) if self._all_watched else self._watched(inputs, results))
        else:
            self._observe(inputs, results)
        return results if len(results) == len(outputs) else {name: results[name] for name in outputs}

    def _with_watched(self, outputs: Sequence[str]) -> Sequence[str]:
        """Outputs that are wanted, and those that are watched."""
        wanted = (*outputs, *(name for name in self._outputs if name not in outputs))
        if len(self._wanted) < MOST_WANTED:
            self._wanted[tuple(outputs)] = wanted
        return wanted

    def _watched(self, inputs: Tensors, outputs: Tensors) -> Batch:
        """What is watched of a batch: an image is not to be kept for its label. Blocks stay: taking their
        columns out costs more than copying them."""
        if type(inputs) is not Blocks:
            inputs = {name: inputs[name] for name in self._inputs}
        return inputs, {name: outputs[name] for name in self._outputs}

    def catch_up(self) -> None:
        """Observe what has been answered; called on the event loop."""
        self._deferred.catch_up()

    def _observe(self, inputs: Tensors, outputs: Tensors) -> None:
        columns = {
            **{name: inputs[name] for name in self._inputs},
            **{name: outputs[name] for name in self._outputs},
        }
        rows = length(columns, {})
        self.observer.observe(columns, rows)
        self._keep(columns, rows)

    def start(self) -> None:
        """Load the monitor in the background, and keep its time; called on the event loop that runs short
        batches."""
        self._loop_thread = get_ident()
        self.observer.start()
        if self._tick is None:
            self._keep_ticking()

    def close(self) -> None:
        """Observe what has been answered and nothing more; the last of it is looked at, and the last window
        is told, and kept by the time that `end` returns."""
        if self._tick is not None:
            self._tick.cancel()
        self.catch_up()
        self.observer.close()
        if self.observer.monitor is not None:
            self.observer.monitor.finish()
        if self._history is not None:
            self._history.end()
        if self._notifier.runs is not None:
            self._notifier.runs.left(self._version)

    def end(self, until: float) -> None:
        """Wait, until then by monotonic, for what a closed one has still to write; in a thread."""
        if self._history is not None:
            self._history.close(max(0.0, until - monotonic()))

    def _keep_ticking(self) -> None:
        self._tick = asyncio.get_running_loop().call_later(TICK_SECONDS, weakly(self._keep_ticking))
        self._keep_time()

    def _keep_time(self) -> None:
        """Have done what is due by the clock, in a thread: a look may take as long as many requests."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().run_in_executor(None, self.observer.keep_time)

    async def caught_up(self) -> None:
        """Observe all that has been answered, wherever it was counted so far."""
        self.catch_up()

    def ready(self) -> Monitor:
        """The monitor, with all rows that have been answered here; Unavailable if it is not there."""
        self.catch_up()
        return super().ready()

    def _make(self) -> Monitor:
        """Load the profile and the monitor, in the observer's thread."""
        from driftline.monitor.monitor import Monitor

        profile, settings = self._read_profile(), self._settings
        if settings.history and self._history is None:  # it may be there from a try that failed
            from driftline.monitor.reporting.history import History

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
        version, history, runs = self._version, self._history, self._notifier.runs

        def tell(window: Window) -> None:
            if history is not None:
                history.put(window)
            if runs is not None:
                runs.window(version, profile, window)

        return tell

    def _read_profile(self) -> Profile:
        """The reference, one of no rows if there is none; from here on what it names is shown."""
        from driftline.monitor.reference.profile import Profile

        signature = self._model.signature
        if self._profile is None:
            profile = Profile.empty(kinds(signature))
        else:
            profile = Profile.load(self._profile)
            profile.validate(signature)
        self._watch(lambda spec: in_profile(spec, profile))
        return profile

    def _watch(self, which: Callable[[TensorSpec], bool]) -> None:
        """Show the monitor these tensors."""
        signature = self._model.signature
        self._inputs = tuple(spec.name for spec in signature.inputs if which(spec))
        self._outputs = tuple(spec.name for spec in signature.outputs if which(spec))
        self._all_watched = all(map(which, (*signature.inputs, *signature.outputs)))
        self._wanted: dict[Sequence[str], Sequence[str]] = {}

    def _count(self, signal: Signal) -> None:
        super()._count(signal)
        if signal.kind == "alarm":
            self._notifier.alarm(self._version, signal)


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
    stems = {name for column in profile.sources for name in (column, f"{column.rpartition('_')[0]}_*")}
    return not stems.isdisjoint(spec.columns)
