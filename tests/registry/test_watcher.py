import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from waiting import eventually

from driftline.config import Server
from driftline.errors import NotFound, RegistryError
from driftline.registry import watcher
from driftline.registry.directory import DirectoryRegistry
from driftline.registry.file import FileRegistry
from driftline.registry.source import Reference, Registry, Targets, Version

FLIGHTS = Reference("flights")
TRAINS = Reference("trains")
INTERVAL = 0.01


class Counted(DirectoryRegistry):
    """Counts the looks at it, so that a test can wait until nothing has been told."""

    looks = 0

    def aliases(self, name: str) -> dict[str, int]:
        self.looks += 1
        return super().aliases(name)

    def models(self) -> list[str]:
        self.looks += 1
        return super().models()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"onnx")
    return path


@pytest.fixture
def registry(tmp_path: Path, model: Path) -> Counted:
    registry = Counted(tmp_path / "models")
    registry.register([model], "flights")
    return registry


async def told(watch: AsyncIterator[Targets]) -> Targets:
    async with asyncio.timeout(60):
        return await anext(watch)


async def nothing_told(watch: AsyncIterator[Targets], registry: Counted) -> "asyncio.Future[Targets]":
    """The next Targets, which have not come after several looks."""
    following = asyncio.ensure_future(told(watch))
    enough = registry.looks + 20
    await eventually(lambda: registry.looks > enough)
    assert not following.done()
    return following


async def test_it_tells_at_once_and_then_each_change(registry: Counted, model: Path) -> None:
    watch = registry.watch([FLIGHTS], INTERVAL)
    (first,) = registry.versions("flights")
    assert await told(watch) == {FLIGHTS: first}

    following = await nothing_told(watch, registry)
    second = registry.register([model], "flights")
    assert await following == {FLIGHTS: second}

    registry.promote("flights", 1)
    assert await told(watch) == {FLIGHTS: registry.versions("flights")[0]}


async def test_by_default_it_looks_twice_a_second(registry: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def no_sleep(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(watcher.asyncio, "sleep", no_sleep)
    watch = registry.watch([FLIGHTS])
    await told(watch)
    registry.promote("flights", 1)
    await told(watch)
    assert all(0.4 <= seconds <= 0.6 for seconds in slept)
    assert len(set(slept)) == len(slept)  # not all servers look at the same time
    assert Server().poll_seconds == 0  # the registry's own interval


async def test_without_references_it_follows_all_models(registry: Counted, model: Path) -> None:
    watch = registry.watch([], INTERVAL)
    assert list(await told(watch)) == [FLIGHTS]
    trains = registry.register([model], "trains")
    targets = await told(watch)
    assert targets == {FLIGHTS: registry.resolve(FLIGHTS), TRAINS: trains}


async def test_a_reference_that_fails_stands_for_its_error_and_hurts_no_other(
    registry: Counted, model: Path
) -> None:
    watch = registry.watch([FLIGHTS, TRAINS], INTERVAL)
    targets = await told(watch)
    assert isinstance(targets[FLIGHTS], Version)
    assert isinstance(targets[TRAINS], NotFound)

    following = await nothing_told(watch, registry)
    trains = registry.register([model], "trains")
    assert (await following)[TRAINS] == trains

    (registry.root / "flights" / "aliases.json").write_text("{")
    targets = await told(watch)
    assert isinstance(targets[FLIGHTS], RegistryError)
    assert targets[TRAINS] == trains
    (await nothing_told(watch, registry)).cancel()


@pytest.mark.parametrize("references", [[], [FLIGHTS]], ids=["all", "one"])
async def test_a_registry_that_is_away_is_no_change_and_logged_once(
    registry: Counted, references: list[Reference], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "driftline.registry")
    watch = registry.watch(references, INTERVAL)
    before = await told(watch)
    elsewhere = registry.root.with_name("elsewhere")

    registry.root.rename(elsewhere)
    following = await nothing_told(watch, registry)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(registry.root) in caplog.text

    elsewhere.rename(registry.root)
    await eventually(lambda: len(caplog.records) > 1)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert not following.done()

    registry.promote("flights", 1)
    after = await following
    assert after.keys() == before.keys()
    assert after != before


async def test_a_registry_that_is_away_at_first_is_told_when_it_comes(tmp_path: Path, model: Path) -> None:
    registry = Counted(tmp_path / "models")
    watch = registry.watch([FLIGHTS], INTERVAL)
    following = await nothing_told(watch, registry)
    version = registry.register([model], "flights")
    targets = await following
    if isinstance(
        targets[FLIGHTS], NotFound
    ):  # seen just between the making of the folder and of the version
        targets = await told(watch)
    assert targets == {FLIGHTS: version}


async def test_a_replaced_file_is_a_change(model: Path) -> None:
    registry: Registry = FileRegistry(model)
    reference = Reference("model")
    watch = registry.watch([reference], INTERVAL)
    first = await told(watch)
    replacement = model.with_suffix(".new")
    replacement.write_bytes(b"another")
    replacement.replace(model)
    assert await told(watch) != first
