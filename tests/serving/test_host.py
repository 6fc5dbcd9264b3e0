import asyncio
import gc
import logging
import shutil
import threading
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from onnx_models import gather, scale
from waiting import eventually

from driftline.batching.cost import Cost
from driftline.batching.request import Request
from driftline.config import ServerFile
from driftline.errors import BadRequest, DriftlineError, ModelError, NotFound, RegistryError, Unavailable
from driftline.registry.directory import DirectoryRegistry
from driftline.registry.file import FileRegistry
from driftline.registry.source import Reference, Registry, Targets, Version
from driftline.serving import host as host_module
from driftline.serving import memory
from driftline.serving.host import Host
from driftline.serving.http import triton
from driftline.serving.served import Served
from driftline.tensors import Tensors

FOREVER = 60.0
INTERVAL = 0.01


class Doors(DirectoryRegistry):
    """A registry in a folder whose methods can be kept waiting or made to fail."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gates: dict[tuple[str, int], threading.Event] = {}
        self.fetching = threading.Semaphore(0)
        self.resolve_error: Exception | None = None
        self.models_error: Exception | None = None
        self.watch_errors: list[Exception] = []
        self.watches = 0

    def fetch(self, version: Version) -> Path:
        if gate := self.gates.get((version.name, version.number)):
            self.fetching.release()
            assert gate.wait(FOREVER)
        return super().fetch(version)

    def resolve(self, reference: Reference) -> Version:
        if self.resolve_error is not None:
            raise self.resolve_error
        return super().resolve(reference)

    def models(self) -> list[str]:
        if self.models_error is not None:
            raise self.models_error
        return super().models()

    async def watch(self, references: Sequence[Reference], interval: float = 0.5) -> AsyncIterator[Targets]:
        self.watches += 1
        if self.watch_errors:
            raise self.watch_errors.pop()
        async for targets in super().watch(references, interval):
            yield targets

    @contextmanager
    def blocked(self, number: int, name: str = "m") -> Iterator[None]:
        """While inside, `fetch` of a version waits."""
        gate = self.gates[name, number] = threading.Event()
        try:
            yield
        finally:
            gate.set()

    async def in_fetch(self) -> None:
        assert await asyncio.to_thread(self.fetching.acquire, timeout=FOREVER)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "backoff", lambda attempts: 0.02)


@pytest.fixture
def registry(tmp_path: Path) -> Doors:
    return Doors(tmp_path / "models")


def register(registry: Doors, tmp_path: Path, name: str = "m", count: int = 1) -> None:
    """Versions whose `y` is their number times `x`."""
    for _ in range(count):
        number = 1 + len(list(registry.root.glob(f"{name}/[0-9]*")))
        registry.register([scale(tmp_path / "new" / "model.onnx", float(number))], name)


def register_corrupt(registry: Doors, tmp_path: Path, name: str = "m") -> Path:
    """A version that can't be loaded; the path of its model."""
    path = tmp_path / "corrupt" / "model.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"no model")
    return registry.fetch(registry.register([path], name)) / "model.onnx"


def write(path: Path, factor: float) -> None:
    """Replace a model's file, as a careful writer does."""
    scale(path.with_name("half written.onnx"), factor).replace(path)


@asynccontextmanager
async def started(registry: Registry, *references: str, interval: float = INTERVAL) -> AsyncIterator[Host]:
    host = Host(registry, [Reference.parse(text) for text in references], interval=interval)
    try:
        async with asyncio.timeout(FOREVER):
            await host.start()
        yield host
    finally:
        await host.close()


def submit(served: Served, value: float = 1.0) -> Request:
    return served.batcher.submit({"x": np.full((1, 3), value, np.float32)}, ("y",))


async def factor(host: Host, name: str = "m", version: str | None = None) -> float:
    """Which model answers: the y of a request whose x is 1."""
    async with asyncio.timeout(FOREVER):
        return float((await submit(host.find(name, version)))["y"][0, 0])


def default(host: Host, name: str = "m") -> int | None:
    served = host.entries[name].default
    return served.version.number if served else None


def states(host: Host) -> dict[int, tuple[str, str]]:
    """The index: {version: (state, reason)} of the model m."""
    rows = triton.index(host, host.registry.versions("m"), {}, only_ready=False)
    return {int(row["version"]): (row["state"], row["reason"]) for row in rows}


@asynccontextmanager
async def busy(served: Served) -> AsyncIterator[Request]:
    """While inside, a request to a version is being computed."""
    gate, entered, run = threading.Event(), threading.Event(), served.batcher._run

    def gated(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        entered.set()
        assert gate.wait(FOREVER)
        return run(inputs, outputs)

    served.batcher._run = gated
    served.batcher._cost = Cost()  # what nothing is known of runs in a thread
    request = submit(served)
    try:
        assert await asyncio.to_thread(entered.wait, FOREVER)
        yield request
    finally:
        gate.set()
        served.batcher._run = run


# -- finding ----------------------------------------------------------------------------------------


async def test_it_finds_the_default_and_versions_by_number(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path, count=2)
    async with started(registry, "m", "m:1") as host:
        assert (await factor(host), await factor(host, version="1"), await factor(host, version="2")) == (
            2,
            1,
            2,
        )
        assert [served.version.number for served in host.served()] == [2, 1]


@pytest.mark.parametrize("version", ["2", "0", "one", "-1", "1.0", "", "¹", "9" * 5000])
async def test_a_version_that_is_not_in_memory_is_not_found(
    registry: Doors, tmp_path: Path, version: str
) -> None:
    register(registry, tmp_path)
    async with started(registry, "m") as host:
        with pytest.raises(NotFound, match="is not found; loaded: 1"):
            host.find("m", version)
        with pytest.raises(NotFound, match="unknown model: 'other' is not found"):
            host.find("other", version)


async def test_while_it_loads_clients_are_told_to_come_back(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path)
    host = Host(registry, [Reference("m")])
    with pytest.raises(Unavailable):
        host.find("m")
    with registry.blocked(1):
        starting = asyncio.create_task(host.start())
        await registry.in_fetch()
        assert states(host) == {1: ("LOADING", "")}
        for version in (None, "1"):
            with pytest.raises(Unavailable, match="'m' is being loaded"):
                host.find("m", version)
        assert not host.ready
    async with asyncio.timeout(FOREVER):
        await starting
    assert host.ready
    assert await factor(host) == 1
    await host.close()


async def test_a_start_that_fails_says_why(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path)
    register_corrupt(registry, tmp_path)
    host = Host(registry, [Reference("m")])
    with pytest.raises(ModelError, match=r"model\.onnx"):
        await host.start()
    await host.close()
    missing = Host(registry, [Reference("m", version=1), Reference("other")])
    with pytest.raises(NotFound, match="no model 'other'"):
        await missing.start()
    await missing.close()
    nowhere = Host(DirectoryRegistry(tmp_path / "nowhere"))
    with pytest.raises(RegistryError, match="no such folder"):
        await nowhere.start()
    await nowhere.close()


# -- following --------------------------------------------------------------------------------------


async def test_without_an_alias_the_newest_serves_and_production_goes_before(
    registry: Doors, tmp_path: Path
) -> None:
    register(registry, tmp_path)
    async with started(registry, "m") as host:
        register(registry, tmp_path)
        await eventually(lambda: default(host) == 2)
        registry.promote("m", 1)
        await eventually(lambda: default(host) == 1)
        assert await factor(host) == 1
        register(registry, tmp_path)
        registry.promote("m", 3)
        await eventually(lambda: default(host) == 3)
        assert host.entries["m"].swaps == 3
        await eventually(lambda: not host.entries["m"].unloading)
        assert list(host.entries["m"].versions) == [3]


async def test_an_alias_or_a_number_is_followed_alone(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path, count=2)
    register(registry, tmp_path, "fixed", count=2)
    registry.promote("m", 1, "champion")
    async with started(registry, "m@champion", "fixed:1") as host:
        register(registry, tmp_path)
        registry.promote("m", 3)
        registry.promote("fixed", 2)
        registry.promote("m", 2, "champion")
        await eventually(lambda: default(host) == 2)
        assert default(host, "fixed") == 1
        assert host.entries["m"].loads == 2


async def test_another_alias_on_the_same_version_changes_its_name_only(
    registry: Doors, tmp_path: Path
) -> None:
    register(registry, tmp_path)
    async with started(registry, "m") as host:
        served = host.find("m")
        registry.promote("m", 1, "champion")
        await eventually(lambda: host.find("m").version.aliases == ("champion",))
        assert host.find("m") is served
        assert (host.entries["m"].loads, host.entries["m"].swaps) == (1, 0)


async def test_all_models_are_followed_if_none_is_named(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path)
    async with started(registry) as host:
        register(registry, tmp_path, "other")
        await eventually(lambda: "other" in host.entries and default(host, "other") == 1)
        assert await factor(host, "other") == 1


async def test_a_model_that_takes_long_delays_no_other(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path)
    register(registry, tmp_path, "other")
    async with started(registry) as host:
        with registry.blocked(2):
            register(registry, tmp_path)
            await registry.in_fetch()
            register(registry, tmp_path, "other")
            await eventually(lambda: default(host, "other") == 2)
            assert default(host) == 1
        await eventually(lambda: default(host) == 2)


async def test_a_watcher_that_fails_is_started_again(
    registry: Doors, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register(registry, tmp_path)
    registry.watch_errors = [OSError("gone"), RuntimeError("a bug")]
    async with started(registry, "m") as host:
        await eventually(lambda: registry.watches == 3)
        register(registry, tmp_path)
        await eventually(lambda: default(host) == 2)
    assert caplog.text.count("can't be followed") == 2


@pytest.mark.parametrize("error", [RegistryError("the network is down"), OSError("I/O error"), KeyError("x")])
async def test_a_registry_that_fails_to_resolve_is_asked_again(
    registry: Doors, tmp_path: Path, error: Exception
) -> None:
    """The watcher has told its news by then, and will not tell them again."""
    register(registry, tmp_path)
    async with started(registry, "m", interval=3600) as host:
        await eventually(lambda: not host.entries["m"].lock.locked())
        register(registry, tmp_path)
        registry.resolve_error = error
        await host.refresh()
        await eventually(lambda: host.entries["m"].attempts > 3)
        assert await factor(host) == 1
        registry.resolve_error = None
        await eventually(lambda: default(host) == 2)
        assert host.entries["m"].attempts == 0


@pytest.mark.parametrize("references", [(), ("m",)])
async def test_a_registry_that_vanishes_and_returns(
    registry: Doors, tmp_path: Path, references: tuple[str, ...]
) -> None:
    register(registry, tmp_path)
    async with started(registry, *references) as host:
        away = registry.root.rename(tmp_path / "away")
        await host.refresh()
        with pytest.raises(DriftlineError):
            await host.refresh(strict=True)
        assert await factor(host) == 1
        away.rename(registry.root)
        register(registry, tmp_path)
        await eventually(lambda: default(host) == 2)


# -- swaps --------------------------------------------------------------------------------------------


async def test_swaps_lose_no_request_and_mix_no_versions(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path, count=4)
    registry.promote("m", 1)
    async with started(registry, "m") as host:
        answers: Counter[int] = Counter()
        going = True

        async def client(number: int) -> None:
            while going:
                served = host.find("m")
                expected = served.version.number
                if number % 2:
                    rows = 1 + number
                    inputs = {"x": np.full((rows, 3), number, np.float32)}
                    y = (await served.batcher.submit(inputs, ("y",)))["y"]
                    assert y.tolist() == [[expected * number] * 3] * rows
                else:
                    request = submit(served, number)
                    await asyncio.sleep(0)
                    assert (await request)["y"].tolist() == [[expected * number] * 3]
                answers[expected] += 1
                await asyncio.sleep(0)

        clients = [asyncio.create_task(client(number)) for number in range(8)]
        for turn in range(12):
            number = 2 + turn % 3
            registry.promote("m", number)
            if turn % 2:
                await asyncio.gather(host.refresh(), host.load("m"), host.refresh())
            before = answers[number]
            await eventually(lambda number=number, before=before: answers[number] > before)
        going = False
        async with asyncio.timeout(FOREVER):
            await asyncio.gather(*clients)
        entry = host.entries["m"]
        await eventually(lambda: not entry.unloading)
        assert set(answers) == {1, 2, 3, 4}
        assert entry.swaps == 12
        assert entry.loads == 13
        assert list(entry.versions) == [4]


async def test_a_version_answers_its_last_request_after_the_swap(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path)
    async with started(registry, "m") as host:
        old = host.find("m")
        async with busy(old) as running:
            queued = submit(old)
            register(registry, tmp_path)
            await eventually(lambda: default(host) == 2)
            assert await factor(host) == 2
            assert states(host) == {1: ("UNLOADING", ""), 2: ("READY", "")}
            with pytest.raises(NotFound):
                host.find("m", "1")
        for request in (running, queued):
            assert (await request)["y"][0, 0] == 1
        await eventually(lambda: states(host) == {1: ("UNAVAILABLE", ""), 2: ("READY", "")})


async def test_looking_many_times_at_once_loads_once(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path)
    async with started(registry, "m") as host:
        for number in range(2, 6):
            register(registry, tmp_path)
            looks: list[asyncio.Future[None]] = [asyncio.ensure_future(host.refresh()) for _ in range(5)]
            looks += [asyncio.ensure_future(host.load("m")) for _ in range(5)]
            async with asyncio.timeout(FOREVER):
                await asyncio.gather(*looks)
            assert default(host) == number
        assert host.entries["m"].loads == 5


async def test_what_changed_while_a_version_loads_is_loaded_next(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path)
    async with started(registry, "m") as host:
        with registry.blocked(2):
            register(registry, tmp_path)
            await registry.in_fetch()
            register(registry, tmp_path)
        await eventually(lambda: default(host) == 3)
        await eventually(lambda: not host.entries["m"].unloading)
        assert list(host.entries["m"].versions) == [3]


async def test_memory_is_given_back_when_the_last_answer_has_let_go(
    registry: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(registry, tmp_path)
    async with started(registry, "m") as host:
        answering = host.find("m")  # as the endpoint holds it until its answer is sent
        model = weakref.ref(answering.model)
        alive: list[bool] = []
        monkeypatch.setattr(memory, "release_free_pages", lambda: alive.append(model() is not None))
        register(registry, tmp_path)
        await eventually(lambda: default(host) == 2 and not host.entries["m"].unloading)
        await asyncio.sleep(0.1)
        assert not alive
        del answering
        await eventually(lambda: alive)
        assert alive == [False]


@pytest.mark.parametrize("failing", [False, True])
async def test_a_version_that_is_drained_leaves_memory(
    registry: Doors, tmp_path: Path, failing: bool
) -> None:
    """Without the garbage collector's help, whatever its requests and its successors did."""
    registry.register([gather(tmp_path / "model.onnx")], "m")
    async with started(registry, "m", interval=3600) as host:
        await eventually(lambda: not host.entries["m"].lock.locked())
        gc.collect()
        gc.disable()
        try:
            served = host.find("m")
            kept = [weakref.ref(served), weakref.ref(served.batcher), weakref.ref(served.model._session)]
            requests = [
                served.batcher.submit({"i": np.array([99 if failing else 3])}, ("y",)) for _ in range(3)
            ]
            outcomes = await asyncio.gather(*requests, return_exceptions=True)
            assert all(isinstance(outcome, BadRequest) for outcome in outcomes) is failing
            requests.append(served.batcher.submit({"i": np.array([1])}, ("y",)))
            requests[-1].cancel()
            del served, requests, outcomes
            register_corrupt(registry, tmp_path)
            await host.refresh()
            assert host.entries["m"].failures
            registry.register([gather(tmp_path / "model.onnx")], "m")
            await host.refresh()
            assert default(host) == 3
            await eventually(lambda: all(ref() is None for ref in kept))
        finally:
            gc.enable()


# -- failures -----------------------------------------------------------------------------------------


async def test_a_version_that_cannot_be_loaded_leaves_the_old_one_serving(
    registry: Doors, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register(registry, tmp_path)
    async with started(registry, "m") as host:
        old = host.find("m")
        model = register_corrupt(registry, tmp_path)
        await eventually(lambda: host.entries["m"].failures)
        assert host.find("m") is old
        assert await factor(host) == 1
        assert host.entries["m"].load_failures >= 1
        assert host.entries["m"].swaps == 0
        state, reason = states(host)[2]
        assert state in ("UNAVAILABLE", "LOADING")
        assert str(model) in host.entries["m"].failures[2]
        assert reason in ("", host.entries["m"].failures[2])
        (record, *_) = (record for record in caplog.records if record.levelno == logging.ERROR)
        assert "m 2 can't be loaded" in record.message
        assert "1 serves on; next try in" in record.message
        assert not [one for one in caplog.records if one.levelno == logging.WARNING]  # it is said once

        write(model, 2.0)
        await eventually(lambda: default(host) == 2)
        assert await factor(host) == 2
        assert not host.entries["m"].failures
        await eventually(lambda: states(host)[2] == ("READY", ""))


async def test_what_failed_is_tried_again_though_nothing_changes_that_the_registry_sees(
    registry: Doors, tmp_path: Path
) -> None:
    register(registry, tmp_path)
    async with started(registry, "m", interval=3600) as host:
        await eventually(lambda: not host.entries["m"].lock.locked())
        settings = tmp_path / "driftline.toml"
        settings.write_text("[batching]\nmax_batch_rows = -1\n")
        registry.register([scale(tmp_path / "model.onnx", 2.0), settings], "m")
        await host.refresh()
        assert "max_batch_rows = -1" in host.entries["m"].failures[2]
        await eventually(lambda: host.entries["m"].attempts >= 3)
        (registry.root / "m" / "2" / "driftline.toml").unlink()
        await eventually(lambda: default(host) == 2)


async def test_going_back_ends_the_tries(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path)
    async with started(registry, "m") as host:
        register_corrupt(registry, tmp_path)
        await eventually(lambda: host.entries["m"].failures)
        registry.promote("m", 1)
        await eventually(lambda: not host.entries["m"].failures)
        await eventually(lambda: not host.entries["m"].lock.locked())
        failures = host.entries["m"].load_failures
        await asyncio.sleep(0.1)
        assert host.entries["m"].load_failures == failures
        assert states(host) == {1: ("READY", ""), 2: ("UNAVAILABLE", "")}


async def test_a_model_that_fails_keeps_no_other_from_loading(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path)
    register(registry, tmp_path, "other")
    async with started(registry) as host:
        register_corrupt(registry, tmp_path)
        register_corrupt(registry, tmp_path, "other")
        await eventually(lambda: host.entries["m"].failures and host.entries["other"].failures)
        register(registry, tmp_path, "other")
        await eventually(lambda: default(host, "other") == 3)
        tries = host.entries["m"].attempts
        await eventually(lambda: host.entries["m"].attempts > tries)


async def test_at_the_start_a_model_that_fails_may_keep_no_other_from_serving(
    registry: Doors, tmp_path: Path
) -> None:
    register(registry, tmp_path, "good")
    path = register_corrupt(registry, tmp_path, "bad")
    host = Host(registry, interval=INTERVAL, exit_on_error=False)
    await host.start()
    try:
        assert host.ready
        assert await factor(host, "good") == 1
        with pytest.raises(NotFound):
            host.find("bad")
        assert "bad" in host.entries["bad"].failures[1]
        write(path, 3.0)
        await eventually(lambda: default(host, "bad") == 1)
        assert await factor(host, "bad") == 3
    finally:
        await host.close()


async def test_a_model_that_leaves_before_it_could_serve_is_forgotten(
    registry: Doors, tmp_path: Path
) -> None:
    register(registry, tmp_path, "good")
    async with started(registry) as host:
        path = register_corrupt(registry, tmp_path, "bad")
        await eventually(lambda: "bad" in host.entries and host.entries["bad"].attempts > 2)
        shutil.rmtree(path.parent.parent)
        await eventually(
            lambda: host.entries["bad"].retry is not None and host.entries["bad"].retry.cancelled()
        )
        assert host.entries["bad"].attempts == 0
        assert host.find(None) is host.find("good")
        register(registry, tmp_path, "bad")
        await eventually(lambda: default(host, "bad") == 1)
        assert await factor(host, "good") == 1


async def test_only_failures_that_matter_are_remembered(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path)
    async with started(registry, "m") as host:
        for number in range(2, 8):
            register_corrupt(registry, tmp_path)
            await eventually(lambda number=number: list(host.entries["m"].failures) == [number])
        assert list(host.entries["m"].versions) == [1]


# -- two references of one model ------------------------------------------------------------------------


async def test_the_first_reference_is_the_default_and_each_is_followed(
    registry: Doors, tmp_path: Path
) -> None:
    register(registry, tmp_path, count=4)
    registry.promote("m", 1, "champion")
    registry.promote("m", 2, "challenger")
    async with started(registry, "m@champion", "m@challenger") as host:
        assert (default(host), sorted(host.entries["m"].versions)) == (1, [1, 2])
        registry.promote("m", 3, "challenger")
        await eventually(lambda: sorted(host.entries["m"].versions) == [1, 3])
        registry.promote("m", 3, "champion")
        await eventually(lambda: list(host.entries["m"].versions) == [3])
        assert default(host) == 3
        assert host.entries["m"].loads == 3
        registry.promote("m", 4, "challenger")
        await eventually(lambda: sorted(host.entries["m"].versions) == [3, 4])
        assert (default(host), await factor(host, version="4")) == (3, 4)


async def test_an_alias_that_vanishes_moves_no_default(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path, count=3)
    registry.promote("m", 1, "champion")
    registry.promote("m", 2, "challenger")
    async with started(registry, "m@champion", "m@challenger") as host:
        (registry.root / "m" / "aliases.json").write_text('{"challenger": 3}')
        await eventually(lambda: 3 in host.entries["m"].versions)
        assert default(host) == 1
        assert sorted(host.entries["m"].versions) == [1, 3]
        (registry.root / "m" / "aliases.json").write_text('{"champion": 2, "challenger": 3}')
        await eventually(lambda: default(host) == 2)


async def test_a_challenger_that_fails_stops_no_champion(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path, count=4)
    registry.promote("m", 1, "champion")
    registry.promote("m", 2, "challenger")
    async with started(registry, "m@champion", "m@challenger") as host:
        model = register_corrupt(registry, tmp_path)
        registry.promote("m", 5, "challenger")
        await eventually(lambda: host.entries["m"].failures)
        for number in (3, 4):
            registry.promote("m", number, "champion")
            await eventually(lambda number=number: default(host) == number)
        # The challenger before serves on, no champion of old does.
        await eventually(lambda: sorted(host.entries["m"].versions) == [2, 4])
        await eventually(lambda: not host.entries["m"].unloading)
        assert list(host.entries["m"].failures) == [5]
        write(model, 5.0)
        await eventually(lambda: sorted(host.entries["m"].versions) == [4, 5])


async def test_a_champion_that_fails_stops_no_challenger(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path, count=3)
    registry.promote("m", 1, "champion")
    registry.promote("m", 2, "challenger")
    async with started(registry, "m@champion", "m@challenger") as host:
        register_corrupt(registry, tmp_path)
        registry.promote("m", 4, "champion")
        registry.promote("m", 3, "challenger")
        await eventually(lambda: sorted(host.entries["m"].versions) == [1, 3])
        assert default(host) == 1
        assert await factor(host) == 1


async def test_a_default_that_cannot_be_had_is_no_other_version(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path, count=2)
    registry.promote("m", 2, "champion")
    async with started(registry, "m@champion", "m:1") as host:
        await host.unload("m")
        (registry.root / "m" / "aliases.json").unlink()
        with pytest.raises(NotFound, match="no alias 'champion'"):
            await host.load("m")
        with pytest.raises(NotFound):
            host.find("m")
        assert await factor(host, version="1") == 1
        registry.promote("m", 2, "champion")
        await eventually(lambda: default(host) == 2)


# -- files that change under one number -------------------------------------------------------------------


async def test_a_file_that_is_written_anew_is_swapped(tmp_path: Path) -> None:
    path = scale(tmp_path / "m.onnx", 1.0)
    async with started(FileRegistry(path), "m") as host:
        old = host.find("m")
        write(path, 2.0)
        await eventually(lambda: host.find("m") is not old)
        assert (await factor(host), await factor(host, version="1")) == (2, 2)

        path.with_name("bad").write_bytes(b"no model")
        path.with_name("bad").replace(path)
        await eventually(lambda: host.entries["m"].failures)
        assert await factor(host) == 2
        state, reason = states(host)[1]
        assert state == "READY"
        assert str(path) in reason

        write(path, 3.0)
        await eventually(lambda: not host.entries["m"].failures)
        assert await factor(host, version="1") == 3
        assert states(host) == {1: ("READY", "")}
        await eventually(lambda: not host.entries["m"].unloading)


async def test_a_changed_file_is_served_until_all_that_changed_is_loaded(
    registry: Doors, tmp_path: Path
) -> None:
    register(registry, tmp_path, count=2)
    registry.promote("m", 2, "challenger")
    async with started(registry, "m:1", "m@challenger", interval=3600) as host:
        await eventually(lambda: not host.entries["m"].lock.locked())
        write(registry.root / "m" / "1" / "model.onnx", 10.0)
        register(registry, tmp_path)
        registry.promote("m", 3, "challenger")
        with registry.blocked(3):
            looking = asyncio.create_task(host.refresh())
            await registry.in_fetch()
            assert await factor(host) == 1
            assert not host.entries["m"].unloading
        async with asyncio.timeout(FOREVER):
            await looking
        assert (await factor(host), await factor(host, version="3")) == (10, 3)


# -- loading and unloading by hand ----------------------------------------------------------------------


async def test_an_unloaded_model_stays_away_until_it_is_loaded(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path, count=2)
    registry.promote("m", 1, "champion")
    async with started(registry, "m@champion") as host:
        await host.unload("m")
        with pytest.raises(NotFound):
            host.find("m")
        with pytest.raises(NotFound):
            host.find("m", "1")
        await eventually(lambda: states(host) == {1: ("UNAVAILABLE", ""), 2: ("UNAVAILABLE", "")})
        register(registry, tmp_path)
        registry.promote("m", 2, "champion")
        await host.refresh()
        await asyncio.sleep(10 * INTERVAL)
        assert not list(host.served())
        await host.unload("m")

        await host.load("m")
        assert default(host) == 2  # what it was asked to follow is remembered
        registry.promote("m", 3, "champion")
        await eventually(lambda: default(host) == 3)


@pytest.mark.parametrize("references", [(), ("m",)])
async def test_a_model_can_be_loaded_by_hand_and_is_followed_then(
    registry: Doors, tmp_path: Path, references: tuple[str, ...]
) -> None:
    register(registry, tmp_path)
    async with started(registry, *references) as host:
        register(registry, tmp_path, "other")
        await host.load("other")
        assert await factor(host, "other") == 1
        register(registry, tmp_path, "other")
        await eventually(lambda: default(host, "other") == 2)
        await host.unload("other")
        register(registry, tmp_path)
        await eventually(lambda: default(host) == 2)
        assert default(host, "other") is None


async def test_what_cannot_be_loaded_by_hand_says_why(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path)
    async with started(registry, "m") as host:
        with pytest.raises(NotFound, match="no model 'other'"):
            await host.load("other")
        for name in ("m@champion", "m:1", "../m", ""):
            with pytest.raises(BadRequest):
                await host.load(name)
        with pytest.raises(NotFound):
            await host.unload("other")
        assert list(host.entries) == ["m"]
        model = register_corrupt(registry, tmp_path, "other")
        with pytest.raises(ModelError, match=r"model\.onnx"):
            await host.load("other")
        write(model, 1.0)
        await eventually(lambda: host.entries["other"].default)


async def test_unloading_a_model_ends_its_tries(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path)
    async with started(registry, "m") as host:
        model = register_corrupt(registry, tmp_path)
        await eventually(lambda: host.entries["m"].failures)
        await host.unload("m")
        assert not host.entries["m"].failures
        write(model, 2.0)
        await asyncio.sleep(0.1)
        assert not host.entries["m"].versions


async def test_unloading_a_model_that_is_being_loaded(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path)
    async with started(registry, "m") as host:
        with registry.blocked(2):
            register(registry, tmp_path)
            await registry.in_fetch()
            unloading = asyncio.create_task(host.unload("m"))
            await asyncio.sleep(0)
        async with asyncio.timeout(FOREVER):
            await unloading
        await eventually(lambda: not host.entries["m"].unloading)
        assert not host.entries["m"].versions
        assert default(host) is None


async def test_the_last_word_stands(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path)
    async with started(registry, "m") as host:
        for _ in range(5):
            await asyncio.gather(host.unload("m"), host.load("m"), host.refresh())
            assert await factor(host) == 1
        await asyncio.gather(host.load("m"), host.refresh())
        await host.unload("m")
        assert not list(host.served())


# -- the end --------------------------------------------------------------------------------------------


async def test_closing_refuses_what_waits_and_stops_all_work(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path)
    host = Host(registry, [Reference("m")], interval=INTERVAL)
    await host.start()
    old = host.find("m")
    async with busy(old) as running:
        old_waiting = submit(old)
        register(registry, tmp_path)
        await eventually(lambda: default(host) == 2)
        new = host.find("m")
        async with busy(new) as new_running:
            queued = submit(new)
            register_corrupt(registry, tmp_path)
            await eventually(lambda: host.entries["m"].failures)
            await host.close()
            for refused in (old_waiting, queued, running, new_running):
                with pytest.raises(Unavailable, match="stopping"):
                    await refused
            with pytest.raises(Unavailable):
                submit(host.find("m"))
    await eventually(lambda: not host._tasks)
    tries = host.entries["m"].load_failures
    await asyncio.sleep(0.1)
    assert host.entries["m"].load_failures == tries
    assert not host._tasks
    assert not host.ready


async def test_closing_while_a_version_loads(registry: Doors, tmp_path: Path) -> None:
    register(registry, tmp_path)
    host = Host(registry, [Reference("m")], interval=INTERVAL)
    await host.start()
    with registry.blocked(2):
        register(registry, tmp_path)
        await registry.in_fetch()
        async with asyncio.timeout(FOREVER):
            await host.close()
    assert default(host) == 1


async def test_closing_what_was_never_started(registry: Doors) -> None:
    await Host(registry).close()


async def test_what_may_be_a_mistake_is_said(registry: Doors, caplog: pytest.LogCaptureFixture) -> None:
    registry.root.mkdir()
    file = ServerFile(Path("driftline.toml"), models={"flihgts": {}})
    host = Host(registry, file=file, interval=INTERVAL)
    await host.start()
    try:
        with caplog.at_level(logging.INFO):
            host.announce()
    finally:
        await host.close()
    assert [record.message for record in caplog.records if record.name == "driftline.host"] == [
        "ready",
        f"{registry.uri}: no model is served so far",
        "driftline.toml: models.flihgts: no model of this name is served so far",
    ]
