"""The versions in memory: follow the registry, load, swap, drain, give memory back.

The life of a version: a reference stands for it (`_follow`) -> `_load` fetches, verifies, loads and
warms it beside the old one -> the default flips to it -> when nothing stands for it any more, `_retire`
waits for its last request and closes it. If anything before the flip fails, the old version serves on.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import monotonic

from driftline.batching.batcher import Batcher
from driftline.batching.cost import Cost
from driftline.config import ServerFile
from driftline.engine.bundle import Bundle
from driftline.engine.model import Model
from driftline.errors import DriftlineError, ModelError, NotFound, Unavailable
from driftline.protocols.codec import Codec
from driftline.protocols.v1 import V1Codec
from driftline.protocols.v2 import V2Codec
from driftline.registry.source import Reference, Registry, Version
from driftline.serving.latency import Latency

log = logging.getLogger("driftline.host")

RETRY_SECONDS = 60.0
"""The longest wait before a version that failed to load is tried again."""


class Served:
    """One version in memory: a model behind a batcher."""

    def __init__(self, version: Version, model: Model, cost: Cost, latency: Latency) -> None:
        self.version = version
        self.model = model
        self.signature = model.signature
        self.codecs: dict[str, Codec] = {
            "v1": V1Codec(model.signature),
            "v2": V2Codec(model.signature, version.name, version.number),
        }
        self.batcher = Batcher(
            model.run, model.signature, model.settings.batching, model.settings.engine.instances, cost
        )
        self.latency = latency

    def same_files(self, version: Version) -> bool:
        """Whether this is what `version` says, apart from its aliases."""
        return (self.version.number, self.version.fingerprint) == (version.number, version.fingerprint)


@dataclass(slots=True)
class Failure:
    """Why a version could not be loaded, and how often it was tried."""

    reason: str
    attempts: int


@dataclass(slots=True)
class Entry:
    """All that is known of one model: what serves it, what is on its way in or out."""

    name: str
    default: Served | None = None
    versions: dict[int, Served] = field(default_factory=dict)
    loading: set[int] = field(default_factory=set)
    unloading: list[Served] = field(default_factory=list)
    failures: dict[int, Failure] = field(default_factory=dict)
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
    """

    def __init__(
        self,
        registry: Registry,
        references: Sequence[Reference] = (),
        file: ServerFile | None = None,
        interval: float = 0.5,
    ) -> None:
        self.registry = registry
        self.entries: dict[str, Entry] = {}
        self.ready = False
        self._references = list(references)
        self._everything = not references
        self._unloaded: set[str] = set()
        self._file = file or ServerFile()
        self._interval = interval
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None

    # -- for requests -------------------------------------------------------------------------

    def find(self, name: str, version: str | None = None) -> Served:
        """The version that answers: the one named, else the model's default.

        Raises NotFound if it is not in memory, Unavailable if the model is still being loaded.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        if version is None:
            served = entry.default
        else:
            served = entry.versions.get(int(version)) if version.isascii() and version.isdigit() else None
        if served is not None:
            return served
        if not entry.versions and entry.loading:
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
        self._watch()

    async def refresh(self, strict: bool = False) -> None:
        """Look at the registry now, and try again what failed; with `strict`, raise what fails."""
        names = {reference.name for reference in self._references}
        if self._everything:
            names = set(await asyncio.to_thread(self.registry.models)) - self._unloaded
        outcomes = await asyncio.gather(
            *(self._sync(name, strict) for name in sorted(names)), return_exceptions=True
        )
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def load(self, name: str) -> None:
        """Serve a model from now on, in the version it stands for now; a failure is raised."""
        if not any(reference.name == name for reference in self._references):
            reference = Reference.parse(name)
            await asyncio.to_thread(self.registry.resolve, reference)
            if not self._everything:
                self._references.append(reference)
            self._unloaded.discard(name)
            self._watch()
        await self._sync(name, strict=True)

    async def unload(self, name: str) -> None:
        """Serve a model no more; NotFound if it was not served."""
        entry = self.entries.get(name)
        if entry is None:
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        self._references = [reference for reference in self._references if reference.name != name]
        self._unloaded.add(name)
        self._watch()
        async with entry.lock:
            entry.default = None
            for served in list(entry.versions.values()):
                self._leave(entry, served)
        log.info("%s is unloaded", name, extra={"model": name})

    async def close(self) -> None:
        """Stop following, refuse what still waits, give everything back."""
        self.ready = False
        if self._retry is not None:
            self._retry.cancel()
        if self._watching is not None:
            self._tasks.add(self._watching)
        for task in list(self._tasks):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for served in self.served():
            served.batcher.close()

    # -- following --------------------------------------------------------------------------------

    def _watch(self) -> None:
        """(Re)start to follow the references there are now."""
        if self._watching is not None:
            self._watching.cancel()
        self._watching = asyncio.create_task(self._keep_following())

    async def _keep_following(self) -> None:
        if self._references or self._everything:
            async for _ in self.registry.watch(self._references, self._interval):
                await self.refresh()

    async def _sync(self, name: str, strict: bool) -> None:
        """Bring a model to what the registry says now; one at a time, so that the latest word stands."""
        entry = self.entries.setdefault(name, Entry(name))
        async with entry.lock:
            versions = []
            for reference in self._references or [Reference(name)]:
                if reference.name == name and name not in self._unloaded:
                    try:
                        versions.append(await asyncio.to_thread(self.registry.resolve, reference))
                    except DriftlineError as error:
                        if strict:
                            raise
                        log.warning("%s: %s; what is loaded serves on", reference, error)
            if versions:
                await self._serve(entry, versions, strict)

    async def _serve(self, entry: Entry, versions: list[Version], strict: bool) -> None:
        """Bring versions into memory, flip the default to the first of them, let all others go."""
        for version in versions:
            served = entry.versions.get(version.number)
            if served is not None and served.same_files(version):
                served.version = version
                continue
            try:
                fresh = await self._load(entry, version)
            except DriftlineError as error:
                self._note_failure(entry, version, error)
                if strict:
                    raise
                return
            if served is not None:
                self._leave(entry, served)
            entry.versions[version.number] = fresh
        self._flip(entry, entry.versions[versions[0].number])
        wanted = {version.number for version in versions}
        for number, served in list(entry.versions.items()):
            if number not in wanted:
                self._leave(entry, served)

    async def _load(self, entry: Entry, version: Version) -> Served:
        """Fetch, verify, load and warm a version; nobody is served by it yet."""

        def load() -> tuple[Model, Cost]:
            bundle = Bundle.open(self.registry.fetch(version))
            settings = self._file.settings_of(version.name, bundle.settings)
            model = Model(replace(bundle, settings=settings))
            return model, model.warm_up()

        begin = monotonic()
        entry.loading.add(version.number)
        try:
            model, cost = await asyncio.to_thread(load)
        except DriftlineError:
            entry.load_failures += 1
            raise
        except Exception as error:
            entry.load_failures += 1
            raise ModelError(f"{version.name} {version.number}: {type(error).__name__}: {error}") from error
        finally:
            entry.loading.discard(version.number)
        entry.loads += 1
        entry.load_seconds = monotonic() - begin
        entry.failures.pop(version.number, None)
        log.info(
            "%s %d is loaded in %.2f s", version.name, version.number, entry.load_seconds,
            extra={"model": version.name, "version": version.number, "seconds": entry.load_seconds},
        )  # fmt: skip
        return Served(version, model, cost, entry.latency)

    def _flip(self, entry: Entry, served: Served) -> None:
        """The one moment of a swap: from here on, requests without a version go to `served`."""
        old, entry.default = entry.default, served
        if old is served:
            return
        if old is not None:
            entry.swaps += 1
        log.info(
            "%s %d serves%s", entry.name, served.version.number,
            f", {old.version.number} drains" if old else "",
            extra={"model": entry.name, "version": served.version.number},
        )  # fmt: skip

    def _note_failure(self, entry: Entry, version: Version, error: DriftlineError) -> None:
        """Remember why a version can't serve, and try again later: its files may still be on their way."""
        attempts = entry.failures[version.number].attempts + 1 if version.number in entry.failures else 1
        entry.failures = {version.number: Failure(str(error), attempts)}
        wait = min(RETRY_SECONDS, 2.0 ** (attempts - 1))
        log.error(
            "%s %d can't be loaded: %s; %s; next try in %.0f s", entry.name, version.number, error,
            f"{entry.default.version.number} serves on" if entry.default else "nothing serves", wait,
            extra={"model": entry.name, "version": version.number, "reason": str(error)},
        )  # fmt: skip
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(wait, self._spawn_refresh)

    def _spawn_refresh(self) -> None:
        self._spawn(self.refresh())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- leaving ----------------------------------------------------------------------------------

    def _leave(self, entry: Entry, served: Served) -> None:
        """Take a version out of the way of new requests; it goes when its last one is answered."""
        if entry.versions.get(served.version.number) is served:
            del entry.versions[served.version.number]
        entry.unloading.append(served)
        self._spawn(self._retire(entry, served))

    async def _retire(self, entry: Entry, served: Served) -> None:
        await served.batcher.drain()
        served.batcher.close()
        entry.unloading.remove(served)
        log.info(
            "%s %d is drained and closed", entry.name, served.version.number,
            extra={"model": entry.name, "version": served.version.number},
        )  # fmt: skip
        del served
        await asyncio.to_thread(give_memory_back)


def give_memory_back() -> None:
    """Return freed memory to the system; glibc would keep it for us."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
