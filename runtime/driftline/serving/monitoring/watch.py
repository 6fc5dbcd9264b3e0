"""Shows a version's batches to its monitor."""

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

MAX_COLUMNS = 256
"""A tensor of more columns, such as an image, is not watched unless the profile names them."""

MAX_WANTED = 100
"""Most sets of requested outputs for which the outputs to compute are cached."""


class Watch(Watched):
    """Runs a model and shows its inputs and outputs to a monitor.

    version   the version watched, which signals name
    model     the model of this version
    profile   its reference; without one, rows are only counted
    settings  of the monitor
    notifier  forwards windows and alarms
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
        # Until the profile is read: all tensors that it may name.
        likely = is_table if profile is None else (lambda spec: len(spec.columns) > 0)
        self._watch(likely)

    @property
    def has_profile(self) -> bool:
        """Whether rows are compared with a reference, not only counted."""
        return self._profile is not None

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Return the named outputs of one batch, as the model computes them; see Model.run."""
        wanted = self._wanted.get(outputs) if type(outputs) is tuple else None
        results = self._model.run(inputs, wanted or self._with_watched(outputs))
        if get_ident() == self._loop_thread:
            self._deferred.add(*(inputs, results) if self._all_watched else self._watched(inputs, results))
        else:
            self._observe(inputs, results)
        return results if len(results) == len(outputs) else {name: results[name] for name in outputs}

    def _with_watched(self, outputs: Sequence[str]) -> Sequence[str]:
        """Return the requested outputs and the watched ones."""
        wanted = (*outputs, *(name for name in self._outputs if name not in outputs))
        if len(self._wanted) < MAX_WANTED:
            self._wanted[tuple(outputs)] = wanted
        return wanted

    def _watched(self, inputs: Tensors, outputs: Tensors) -> Batch:
        """Return the watched tensors of a batch: an image is not to be kept for its label. Blocks stay whole:
        taking columns out costs more than copying them."""
        if type(inputs) is not Blocks:
            inputs = {name: inputs[name] for name in self._inputs}
        return inputs, {name: outputs[name] for name in self._outputs}

    def catch_up(self) -> None:
        """Observe all finished batches; called on the event loop."""
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
        """Load the monitor in the background and run its timer; called on the event loop that runs short
        batches."""
        self._loop_thread = get_ident()
        self.observer.start()
        if self._tick is None:
            self._keep_ticking()

    def close(self) -> None:
        """Observe all finished batches, then no more. The monitor takes its last look and ends its last
        window, which is written by the time that `end` returns."""
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
        """Wait until then, by monotonic, for the writes left after `close`; called in a thread."""
        if self._history is not None:
            self._history.close(max(0.0, until - monotonic()))

    def _keep_ticking(self) -> None:
        self._tick = asyncio.get_running_loop().call_later(TICK_SECONDS, weakly(self._keep_ticking))
        self._keep_time()

    def _keep_time(self) -> None:
        """Do what is due by the clock, in a thread: a look may take as long as many requests."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().run_in_executor(None, self.observer.keep_time)

    async def caught_up(self) -> None:
        """Observe all finished batches, wherever they were counted so far."""
        self.catch_up()

    def ready(self) -> Monitor:
        """Return the monitor, with all rows predicted so far; raise Unavailable if it is not loaded."""
        self.catch_up()
        return super().ready()

    def _make(self) -> Monitor:
        """Load the profile and the monitor, in the observer's thread."""
        from driftline.monitor.monitor import Monitor

        profile, settings = self._read_profile(), self._settings
        if settings.history and self._history is None:  # a failed attempt may have made it
            from driftline.monitor.reporting.history import History

            history = History(settings.history, profile, self._version.name, self._version.number)
            self._history = Outbox(history.write, "history", label=history.name)
        monitor = Monitor.of(
            profile,
            settings,
            model=self._version.name,
            version=self._version.number,
            on_signal=weakly(self._count),
            on_window=self._on_window(profile),
        )
        monitor.warm_up()
        memory.release_compiler_code()
        return monitor

    def _on_window(self, profile: Profile) -> Callable[[Window], None]:
        """Return the callback for finished windows; it does not reference this object, see `weakly`."""
        version, history, runs = self._version, self._history, self._notifier.runs

        def tell(window: Window) -> None:
            if history is not None:
                history.put(window)
            if runs is not None:
                runs.window(version, profile, window)

        return tell

    def _read_profile(self) -> Profile:
        """Load the reference, or an empty one; from now on the monitor is shown the tensors that it names."""
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
    """Wrap a method for objects that its own object references: without a cycle, a version's memory is freed
    with its last user.

    Once the object is gone, a call does nothing and returns None.
    """
    reference = WeakMethod(method)

    def call(*arguments: object) -> Any:
        found = reference()
        return found(*arguments) if found is not None else None

    return call


def kinds(signature: Signature) -> dict[str, str]:
    """Return what is counted without a profile: the columns of a version's tables, name to kind."""
    found: dict[str, str] = {}
    for spec in (*signature.inputs, *signature.outputs):
        if is_table(spec):
            kind = {"O": "string", "b": "boolean"}.get(spec.datatype.dtype.kind, "numeric")
            found |= dict.fromkeys(spec.columns, kind)
    return found


def is_table(spec: TensorSpec) -> bool:
    """Whether a tensor is watched without a profile: a table of known width that is not too wide."""
    return 0 < len(spec.columns) <= MAX_COLUMNS and spec.shape[1:] != (-1,)


def in_profile(spec: TensorSpec, profile: Profile) -> bool:
    """Whether a profile has any column of a tensor."""
    stems = {name for column in profile.sources for name in (column, f"{column.rpartition('_')[0]}_*")}
    return not stems.isdisjoint(spec.columns)
