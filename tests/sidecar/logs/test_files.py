"""Logs in files: read on as they grow, over renames and restarts, each row once."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structured import to_structured

from driftline.config import Monitoring
from driftline.monitor.reference.profile import Profile
from driftline.protocols.payloads import Payload, to_event, to_table
from driftline.sidecar.agent import Agent
from driftline.sidecar.logs import files as module
from driftline.sidecar.logs.files import Files

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((500, 2))
PROFILE = Profile.fit({"x": X, "y": X.sum(axis=1)})


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)


@asynccontextmanager
async def reading(pattern: str | Path, state: Any = None) -> AsyncIterator[tuple[Files, Agent]]:
    agent = Agent(PROFILE, "m", Monitoring())
    await agent.load()
    files = Files(str(pattern), 10**6, 60.0)
    await files.start(agent, state)
    try:
        yield files, agent
    finally:
        await files.close()
        agent.close(finish=False)


async def rows(agent: Agent, count: int) -> None:
    """Return when so many rows, and no more, are counted."""
    async with asyncio.timeout(60):
        while agent.ready().rows < count:  # noqa: ASYNC110 - a thread counts
            await asyncio.sleep(0.005)
    assert agent.ready().rows == count


def table(count: int) -> pa.Table:
    values = RANDOM.standard_normal((count, 2))
    return pa.table(
        {"x_0": values[:, 0], "x_1": values[:, 1], "y": values.sum(axis=1), "other": ["a"] * count}
    )


def lines(count: int) -> str:
    return "".join(json.dumps(row) + "\n" for row in table(count).to_pylist())


def csv(count: int) -> str:
    return "x_0,x_1,y,other\n" + "".join(f"{n},1.5,{n}.5,a\n" for n in range(count))


def exchange(name: str) -> list[Payload]:
    asked = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1.0, 2.0]}]}
    answer = {"outputs": [{"name": "y", "datatype": "FP64", "shape": [1], "data": [3.0]}]}
    return [
        Payload(name, kind, 1.0, "m", "1", "application/json", None, 200, json.dumps(body).encode())
        for kind, body in (("request", asked), ("response", answer))
    ]


async def test_plain_columns_of_every_kind(tmp_path: Path) -> None:
    pq.write_table(table(40_000), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text(csv(30))
    (tmp_path / "c.jsonl").write_text(lines(20))
    (tmp_path / ".hidden.csv").write_text(csv(5))
    (tmp_path / "notes.txt").write_text("none of this")
    async with reading(tmp_path) as (files, agent):
        await rows(agent, 40_050)
        assert agent.exchanges["failed"] == files.counts["malformed"] == 0


async def test_payloads_in_parquet_and_as_events(tmp_path: Path) -> None:
    payloads = [half for number in range(100) for half in exchange(f"p{number}")]
    pq.write_table(to_table(payloads), tmp_path / "a.parquet")
    events = [to_structured(to_event(half, "s", "n"))[1] for half in exchange("e")]
    (tmp_path / "b.jsonl").write_bytes(b"\n".join(events) + b"\n")
    async with reading(tmp_path / "*") as (files, agent):
        await rows(agent, 101)
        assert files.halves.counts["joined"] == 202


async def test_a_file_is_read_on_as_it_grows_and_over_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(lines(3))
    async with reading(tmp_path) as (_, agent):
        await rows(agent, 3)
        text = lines(2)
        with path.open("a") as file:
            file.write(text[:-10])
            file.flush()
            await rows(agent, 4)  # the last line is not whole
            file.write(text[-10:])
        await rows(agent, 5)
        with path.open("a") as file:
            file.write(lines(1))
        path.rename(tmp_path / "log.jsonl.1")
        path.write_text(lines(7))
        await rows(agent, 13)


async def test_that_there_is_nothing_to_read_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A pattern may be wrong, or early; so may the names of files."""

    async def told(*messages: str) -> None:
        async with asyncio.timeout(60):
            while len(caplog.records) < len(messages):  # noqa: ASYNC110 - a thread tells
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)  # some looks more
        found = [record.getMessage().partition(";")[0] for record in caplog.records]
        assert found == [f"{tmp_path / '*'}: {message}" for message in messages]

    async with reading(tmp_path / "*") as (_, agent):
        await told("no files to read")
        (tmp_path / "a.csv").write_text(csv(10))
        await rows(agent, 10)
        (tmp_path / "a.csv").rename(tmp_path / "a.csv.bak")
        others = "1 with other endings than .parquet, .csv, .jsonl, .ndjson"
        await told("no files to read", f"no files to read, {others}")


async def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text(csv(30))
    first, second = exchange("1")
    pq.write_table(to_table([first]), tmp_path / "a.parquet")
    async with reading(tmp_path) as (files, agent):
        await rows(agent, 30)
        while files.halves.known_ids < 1:
            pass
        with agent.state_lock:
            state = json.loads(json.dumps(files.state()))
    with (tmp_path / "b.csv").open("a") as file:
        file.write("1,2,3,a\n")
    pq.write_table(to_table([second]), tmp_path / "c.parquet")
    async with reading(tmp_path, state) as (_, agent):
        await rows(agent, 2)  # the new line, and the answer to what was asked before


async def test_what_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(lines(3))
    async with reading(path) as (_, agent):
        await rows(agent, 3)
        path.write_text(lines(2))  # in the same file
        await rows(agent, 5)


async def test_what_can_not_be_read_is_counted_and_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no more")
    (tmp_path / "b.jsonl").write_text("{\n[1]\n" + lines(2))
    (tmp_path / "c.csv").write_text("id,type,body\n1,request,x\n")
    os.mkfifo(tmp_path / "a.jsonl")  # whoever reads it waits for ever
    async with reading(tmp_path) as (files, agent):
        await rows(agent, 2)
        while files.counts["malformed"] < 2:
            pass
        assert agent.exchanges["failed"] == 3


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", "lines"), ("a.jsonl.1", "lines"), ("a.csv.20261125.2", "csv"), ("v1.parquet", "parquet"),
        ("a.jsonl.2.gz", None), ("a.csv.bak", None), ("a.csv.1x", None), ("a.1", None), ("csv", None),
    ],
)  # fmt: skip
def test_only_numbers_may_follow_an_ending(name: str, kind: str | None) -> None:
    assert module._kind(Path(name)) == kind


def test_a_line_of_csv_may_go_on_within_quotes() -> None:
    assert module._end_of_lines(b'a,"b\nc"\nd', csv=True) == 8
    assert module._end_of_lines(b'a,"b\nc', csv=True) == 0
    assert module._end_of_lines(b'a,"b\nc', csv=False) == 5
    assert module._end_of_lines(b"", csv=True) == module._end_of_lines(b"a", csv=True) == 0


@given(st.lists(st.sampled_from([b'"', b"\n", b"a", b","]), max_size=30).map(b"".join))
def test_where_a_line_of_csv_ends_is_where_quotes_are_even(chunk: bytes) -> None:
    ends = [
        at
        for at in range(1, len(chunk) + 1)
        if chunk[at - 1 : at] == b"\n" and chunk[:at].count(b'"') % 2 == 0
    ]
    assert module._end_of_lines(chunk, csv=True) == max(ends, default=0)


async def test_a_line_that_is_too_long_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 256)
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 1024)
    grows = tmp_path / "a.jsonl"
    grows.write_text(lines(2) + "x" * 3000)
    (tmp_path / "b.csv").write_text(csv(1) + '7,1.5,"7.5,a\n' + "7,1.5,7.5,a\n" * 200)  # a quote too much
    async with reading(tmp_path) as (files, agent):
        await rows(agent, 203)
        with grows.open("a") as file:
            file.write("x" * 3000 + "\n" + lines(3))
        await rows(agent, 206)
        assert files.counts["malformed"] == 2


async def test_places_outlive_a_volume_that_is_away(tmp_path: Path) -> None:
    folder, away = tmp_path / "logs", tmp_path / "away"
    folder.mkdir()
    (folder / "a.jsonl").write_text(lines(3))
    pq.write_table(
        pa.table({"x_0": [1.0] * 20_000, "x_1": [1.0] * 20_000, "y": [2.0] * 20_000}), folder / "b.parquet"
    )
    assert (folder / "b.parquet").stat().st_size < 20_000  # fewer bytes than rows
    async with reading(folder / "*") as (files, agent):
        await rows(agent, 20_003)
        folder.rename(away)
        while files._seen:  # noqa: ASYNC110 - a thread looks
            await asyncio.sleep(0.005)
        away.rename(folder)
        (folder / "c.jsonl").write_text(lines(2))
        await rows(agent, 20_005)


def test_inodes_that_are_gone_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files("nothing", 10**6, 60.0)
    files._positions = {inode: module.Position(inode, 0, "") for inode in range(10)}
    files._forget({0, 1}, 0.0)
    files._forget({0, 2}, 3599.0)
    assert len(files._positions) == 10
    files._forget({0}, 3600.0)
    assert list(files._positions) == [0, 1, 2]  # 1 has been gone for a second only
    files._forget(set(), 10_000.0)
    files._forget({0}, 10_001.0)  # the hour begins anew
    assert list(files._positions) == [0, 1, 2]
    monkeypatch.setattr(module, "MAX_UNSEEN", 1)
    files._forget({0}, 10_002.0)
    assert len(files._positions) == 2


async def test_the_thread_outlives_looks_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text(lines(3))
    paths = Files._paths
    left = [PermissionError(13, "Permission denied"), RuntimeError("whatever")]

    def stale(self: Files) -> list[Path]:
        if left:
            raise left.pop()
        return paths(self)

    monkeypatch.setattr(Files, "_paths", stale)
    async with reading(tmp_path) as (files, agent):
        await rows(agent, 3)
        assert files.counts["failed"] == 2


async def test_foreign_payloads_with_nulls_are_passed_over(tmp_path: Path) -> None:
    names = ("id", "type", "time", "content_type", "body")
    halves = to_table([half for number in range(7) for half in exchange(f"p{number}")])
    found = halves.to_pylist()
    for number, name in enumerate(names):
        found[2 * number][name] = None
    pq.write_table(pa.Table.from_pylist(found, halves.schema), tmp_path / "a.parquet")
    async with reading(tmp_path) as (_, agent):
        await rows(agent, 2)
        assert agent.exchanges["failed"] == len(names)


async def test_a_part_that_nobody_expected_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(table(3), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text(csv(2))

    def fails(self: Files, agent: Agent, table: pa.Table) -> None:
        raise RecursionError

    monkeypatch.setattr(Files, "_count_table", fails)
    async with reading(tmp_path) as (files, agent):
        await rows(agent, 2)
        assert (files.counts["malformed"], agent.exchanges["failed"]) == (1, 1)
        assert next(iter(files._positions.values())).done == 3


async def test_a_file_that_can_not_be_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_text(csv(3))
    part = module._next_lines
    left = [OSError(5, "Input/output error"), OSError(116, "Stale file handle")]

    def fails(file: Any, csv: bool) -> bytes | None:
        if left:
            raise left.pop()
        return part(file, csv)

    monkeypatch.setattr(module, "_next_lines", fails)
    async with reading(tmp_path) as (files, agent):
        await rows(agent, 3)
        assert (files.counts["failed"], files.counts["malformed"]) == (2, 0)


def test_a_header_is_known_only_with_the_rows_behind_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(csv(3))
    files = Files(str(tmp_path), 10**6, 60.0)
    known: list[tuple[int, str]] = []

    class Watching:
        state_lock = RLock()

        def observe(self, exchange: Any) -> None:
            (place,) = files.state()["places"]
            known.append((place["done"], place["header"]))

    files._read(tmp_path / "a.csv", Watching())  # type: ignore[arg-type]
    assert known == [(0, "")]
    assert files.state()["places"][0]["header"] == "x_0,x_1,y,other"


async def test_a_file_that_was_cut_short_and_has_grown_again_is_another(tmp_path: Path) -> None:
    """As `copytruncate` leaves it: the same inode, and a beginning that all its files have."""
    path = tmp_path / "log.csv"
    header = "x_0,x_1,y,other\n" + "1,1.5,2.5,a\n" * 30  # more than what a file's beginning is known by
    path.write_text(header + "2,1.5,3.5,a\n" * 20)
    async with reading(tmp_path) as (files, agent):
        await rows(agent, 50)
        with path.open("r+") as file:  # at once, so that no look sees it empty
            file.write(header + "3,1.5,4.5,a\n" * 60)
        await rows(agent, 140)
        with path.open("a") as file:
            file.write("4,1.5,5.5,a\n")
        await rows(agent, 141)
        assert (files.counts["malformed"], agent.exchanges["failed"]) == (0, 0)
