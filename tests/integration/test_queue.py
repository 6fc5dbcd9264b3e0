"""The queue of a whole server: full, left by its clients, late, and shared with bad neighbours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from onnx_models import gather, slow
from prometheus_client.parser import text_string_to_metric_families
from server_process import Process, infer_request, serving

from driftline.registry.source import Registry

ROWS = np.ones((64, 1024), np.float32).tolist()
LONG = json.dumps(infer_request({"x": ("FP32", ROWS)}))
"""One batch."""
LONGER = json.dumps(infer_request({"x": ("FP32", [[1] * 1024] * 448)}), separators=(",", ":"))
"""Seven batches: what comes while it is computed waits for so long that no busy machine is in doubt of it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    root: Path = tmp_path_factory.mktemp("queue")
    registry = Registry.open(root / "models")
    (root / "driftline.toml").write_text(
        "[batching]\nmax_batch_rows = 64\nmax_queue_rows = 256\n[engine]\nthreads = 1\n"
    )
    registry.register([slow(root / "model.onnx", layers=400), root / "driftline.toml"], "slow")
    (root / "driftline.toml").write_text(
        "[batching]\nmax_batch_rows = 64\nmax_queue_rows = 1024\n[engine]\nthreads = 1\n"
    )
    registry.register([slow(root / "model.onnx", layers=800), root / "driftline.toml"], "patient")
    registry.register([gather(root / "model.onnx")], "gather")
    with serving("--registry", root / "models") as process:
        yield process


@asynccontextmanager
async def clients() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def post(
    session: aiohttp.ClientSession, server: Process, model: str, body: str
) -> tuple[int, Any, Any]:
    async with session.post(f"{server.url}/v2/models/{model}/infer", data=body) as response:
        return response.status, await response.json(), response.headers


async def samples(session: aiohttp.ClientSession, server: Process, model: str, name: str) -> dict[str, float]:
    """A metric of a model, by reason if it has any."""
    async with session.get(server.url + "/metrics") as answer:
        text = await answer.text()
    return {
        sample.labels.get("reason", ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.removesuffix("_total") == name and sample.labels["model"] == model
    }


async def pending(
    session: aiohttp.ClientSession, server: Process, count: int, first: asyncio.Task[Any]
) -> None:
    """Return when so many requests are at the model `patient`, while the first of them is."""
    while (await samples(session, server, "patient", "nv_inference_pending_request_count"))[""] != count:
        assert not first.done(), f"the machine was too fast: there were never {count} requests at once"


async def test_a_full_queue_says_so_and_when_to_come_back(server: Process) -> None:
    async with clients() as session:
        answers = await asyncio.gather(*(post(session, server, "slow", LONG) for _ in range(12)))
        assert await samples(session, server, "slow", "driftline_queue_rows") == {"": 0}
    assert {status for status, _, _ in answers} == {200, 503}
    _, body, headers = next(answer for answer in answers if answer[0] == 503)
    assert "the queue is full" in body["error"]
    assert int(headers["Retry-After"]) >= 1


async def test_clients_that_go_leave_the_queue(server: Process) -> None:
    one = json.dumps(infer_request({"x": ("FP32", ROWS[:1])}))
    async with clients() as session:
        failed = "nv_inference_request_failure"
        before = (await samples(session, server, "patient", failed))["CANCELED"]
        first = asyncio.create_task(post(session, server, "patient", LONGER))
        await pending(session, server, 1, first)
        others = [asyncio.create_task(post(session, server, "patient", one)) for _ in range(3)]
        await pending(session, server, 4, first)
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await pending(session, server, 1, first)
        assert not first.done()
        assert (await first)[0] == 200
        assert (await samples(session, server, "patient", failed))["CANCELED"] == before + 3
        now = await samples(session, server, "patient", "nv_inference_pending_request_count")
        assert now == {"": 0}


async def test_a_deadline_that_passes_in_the_queue_is_answered_before_its_turn(server: Process) -> None:
    late = json.dumps(infer_request({"x": ("FP32", ROWS)}, parameters={"timeout": 1000}))
    async with clients() as session:
        first = asyncio.create_task(post(session, server, "patient", LONGER))
        await pending(session, server, 1, first)
        status, body, _ = await post(session, server, "patient", late)
        assert status == 504
        assert body == {"error": "the request's timeout of 1000 microseconds has passed"}
        assert not first.done()
        assert (await first)[0] == 200


async def test_a_bad_request_never_fails_its_neighbours(server: Process) -> None:
    indices = [99 if number % 7 == 3 else number % 10 for number in range(200)]
    async with clients() as session:
        answers = await asyncio.gather(
            *(
                post(session, server, "gather", json.dumps(infer_request({"i": ("INT64", [index])})))
                for index in indices
            )
        )
    for index, (status, body, _) in zip(indices, answers, strict=True):
        if index == 99:
            assert status == 400
            assert "out of data bounds" in body["error"]
        else:
            assert status == 200
            assert body["outputs"][0]["data"] == [index]


async def test_a_request_above_the_maximum_is_split_and_whole_again(server: Process) -> None:
    rows = [[float(row)] * 1024 for row in range(150)]
    async with clients() as session:
        status, body, _ = await post(
            session, server, "slow", json.dumps(infer_request({"x": ("FP32", rows)}))
        )
    assert status == 200
    assert body["outputs"][0]["shape"] == [150, 1024]
    assert body["outputs"][0]["data"][::1024] == list(range(150))
    too_many = np.zeros((257, 1024)).tolist()
    answer = await asyncio.to_thread(server.infer, "slow", {"x": ("FP32", too_many)})
    assert answer.status_code == 413
    assert "expected at most 256 rows" in answer.json()["error"]
