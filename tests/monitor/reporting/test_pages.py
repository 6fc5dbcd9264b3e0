"""The drift page over HTTP: its links, and the JSON beside it."""

from __future__ import annotations

import re
from typing import Any
from unittest.mock import Mock

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from driftline.answers import HANDLERS
from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reporting import pages

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def client() -> httpx.AsyncClient:
    """Of a monitor that has three windows, of which it keeps two beside the current one."""
    data = {"x": np.random.default_rng(0).standard_normal(200)}
    monitor = Monitor(Profile.fit(data), window_rows=200, keep_windows=2)
    for _ in range(3):
        monitor.observe(data)
    return client_of(monitor)


@pytest.fixture
def young() -> httpx.AsyncClient:
    """Of a monitor of sixty columns that is in its first window."""
    values = np.random.default_rng(0).standard_normal(150)
    data = {f"x{number}": values for number in range(60)}
    monitor = Monitor(Profile.fit(data), window_rows=200, keep_windows=24)
    monitor.observe(data)
    return client_of(monitor)


def client_of(monitor: Monitor) -> httpx.AsyncClient:
    watched: Any = Mock(ready=lambda: monitor)

    async def drift(request: Request) -> Response:
        return await pages.report(request, watched, "m", "1")

    app = Starlette(routes=[Route("/drift", drift)], exception_handlers=HANDLERS)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")


async def links(client: httpx.AsyncClient, query: str) -> list[tuple[str, str]]:
    page = (await client.get(f"/drift{query}", headers=BROWSER)).text.replace("&amp;", "&")
    return re.findall('<a href="(.*?)">(.*?)</a>', page)


async def test_a_page_leads_to_those_of_other_windows_and_to_json(client: httpx.AsyncClient) -> None:
    assert await links(client, "") == [
        ("?window=2", "the last 2 windows"),
        ("?window=1&format=json", "JSON"),
    ]
    assert await links(client, "?window=2") == [
        ("?window=1", "the current window"),
        ("?window=3", "the last 3 windows"),
        ("?window=2&format=json", "JSON"),
    ]
    last = await links(client, "?window=3")
    assert [name for _, name in last] == ["the current window", "the last 2 windows", "JSON"]


async def test_a_page_of_more_windows_than_there_are_leads_back(young: httpx.AsyncClient) -> None:
    assert [name for _, name in await links(young, "?window=20")] == ["the current window", "JSON"]


async def test_a_browser_may_ask_for_json(client: httpx.AsyncClient) -> None:
    answer = await client.get("/drift?window=3&format=json", headers=BROWSER)
    assert (answer.headers["content-type"], answer.json()["model"]) == ("application/json", "m")


async def test_a_number_out_of_range_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.get("/drift?window=99")
    expected = "parameter 'window': expected a number from 1 to 3, got '99'"
    assert (answer.status_code, answer.json()) == (400, {"error": expected})
    answer = await client.get("/drift?window=1.9")
    expected = "parameter 'window': expected a whole number, got '1.9'"
    assert (answer.status_code, answer.json()) == (400, {"error": expected})


async def test_a_page_that_leaves_out_columns_names_the_json(young: httpx.AsyncClient) -> None:
    page = (await young.get("/drift", headers=BROWSER)).text
    assert "20 columns of less drift are not shown; the JSON (?format=json) has them all." in page
