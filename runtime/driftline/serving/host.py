"""The versions in memory: follow the registry, load, swap, drain, give memory back.

The life of a version: a reference stands for it (`_sync`) -> `_load` fetches, verifies, loads and warms
it beside the old one -> `_flip` -> when no reference stands for it any more, `_retire` waits for its last
request and closes it. If anything before the flip fails, the old version serves on.
"""

from __future__ import annotations

import asyncio
import logging
import re
import weakref
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from driftline.batching.cost import Cost
from driftline.config import ServerFile
from driftline.engine.bundle import Bundle
from driftline.engine.model import Model
from driftline.errors import DriftlineError, ModelError, NotFound, Unavailable
from driftline.registry.source import Reference, Registry, Version, check_name
from driftline.serving import memory
from driftline.serving.latency import Latency
from driftline.serving.served import Served
from driftline.serving.watch import Watch

if TYPE_CHECKING:
    from driftline.monitor.signals import Signal

log = logging.getLogger("driftline.host")

RETRY_SECONDS = 60.0
"""The longest wait before what failed is tried again."""

_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(slots=True)
class Entry:
    """All that is known of one model: what its references stand for, what is on its way in or out.

    `default`, of `versions` by number, is what its first reference stands for.
    """

    name: str
    default: Served | None = None
    versions: dict[int, Served] = field(default_factory=dict)
    stands: dict[Reference, Served] = field(default_factory=dict)
    loading: set[int] = field(default_factory=set)
    unloading: list[Served] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    attempts: int = 0
    retry: asyncio.TimerHandle | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    latency: Latency = field(default_factory=Latency)
    loads: int = 0
    load_failures: int = 0
    load_seconds: float = 0.0
    swaps: int = 0


class Host:
    """Holds the versions that references stand for, and follows the registry when that changes.

    references  which models to serve, the first of a model being its default; all models if empty
    file        the server's settings for models
    interval    seconds between two looks at the registry
    on_alarm    called with each new alarm of any version
    """

    def __init__(
        self,
        registry: Registry,
        references: Sequence[Reference] = (),
        file: ServerFile | None = None,
        interval: float = 0.5,
        on_alarm: Callable[[Signal], None] = lambda signal: None,
    ) -> None:
        self.registry = registry
        self.entries: dict[str, Entry] = {}
        self.ready = False
        self._references = list(references)
        self._everything = not references
        self._unloaded: set[str] = set()
        self._file = file or ServerFile()
        self._interval = interval
        self._on_alarm = on_alarm
        self._tasks: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None

    # -- for requests -------------------------------------------------------------------------

    def find(self, name: str, version: str | None = None) -> Served:
        """The version that answers: the one named, else the model's default.

        Raises NotFound if it is not in memory, Unavailable if the model is still being loaded.
        """
        entry = self.entries.get(name)
        if entry is None and self.ready:
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        if entry is None:
            raise Unavailable("the server is not ready")
        if version is None:
            served = entry.default
        else:
            served = entry.versions.get(int(version)) if _NUMBER.fullmatch(version) else None
        if served is not None:
            return served
        if not entry.versions and entry.lock.locked():
            raise Unavailable(f"model '{name}' is being loaded")
        if version is None:
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        loaded = ", ".join(map(str, sorted(entry.versions))) or "none"
        raise NotFound(
            f"Request for unknown model: '{name}' version {version} is not found; loaded: {loaded}"
        )

    def served(self) -> Iterator[Served]:
        """Every version in memory that takes requests."""
        for entry in self.entries.values():
            yield from entry.versions.values()

    # -- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load what the references stand for, then follow them; any failure is raised."""
        await self.refresh(strict=True)
        self.ready = True
        self._start_watching()
        self._follow()

    async def refresh(self, strict: bool = False) -> None:
        """Look at the registry now, and try again what failed; with `strict`, raise what fails."""
        names = {reference.name for reference in self._references}
        try:
            if self._everything:
                names = set(await asyncio.to_thread(self.registry.models))
        except Exception as error:
            if strict:
                raise
            log.warning("%s; what is loaded serves on", str(error))
        outcomes = await asyncio.gather(*map(self._sync, sorted(names)), return_exceptions=True)
        for outcome in outcomes:
            if strict and outcome is not None:
                raise outcome

    async def load(self, name: str) -> None:
        """Serve a model from now on, in the version it stands for now.

        NotFound if there is no such model. Any other failure is raised too, and tried again later.
        """
        if not any(reference.name == name for reference in self._references):
            reference = Reference(check_name(name))
            await asyncio.to_thread(self.registry.resolve, reference)
            if not self._everything:
                self._references.append(reference)
                self._follow()
        self._unloaded.discard(name)
        await self._sync(name)

    async def unload(self, name: str) -> None:
        """Serve a model no more, until it is loaded again; NotFound if it was never served."""
        entry = self.entries.get(name)
        if entry is None:
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        self._unloaded.add(name)
        async with entry.lock:
            if name in self._unloaded:
                self._flip(entry, {}, None)
                self._forget_failures(entry)
                log.info("%s is unloaded", name, extra={"model": name})

    def busy(self) -> bool:
        """Whether a batch is being computed."""
        return any(
            served.batcher.running
            for entry in self.entries.values()
            for served in (*entry.versions.values(), *entry.unloading)
        )

    async def close(self) -> None:
        """Stop following, refuse what still waits, give everything back."""
        self.ready = False
        for entry in self.entries.values():
            self._forget_failures(entry)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for entry in self.entries.values():
            for served in (*entry.versions.values(), *entry.unloading):
                served.close()

    # -- following --------------------------------------------------------------------------------

    def _follow(self) -> None:
        """(Re)start to follow the references there are now."""
        if self._following is not None:
            self._following.cancel()
        self._following = self._spawn(self._keep_following())

    async def _keep_following(self) -> None:
        """Bring each model to every new word of the registry; one that takes long delays no other."""
        attempts = 0
        while True:
            try:
                async for targets in self.registry.watch(tuple(self._references), self._interval):
                    attempts = 0
                    for name in {reference.name for reference in targets}:
                        self._spawn(self._sync(name))
            except Exception:
                log.exception("the registry can't be followed; what is loaded serves on")
            attempts += 1
            await asyncio.sleep(backoff(attempts))

    async def _sync(self, name: str) -> None:
        """Bring a model to what the registry says now; one at a time, so that the latest word stands.

        A failure is raised when it is noted and, once the host is ready, another try is on its way: files may
        still be coming.
        """
        entry = self.entries.setdefault(name, Entry(name))
        async with entry.lock:
            if name in self._unloaded:
                return
            references = [one for one in self._references if one.name == name] or [Reference(name)]
            stands = dict(entry.stands)  # what fails leaves its reference with what it stood for before
            failures: dict[int, str] = {}
            errors: list[Exception] = []
            for reference in references:
                try:
                    version = await asyncio.to_thread(self.registry.resolve, reference)
                except Exception as error:
                    errors = errors or [error]
                    continue
                held = next((one for one in stands.values() if one.same_files(version)), None)
                try:
                    stands[reference] = held or await self._load(entry, version)
                    stands[reference].version = version
                except DriftlineError as error:
                    failures[version.number] = str(error)
                    errors = errors or [error]
            self._flip(entry, stands, stands.get(references[0]))
            if errors:
                entry.failures = failures
                if self.ready:
                    self._try_again(entry, str(errors[0]))
                raise errors.pop()  # what is raised knows this frame: knowing each other, both would stay
            self._forget_failures(entry)

    async def _load(self, entry: Entry, version: Version) -> Served:
        """Fetch, verify, load and warm a version; nobody is served by it yet."""

        def load() -> tuple[Model, Cost, Watch | None]:
            bundle = Bundle.open(self.registry.fetch(version))
            settings = self._file.settings_of(version.name, bundle.settings)
            model = Model(replace(bundle, settings=settings))
            cost = model.warm_up()
            watch = None
            if settings.monitor.enabled:
                watch = Watch(version, model, bundle.profile, settings.monitor, self._on_alarm)
            return model, cost, watch

        begin = monotonic()
        entry.loading.add(version.number)
        try:
            model, cost, watch = await asyncio.to_thread(load)
            served = Served(version, model, cost, entry.latency, watch)
        except Exception as error:
            entry.load_failures += 1
            reason = str(error)  # a log that keeps its records must not keep frames, and so models
            if self.ready:  # else it ends the start, which says it once
                log.error(
                    "%s %d can't be loaded: %s", version.name, version.number, reason,
                    extra={"model": version.name, "version": version.number, "reason": reason},
                )  # fmt: skip
            if isinstance(error, DriftlineError):
                raise
            raise ModelError(f"{version.name} {version.number}: {type(error).__name__}: {error}") from error
        finally:
            entry.loading.discard(version.number)
        entry.loads += 1
        entry.load_seconds = monotonic() - begin
        log.info(
            "%s %d is loaded in %.2f s", version.name, version.number, entry.load_seconds,
            extra={"model": version.name, "version": version.number, "seconds": entry.load_seconds},
        )  # fmt: skip
        return served

    def _flip(self, entry: Entry, stands: dict[Reference, Served], default: Served | None) -> None:
        """The one moment of a swap: from here on, new requests go to what the references stand for."""
        for served in set(entry.stands.values()) - set(stands.values()):
            entry.unloading.append(served)
            self._spawn(self._retire(entry, served))
        entry.stands = stands
        entry.versions = {served.version.number: served for served in stands.values()}
        if self.ready:
            self._start_watching()
        old, entry.default = entry.default, default
        if default is None or default is old:
            return
        if old is not None:
            entry.swaps += 1
        log.info(
            "%s %d serves%s", entry.name, default.version.number,
            f", {old.version.number} drains" if old else "",
            extra={"model": entry.name, "version": default.version.number},
        )  # fmt: skip

    def _start_watching(self) -> None:
        """Load the monitors that are not: at the start not before every model can answer."""
        for served in self.served():
            if served.watch is not None:
                served.watch.start()

    def _try_again(self, entry: Entry, reason: str) -> None:
        """Try to bring a model to what the registry says once more, later and later."""
        entry.attempts += 1
        wait = backoff(entry.attempts)
        serving = f"{entry.default.version.number} serves on" if entry.default else "nothing serves"
        log.warning(
            "%s: %s; %s; next try in %.0f s", entry.name, reason, serving, wait, extra={"model": entry.name}
        )
        if entry.retry is not None:
            entry.retry.cancel()
        loop = asyncio.get_running_loop()
        entry.retry = loop.call_later(wait, lambda: self._spawn(self._sync(entry.name)))

    def _forget_failures(self, entry: Entry) -> None:
        entry.failures = {}
        entry.attempts = 0
        if entry.retry is not None:
            entry.retry.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, DriftlineError):
            log.error("unexpected: %s", error, exc_info=error)

    # -- leaving ----------------------------------------------------------------------------------

    async def _retire(self, entry: Entry, served: Served) -> None:
        """Close a version that takes no new requests, when its last one is answered."""
        await served.batcher.drain()
        served.close()
        entry.unloading.remove(served)
        log.info(
            "%s %d is drained and closed", entry.name, served.version.number,
            extra={"model": entry.name, "version": served.version.number},
        )  # fmt: skip
        # An answer on its way, or a monitor that is being loaded, may hold the model still.
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        watched = weakref.ref(served.model, lambda _: loop.call_soon_threadsafe(gone.set))
        del served
        if watched() is not None:
            await gone.wait()
        await asyncio.to_thread(memory.give_back)


def backoff(attempts: int) -> float:
    """Seconds to wait after so many attempts that failed."""
    return min(RETRY_SECONDS, 2.0 ** min(attempts - 1, 10))
