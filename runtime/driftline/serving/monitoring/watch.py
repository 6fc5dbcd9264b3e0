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
from driftline.serving.monitoring.deferred import Batch, Deferred, row_count
from driftline.serving.monitoring.notifier import Notifier
from driftline.tensors import Signature, Tensors, TensorSpec

if TYPE_CHECKING:
    from driftline.monitor.detection.signals import Signal
    from driftline.monitor.monitor import Monitor
    from driftline.monitor.reference.profile import Profile
    from driftline.monitor.window import Window

MAX_COLUMNS = 256
"""A tensor of more columns, such as an image, is not watched unless the profile names them."""

MAX_CACHED_OUTPUT_SETS = 100
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
        super().__init__(weak_callback(self._make_monitor), f"{version.name} {version.number}")
        self._version = version
        self._model = model
        self._profile = profile
        self._settings = settings
        self._notifier = notifier
        self._history: Outbox[Window] | None = None
        self._loop_thread = 0
        self._tick_timer: asyncio.TimerHandle | None = None
        self._look_task: asyncio.Future[None] | None = None
        self._deferred = Deferred(weak_callback(self._observe))
        # Until the profile is read: all tensors that it may name.
        is_watched = is_table if profile is None else (lambda spec: len(spec.columns) > 0)
        self._select_tensors(is_watched)

    @property
    def has_profile(self) -> bool:
        """Whether rows are compared with a reference, not only counted."""
        return self._profile is not None

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Return the named outputs of one batch, as the model computes them; see Model.run."""
        wanted = self._outputs_to_run.get(outputs) if type(outputs) is tuple else None
        results = self._model.run(inputs, wanted or self._with_watched(outputs))
        if get_ident() == self._loop_thread:
            batch = (inputs, results) if self._all_watched else self._watched_tensors(inputs, results)
            self._deferred.add(*batch)
        else:
            self._observe(inputs, results)
        return results if len(results) == len(outputs) else {name: results[name] for name in outputs}

    def _with_watched(self, outputs: Sequence[str]) -> Sequence[str]:
        """Return the requested outputs and the watched ones."""
        wanted = (*outputs, *(name for name in self._outputs if name not in outputs))
        if len(self._outputs_to_run) < MAX_CACHED_OUTPUT_SETS:
            self._outputs_to_run[tuple(outputs)] = wanted
        return wanted

    def _watched_tensors(self, inputs: Tensors, outputs: Tensors) -> Batch:
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
        rows = row_count(columns, {})
        self.observer.observe(columns, rows)
        self._keep(columns, rows)

    def start(self) -> None:
        """Load the monitor in the background and run its timer; called on the event loop that runs short
        batches."""
        self._loop_thread = get_ident()
        self.observer.start()
        if self._tick_timer is None:
            self._schedule_tick()

    def close(self) -> None:
        """Observe all finished batches, then no more. The monitor takes its last look and ends its last
        window, which is written by the time that `wait_for_writes` returns."""
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        self.catch_up()
        self.observer.close()
        if self.observer.monitor is not None:
            self.observer.monitor.finish()
        if self._history is not None:
            self._history.end()
        if self._notifier.runs is not None:
            self._notifier.runs.finish(self._version)

    def wait_for_writes(self, deadline: float) -> None:
        """Wait until then, by monotonic, for the writes left after `close`; called in a thread."""
        if self._history is not None:
            self._history.close(max(0.0, deadline - monotonic()))

    def _schedule_tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._tick_timer = loop.call_later(TICK_SECONDS, weak_callback(self._schedule_tick))
        self._keep_time()

    def _keep_time(self) -> None:
        """Do what is due by the clock, in a thread: a look may take as long as many requests."""
        if self._look_task is None or self._look_task.done():
            self._look_task = asyncio.get_running_loop().run_in_executor(None, self.observer.keep_time)

    async def catch_up_everywhere(self) -> None:
        """Observe all finished batches, wherever they were counted so far."""
        self.catch_up()

    def ready(self) -> Monitor:
        """Return the monitor, with all rows predicted so far; raise Unavailable if it is not loaded."""
        self.catch_up()
        return super().ready()

    def _make_monitor(self) -> Monitor:
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
            on_signal=weak_callback(self._count),
            on_window=self._on_window(profile),
        )
        monitor.warm_up()
        memory.release_compiler_code()
        return monitor

    def _on_window(self, profile: Profile) -> Callable[[Window], None]:
        """Return the callback for finished windows; it does not refer to this object, see `weak_callback`."""
        version, history, runs = self._version, self._history, self._notifier.runs

        def on_window(window: Window) -> None:
            if history is not None:
                history.put(window)
            if runs is not None:
                runs.window(version, profile, window)

        return on_window

    def _read_profile(self) -> Profile:
        """Load the reference, or an empty one; from now on the monitor is shown the tensors that it names."""
        from driftline.monitor.reference.profile import Profile

        signature = self._model.signature
        if self._profile is None:
            profile = Profile.empty(column_kinds(signature))
        else:
            profile = Profile.load(self._profile)
            profile.validate(signature)
        self._select_tensors(lambda spec: is_in_profile(spec, profile))
        return profile

    def _select_tensors(self, is_watched: Callable[[TensorSpec], bool]) -> None:
        """Show the monitor these tensors."""
        signature = self._model.signature
        self._inputs = tuple(spec.name for spec in signature.inputs if is_watched(spec))
        self._outputs = tuple(spec.name for spec in signature.outputs if is_watched(spec))
        self._all_watched = all(map(is_watched, (*signature.inputs, *signature.outputs)))
        self._outputs_to_run: dict[Sequence[str], Sequence[str]] = {}

    def _count(self, signal: Signal) -> None:
        super()._count(signal)
        if signal.kind == "alarm":
            self._notifier.alarm(self._version, signal)


def weak_callback(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method for objects that its own object references: without a cycle, a version's memory is freed
    with its last user.

    Once the object is gone, a call does nothing and returns None.
    """
    reference = WeakMethod(method)

    def call(*arguments: object) -> Any:
        bound = reference()
        return bound(*arguments) if bound is not None else None

    return call


def column_kinds(signature: Signature) -> dict[str, str]:
    """Return what is counted without a profile: the columns of a version's tables, name to kind."""
    result: dict[str, str] = {}
    for spec in (*signature.inputs, *signature.outputs):
        if is_table(spec):
            kind = {"O": "string", "b": "boolean"}.get(spec.datatype.dtype.kind, "numeric")
            result |= dict.fromkeys(spec.columns, kind)
    return result


def is_table(spec: TensorSpec) -> bool:
    """Whether a tensor is watched without a profile: a table of known width that is not too wide."""
    return 0 < len(spec.columns) <= MAX_COLUMNS and spec.shape[1:] != (-1,)


def is_in_profile(spec: TensorSpec, profile: Profile) -> bool:
    """Whether a profile has any column of a tensor."""
    stems = {name for column in profile.sources for name in (column, f"{column.rpartition('_')[0]}_*")}
    return not stems.isdisjoint(spec.columns)
