"""The agent: a profile, its monitor, and the sources of a model's requests and responses.

To add a Source, write a class with the methods of `Source`, and let `process.sources` make it if its setting
is given. It takes payloads from anywhere, in a thread or on the event loop, makes an Exchange of each, and
calls `Agent.observe`, which decodes and counts it in the calling thread and never raises. Every source has
the agent's pages, metrics, alarms and checkpoints, and adds:

    endpoints   its own paths on the agent's port, as plain ASGI applications
    metrics     its own metrics, read at every scrape
    state       what it must know after a restart, such as an offset, in JSON's types. The checkpoint keeps it
                beside the counts. A source that must neither lose nor repeat anything counts and moves its
                offset while it holds `Agent.state_lock`, which is also held while a checkpoint is written.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event, RLock, Thread
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from prometheus_client.metrics_core import Metric
from starlette.types import ASGIApp

from driftline.config import Monitoring
from driftline.errors import DriftlineError
from driftline.monitor.detection.signals import Signal
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reporting.history import History
from driftline.monitor.reporting.outbox import Outbox
from driftline.monitor.reporting.webhook import Webhook
from driftline.monitor.watched import Watched
from driftline.sidecar.decoding import Decoder
from driftline.sidecar.exchange import Exchange

if TYPE_CHECKING:
    from driftline.monitor.monitor import Monitor
    from driftline.monitor.window import Window

log = logging.getLogger("driftline.sidecar")

_MODEL = re.compile(r"(?:/v[12])?/models/([^/:]+)")


class Source(Protocol):
    """A source of exchanges.

    name       its name in the checkpoint
    endpoints  its paths on the agent's port
    """

    name: str
    endpoints: Mapping[str, ASGIApp]

    async def start(self, agent: Agent, state: Any) -> None:
        """Start handing in; `state` is the last result of `state` before a restart, or None."""
        ...

    async def close(self) -> None:
        """Hand in what was received, and end."""
        ...

    def state(self) -> Any:
        """Return the state to restore after a restart; called while `Agent.state_lock` is held."""
        ...

    def metrics(self) -> Iterator[Metric]:
        """Yield its own metrics."""
        ...


class Agent(Watched):
    """Watches one model through the exchanges that sources hand in.

    profile   the reference
    model     the model's name in signals and pages
    settings  of the monitor
    webhook   alarms are posted to it; None for none
    only      whether to ignore requests to other models

    state_lock  held while a checkpoint is written
    exchanges   number of exchanges by outcome: 'observed', 'failed', 'other model'
    """

    def __init__(
        self,
        profile: Profile,
        model: str,
        settings: Monitoring,
        webhook: Webhook | None = None,
        only: bool = False,
    ) -> None:
        super().__init__(self._make, model)
        self.profile = profile
        self.model = model
        self.state_lock = RLock()
        self.exchanges: Counter[str] = Counter(dict.fromkeys(("observed", "failed", "other model"), 0))
        self._settings = settings
        self.webhook = webhook
        self._only = model if only else None
        self._decoder = Decoder(profile)
        self._history: Outbox[Window] | None = None
        if settings.history:
            history = History(settings.history, profile, model)
            self._history = Outbox(history.write, "history", label=history.name)

    def observe(self, exchange: Exchange) -> None:
        """Count an exchange; thread safe. Never raises: a failure is counted."""
        if self._is_watched(exchange):
            self._observe(exchange)

    def observe_all(self, exchanges: Sequence[Exchange]) -> None:
        """Do the same as `observe` of each, faster: exchanges of one form are counted together."""
        watched = [exchange for exchange in exchanges if self._is_watched(exchange)]
        for members, columns in self._decoder.together(watched):
            if columns is not None:
                self.observe_columns(columns, len(members))
                continue
            for exchange in members:
                self._observe(exchange)

    def _is_watched(self, exchange: Exchange) -> bool:
        if self._only is None or (match := _MODEL.match(exchange.path)) is None:
            return True
        is_watched = unquote(match[1]) == self._only
        self.exchanges["other model"] += not is_watched
        return is_watched

    def _observe(self, exchange: Exchange) -> None:
        try:
            columns = self._decoder.columns(exchange)
        except Exception as error:  # any payload is possible
            self.fail(str(error))
        else:
            self.observe_columns(columns)

    def observe_columns(self, columns: dict[str, Any], exchanges: int = 1) -> None:
        """Count rows that are columns already, of so many exchanges; thread safe, never raises."""
        try:
            rows = len(next(iter(columns.values()), ()))
            observed = self.observer.observe(columns, rows)
            self._keep(columns, rows)
        except Exception as error:  # a single number has no rows, say
            self.fail(str(error), exchanges)
        else:
            self.exchanges["observed" if observed else "failed"] += exchanges

    def fail(self, reason: str, exchanges: int = 1) -> None:
        """Count exchanges that can't be observed; the reason is logged at intervals."""
        self.exchanges["failed"] += exchanges
        self.observer.skip(exchanges, reason)

    async def load(self) -> Monitor:
        """Load the monitor; DriftlineError if that fails."""
        self.observer.start()
        while self.observer.monitor is None:
            if self.observer.failure:
                raise DriftlineError(f"{self.model} can't be monitored: {self.observer.failure}")
            await asyncio.sleep(0.02)
        return self.observer.monitor

    def close(self, finish: bool) -> None:
        """Stop observing, end the last window if `finish`, and send what still waits to be sent."""
        self.observer.close()
        if finish and self.observer.monitor is not None:
            self.observer.monitor.finish()
        for outbox in (self._history, self.webhook):
            if outbox is not None:
                outbox.close()

    def _make(self) -> Monitor:
        from driftline.monitor.monitor import Monitor

        monitor = Monitor.of(
            self.profile,
            self._settings,
            model=self.model,
            on_signal=self._count,
            on_window=self._history.put if self._history is not None else None,
        )
        monitor.warm_up()
        return monitor

    def _count(self, signal: Signal) -> None:
        super()._count(signal)
        if signal.kind == "alarm" and self.webhook is not None:
            self.webhook.post(signal)


class Checkpoints:
    """Saves the state of an agent and its sources to a file at an interval.

    path     of the file
    seconds  between two writes; a killed process loses its counts since the last one
    """

    def __init__(self, path: Path, seconds: float, agent: Agent, sources: Sequence[Source]) -> None:
        self._path = path
        self._seconds = seconds
        self._agent = agent
        self._sources = sources
        self._closed = Event()
        self._thread = Thread(target=self._run, name="driftline-checkpoints", daemon=True)

    def load(self) -> Mapping[str, Any]:
        """Restore the agent's monitor from the file; return the states of sources, by name.

        Without a file it starts anew; a file that can't be used is ignored and logged.
        """
        from driftline.monitor import checkpoint

        if not self._path.exists():
            return {}
        try:
            monitor = self._agent.ready()
            states = checkpoint.load(self._path, monitor)
        except DriftlineError as error:
            log.warning("%s; it is ignored, and replaced in %g s", error, self._seconds)
            return {}
        log.info(
            "continuing from %s: %d rows, %d in this window", self._path, monitor.rows, monitor.window_rows
        )
        return states

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def close(self) -> None:
        """Write once more and end."""
        self._closed.set()
        self._thread.join()
        self._write()

    def _run(self) -> None:
        while not self._closed.wait(self._seconds):
            self._write()

    def _write(self) -> None:
        from driftline.monitor import checkpoint

        try:
            with self._agent.state_lock:
                states = {source.name: source.state() for source in self._sources}
                checkpoint.save(self._path, self._agent.ready(), states)
        except Exception as error:  # a full disk, for example: counting continues
            log.error("%s", error)
