"""The agent without a way in: what it counts, and what it knows after a restart."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from prometheus_client.metrics_core import Metric
from server_process import receiver
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from driftline.config import Monitoring
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reporting.webhook import Webhook
from driftline.sidecar.agent import Agent, Checkpoints
from driftline.sidecar.exchange import Body, Exchange
from driftline.sidecar.metrics import exposition
from driftline.sidecar.pages import Pages

PROFILE = Profile.fit({"x": np.random.default_rng(0).standard_normal((500, 3)).astype(np.float32)})
SETTINGS = Monitoring(look_rows=100)


class Counting:
    """A source that knows how far it is."""

    name = "counting"
    endpoints: Mapping[str, ASGIApp] = {}

    def __init__(self) -> None:
        self.offset = 7

    async def start(self, agent: Agent, state: Any) -> None: ...

    async def close(self) -> None: ...

    def state(self) -> int:
        return self.offset

    def metrics(self) -> Iterator[Metric]:
        yield from ()


def asked(path: str, *rows: list[float]) -> Exchange:
    return Exchange(path, Body(orjson.dumps({"instances": rows})))


async def loaded(profile: Profile = PROFILE, only: bool = False) -> Agent:
    agent = Agent(profile, "m", SETTINGS, only=only)
    await agent.load()
    return agent


async def test_what_can_not_be_observed_is_counted_and_raises_nothing() -> None:
    agent = await loaded(only=True)
    agent.observe(asked("/v1/models/m:predict", [1, 2, 3]))
    agent.observe(asked("", [1, 2, 3], [4, 5, 6]))
    agent.observe(asked("/v2/models/m%20/infer", [1, 2, 3]))
    agent.observe(asked("/v1/models/m:predict", [1, 2]))
    agent.observe(Exchange("/invocations", Body(b"\xff")))
    agent.observe_columns({"x_0": np.array(1.0), "x_1": np.array(1.0), "x_2": np.array(1.0)})  # no rows
    assert agent.exchanges == {"observed": 2, "failed": 3, "other model": 1}
    assert agent.ready().rows == 3
    text = exposition(agent, [Counting()], "0")[0].decode()
    assert 'driftline_exchanges_total{model="m",outcome="failed"} 3.0' in text
    assert 'driftline_rows_observed_total{model="m",version=""} 3.0' in text
    with agent.capturing(2) as capture:
        agent.observe(asked("", [7, 8, 9], [7, 8, 9], [7, 8, 9]))
    assert capture.rows == 2
    with agent.capturing(2) as capture:
        agent.observe_columns({"x_0": np.ones(1), "x_1": np.ones(1), "x_2": np.ones(1)})
        capture.add = None  # type: ignore[method-assign, assignment]  # what fails there
        agent.observe_columns({"x_0": np.ones(1), "x_1": np.ones(1), "x_2": np.ones(1)})
    assert agent.exchanges == {"observed": 5, "failed": 3, "other model": 1}
    agent.close(finish=False)


async def test_checkpoints_keep_what_the_agent_and_its_sources_know(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, source = tmp_path / "checkpoint", Counting()
    first = await loaded()
    checkpoints = Checkpoints(path, 3600, first, [source])
    assert checkpoints.load() == {}
    checkpoints.start()
    first.observe(asked("", *[[1.0, 2.0, 3.0]] * 250))
    checkpoints.close()
    second = await loaded()
    assert Checkpoints(path, 3600, second, [source]).load() == {"counting": 7}
    assert second.ready().rows == 250
    other = await loaded(Profile.fit({"x": np.eye(300, 3, dtype=np.float32)}))
    with caplog.at_level(logging.WARNING):
        assert Checkpoints(path, 3600, other, [source]).load() == {}
    assert "it was counted against another profile; it is ignored" in caplog.text
    assert other.ready().rows == 0
    for agent in (first, second, other):
        agent.close(finish=True)


async def test_the_bare_address_leads_to_the_report_and_takes_posts() -> None:
    agent, source = await loaded(), Counting()
    source.endpoints = {"/": PlainTextResponse("posted")}
    transport = httpx.ASGITransport(Pages(agent, [source]))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://agent", follow_redirects=True
    ) as client:
        page = await client.get("/", headers={"accept": "text/html"})
        assert (page.status_code, page.url.path) == (200, "/drift")
        assert "<title>m: drift</title>" in page.text
        assert (await client.post("/")).text == "posted"
    agent.close(finish=False)


async def test_alarms_are_posted_and_windows_kept(tmp_path: Path) -> None:
    with receiver() as (url, posts):
        settings = Monitoring(look_rows=100, history=str(tmp_path / "history"))
        agent = Agent(PROFILE, "m", settings, Webhook(url))
        await agent.load()
        moved = np.random.default_rng(1).standard_normal((1000, 3)) + np.array([0, 3, 0])
        agent.observe(asked("", *moved.tolist()))
        agent.close(finish=True)
    posted = {event["data"]["column"] for _, event in posts}
    assert "x_1" in posted
    assert posted == agent.alarms.keys()
    history = pq.read_table(tmp_path / "history").to_pylist()
    assert {(row["model"], row["column"]) for row in history} >= {("m", f"x_{index}") for index in range(3)}
