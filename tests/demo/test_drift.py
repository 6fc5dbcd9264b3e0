from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from driftline.demo.drift import Drift, Window
from driftline.demo.replay import Replay
from driftline.errors import DriftlineError

ROWS = 20


class Monitors:
    """A server of two versions, with a monitor of each that counts rows in windows of ROWS."""

    def __init__(self, swap_after: int = 1 << 60) -> None:
        self.swap_after = swap_after
        self.answered = {1: 0, 2: 0}
        self.reports: list[tuple[int, int]] = []
        self.acknowledged = 0
        self.refusals = [503]

    @property
    def version(self) -> int:
        return 1 if self.answered[1] < self.swap_after else 2

    async def infer(self, request: web.Request) -> web.Response:
        version = self.version
        self.answered[version] += 1
        output = {"name": "probabilities", "shape": [1, 2], "data": [0.75, 0.25]}
        return web.json_response({"model_version": str(version), "outputs": [output]})

    async def drift(self, request: web.Request) -> web.Response:
        version, windows = int(request.match_info["version"]), int(request.query["window"])
        if self.refusals:
            return web.json_response({"error": "being loaded"}, status=self.refusals.pop())
        if version < self.version:
            return web.json_response({"error": "gone"}, status=404)
        rows = self.answered[version] % ROWS + (windows - 1) * ROWS
        self.reports.append((version, rows))
        return web.json_response({"rows": rows, "columns": [], "changes": [], "alarms": []})

    async def acknowledge(self, request: web.Request) -> web.Response:
        self.acknowledged += 1
        return web.json_response({"acknowledged": []})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[TestServer]:
        app = web.Application()
        app.router.add_post("/m/infer", self.infer)
        app.router.add_get("/m/versions/{version}/drift", self.drift)
        app.router.add_post("/m/versions/{version}/drift/acknowledge", self.acknowledge)
        async with TestServer(app) as server:
            yield server


async def follow(monitors: Monitors, flights: int, throttle_at: int) -> tuple[Replay, list[Window]]:
    told: list[Window] = []
    async with monitors.serving() as server:
        url = server.make_url("/m")
        replay = Replay(url / "infer", {"flight": np.arange(flights)}, throttle_at)
        drift = Drift(url, replay, 1, ROWS, told.append)
        await drift.ready()
        async with asyncio.timeout(30):
            await asyncio.gather(replay.run(), drift.run())
    assert told == drift.windows
    return replay, told


async def test_each_window_is_reported_when_it_is_whole_and_nothing_of_the_next_has_come() -> None:
    monitors = Monitors()
    replay, windows = await follow(monitors, 3 * ROWS + 7, throttle_at=1000)
    assert [window.report["rows"] for window in windows] == [ROWS, ROWS, ROWS, 7]
    assert monitors.acknowledged == 3
    answered = [sorted(window.answers["row"]) for window in windows]
    assert answered == [list(range(at, min(at + ROWS, replay.rows))) for at in range(0, replay.rows, ROWS)]


async def test_a_replay_that_ends_with_a_window_has_no_other() -> None:
    _, windows = await follow(Monitors(), 2 * ROWS, throttle_at=1000)
    assert [window.report["rows"] for window in windows] == [ROWS, ROWS]


async def test_a_version_that_goes_just_as_its_window_ends_does_not_end_the_replay() -> None:
    _, windows = await follow(Monitors(swap_after=2 * ROWS), 4 * ROWS, throttle_at=1000)
    assert [window.version for window in windows] == [1, 2, 2]


async def test_what_a_version_saw_last_is_reported_before_it_goes() -> None:
    monitors = Monitors(swap_after=30)
    replay, windows = await follow(monitors, 100, throttle_at=25)
    assert not replay.failures
    versions = [window.version for window in windows]
    assert versions == sorted(versions)
    first = [window.report["rows"] for window in windows if window.version == 1]
    assert first[0] == ROWS
    # The last look at version 1 comes before its last answer.
    assert len(first) <= 2
    assert sum(first) <= 30
    assert [window.report["rows"] for window in windows if window.version == 2] == [ROWS, ROWS, ROWS, 10]
    for window in windows:
        assert set(window.answers["version"]) == {window.version}
        assert len(window.answers) == window.report["rows"]


async def test_a_server_without_reports_is_told_of() -> None:
    monitors = Monitors()
    monitors.refusals = [500]
    async with monitors.serving() as server:
        replay = Replay(server.make_url("/m/infer"), {"flight": np.zeros(1)}, 1)
        drift = Drift(server.make_url("/m"), replay, 1, ROWS, lambda window: None)
        with pytest.raises(DriftlineError, match="no report of drift: being loaded"):
            await drift.ready()


def test_columns_are_ranked_by_what_chance_does_not_explain() -> None:
    psis = {"a": (0.5, 0.45), "b": (0.2, 0.01), "c": (3.0, 0.01)}
    columns = [
        {"name": name, "statistics": {"psi": {"value": value, "null": null}}}
        for name, (value, null) in psis.items()
    ]
    columns.append({"name": "never", "statistics": {}})
    window = Window(1, np.empty(0), {"columns": columns, "changes": [], "alarms": []})
    assert [column["name"] for column in window.ranked()] == ["c", "b", "a"]
    assert window.psi("b") == {"value": 0.2, "null": 0.01}
    assert window.psi("never") is None
    assert window.psi("nobody") is None
