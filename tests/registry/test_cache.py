"""The cache keeps what came, whole and within its limit."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from driftline.errors import ConfigError
from driftline.registry import cache as module
from driftline.registry.cache import DEFAULT_LIMIT, Cache, digest_of, digests_of
from driftline.registry.mlflow.memory import MAX_ANSWERS, Memory


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def fill(cache: Cache, key: str, **files: str) -> Path:
    """Put files under a key, as a registry does."""
    with cache.filling(key) as folder:
        new = folder / "files"
        for name, text in files.items():
            path = new / "sub" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return cache.keep(key, new, digests_of(new))


def test_what_was_kept_is_found(cache: Cache) -> None:
    assert cache.find("a") is None
    tree = fill(cache, "a", model="one")
    assert cache.find("a") == tree
    assert (tree / "sub/model").read_text() == "one"
    assert Cache(cache.root).find("a") == tree
    assert list((cache.root / "filling").iterdir()) == []


def test_the_same_content_is_kept_once(cache: Cache) -> None:
    assert fill(cache, "a", model="one") == fill(cache, "b", model="one")
    assert fill(cache, "c", model="two") != fill(cache, "d", other="two")
    assert len(list((cache.root / "trees").iterdir())) == 3


@pytest.mark.parametrize("how", ["changed", "missing", "link"])
def test_what_is_no_longer_whole_is_not_found_and_comes_anew(cache: Cache, how: str) -> None:
    path = fill(cache, "a", model="one", data="two") / "sub/model"
    path.unlink()
    if how == "changed":
        path.write_text("0ne")
    if how == "link":
        path.with_name("aside").write_text("one")
        path.symlink_to("aside")
    assert cache.find("a") is None
    assert cache.find(fill(cache, "a", model="one", data="two").name) is None
    found = cache.find("a")
    assert found is not None
    assert (found / "sub/model").read_text() == "one"


def test_what_was_not_asked_for_the_longest_goes_first(cache: Cache) -> None:
    cache.limit = 250
    trees = {key: fill(cache, key, model=key * 100) for key in "ab"}
    for age, key in enumerate("ba"):
        os.utime(trees[key], (1000 + age, 1000 + age))
    assert cache.find("b") == trees["b"]  # which makes it the newer one
    fill(cache, "c", model="c" * 100)
    assert [key for key in "abc" if cache.find(key)] == ["b", "c"]


def test_what_is_larger_than_the_cache_is_kept_alone(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    cache.limit = 50
    for key in "ab":
        fill(cache, key, model=key * 100)
        assert cache.find(key) is not None
    assert cache.find("a") is None
    assert "one version has 100 bytes, of 50 at most" in caplog.text


def test_one_fills_and_the_other_finds(cache: Cache) -> None:
    """Threads stand for processes: flock does not care."""
    inside, found = threading.Event(), []

    def other() -> None:
        inside.wait(60)
        with cache.filling("a"):
            found.append(cache.find("a"))

    thread = threading.Thread(target=other)
    thread.start()
    with cache.filling("a") as folder:
        (folder / "files").mkdir()
        (folder / "files/model").write_text("one")
        inside.set()
        tree = cache.keep("a", folder / "files", digests_of(folder / "files"))
    thread.join(60)
    assert found == [tree]


def test_an_interrupted_filling_is_gone_on_with_for_a_week(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cache.filling("a") as folder:
        (folder / "part").write_text("half")
    fill(cache, "b", model="x")
    with cache.filling("a") as folder:
        assert (folder / "part").read_text() == "half"
    monkeypatch.setattr(module, "ABANDONED_SECONDS", -60)
    fill(cache, "c", model="x")
    assert not folder.exists()


def test_a_digest_knows_names_and_contents() -> None:
    digests = [{"a": "1", "b": "2"}, {"a": "2", "b": "1"}, {"a": "1"}, {"a": "12", "b": ""}]
    assert len({digest_of(one) for one in digests}) == len(digests)
    assert digest_of({"a": "1", "b": "2"}) == digest_of({"b": "2", "a": "1"})


def test_the_environment_says_where_and_how_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DRIFTLINE_CACHE", "DRIFTLINE_CACHE_BYTES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert (Cache.default().root, Cache.default().limit) == (Path("/somewhere/driftline"), DEFAULT_LIMIT)
    monkeypatch.setenv("DRIFTLINE_CACHE", "/else")
    monkeypatch.setenv("DRIFTLINE_CACHE_BYTES", "7")
    assert (Cache.default().root, Cache.default().limit) == (Path("/else"), 7)
    monkeypatch.setenv("DRIFTLINE_CACHE_BYTES", "7 GB")
    with pytest.raises(ConfigError, match="DRIFTLINE_CACHE_BYTES = '7 GB': expected a whole number"):
        Cache.default()


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_CACHE", "~nobody-of-this-name/driftline")
    with pytest.raises(
        ConfigError, match=r"DRIFTLINE_CACHE = '~.*': expected a folder; there is no such home"
    ):
        Cache.default()


def test_a_memory_outlives_its_process_and_forgets_the_oldest(tmp_path: Path) -> None:
    path = tmp_path / "registries/one.json"
    memory = Memory(path)
    assert memory.recall("?") is None
    memory.put("?", {"a": [1]})
    assert Memory(path).recall("?") == {"a": [1]}
    assert Memory(path).since == memory.since > 0
    memory.forget("?")
    assert Memory(path).recall("?") is None
    for number in range(MAX_ANSWERS + 1):
        memory._answers[str(number)] = number
    memory.put("new", 1)
    assert memory.recall("0") is None
    assert memory.recall("2") == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"answers": 1, "since": 2}', "{"])
def test_a_broken_memory_is_an_empty_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "one.json"
    path.write_text(text)
    assert Memory(path).recall("?") is None


def test_a_memory_that_cannot_be_written_still_remembers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    memory = Memory(tmp_path / "file/one.json")
    memory.put("?", {})
    assert memory.recall("?") == {}
    assert "can't be written" in caplog.text
