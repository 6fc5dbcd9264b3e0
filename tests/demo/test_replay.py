from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter

import numpy as np
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from yarl import URL

from driftline.demo.replay import Replay, request

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def numbered(rows: int) -> dict[str, np.ndarray]:
    """Flights that say which they are."""
    return {"flight": np.arange(rows)}


def answer(version: int, probability: float = 0.25) -> web.Response:
    output = {"name": "probabilities", "shape": [1, 2], "data": [1 - probability, probability]}
    return web.json_response({"model_name": "flights", "model_version": str(version), "outputs": [output]})


@asynccontextmanager
async def answering(handler: Handler):
    app = web.Application()
    app.router.add_post("/infer", handler)
    async with TestServer(app) as server:
        yield server.make_url("/infer")


def test_a_request_asks_for_the_probabilities_of_one_flight_and_a_gap_is_null() -> None:
    columns = {
        "dest": np.array(["BOS", '\u017d\u00fcrich "1"'], object),
        "month": np.array([4, 12]),
        "temp": np.array([-0.1, np.nan]),
    }
    for row, data in enumerate((["BOS", 4, -0.1], ['\u017d\u00fcrich "1"', 12, None])):
        tensors = zip(columns, ("BYTES", "FP64", "FP64"), data, strict=True)
        assert orjson.loads(request(columns, row)) == {
            "inputs": [
                {"name": name, "shape": [1], "datatype": datatype, "data": [value]}
                for name, datatype, value in tensors
            ],
            "outputs": [{"name": "probabilities"}],
        }


async def test_each_flight_is_sent_once_in_order_over_few_connections() -> None:
    came, connections, at_once, most = [], set(), 0, 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        connections.add(request.transport)
        [row] = orjson.loads(await request.read())["inputs"][0]["data"]
        came.append(int(row))
        await asyncio.sleep(0.002)
        at_once -= 1
        return answer(7, row / 1000)

    async with answering(handler) as url:
        replay = Replay(url, numbered(500), throttle_at=500)
        await replay.run()
    assert sorted(came) == list(range(500))
    assert max(abs(place - row) for place, row in enumerate(came)) < most <= 16
    assert len(connections) == most
    answers = replay.answers
    assert len(answers) == replay.done == replay.rows == 500
    assert not replay.failures
    assert np.allclose(answers["probability"], answers["row"] / 1000)
    assert set(answers["version"]) == {7}
    assert not answers["throttled"].any()
    assert (np.diff(answers["finished"]) >= 0).all()
    assert (answers["latency"] >= 0.002).all()


async def test_what_fails_is_counted_by_its_reason_and_the_rest_goes_on() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        [row] = orjson.loads(await request.read())["inputs"][0]["data"]
        match int(row) % 10:
            case 1:
                return web.json_response({"error": "too busy"}, status=503)
            case 2:
                return web.Response(body=b"<html>")
            case 3:
                assert request.transport is not None
                request.transport.close()
        return answer(1)

    async with answering(handler) as url:
        replay = Replay(url, numbered(100), throttle_at=100)
        await replay.run()
    assert replay.failures['503 {"error": "too busy"}'] == 10
    assert replay.failures["200 <html>"] == 10
    assert replay.failures["ServerDisconnectedError Server disconnected"] == 10
    assert len(replay.answers) == 70
    assert replay.done == 100


async def test_without_a_server_every_flight_fails() -> None:
    replay = Replay(URL(f"http://127.0.0.1:{unused_port()}/infer"), numbered(20), throttle_at=20)
    await replay.run()
    assert replay.failures.total() == replay.done == 20
    assert not len(replay.answers)


async def test_a_short_replay_goes_easy_until_another_version_answers() -> None:
    version = 1

    async def handler(request: web.Request) -> web.Response:
        return answer(version)

    async with answering(handler) as url:
        replay = Replay(url, numbered(300), throttle_at=100)
        running = asyncio.create_task(replay.run())
        async with asyncio.timeout(30):
            await replay.throttling.wait()
            begin, before = perf_counter(), replay.done
            await asyncio.sleep(1)
            # 5 percent of the 200 left go in a second, and each connection has one on its way.
            most = 0.05 * 200 * (perf_counter() - begin) + 16
            assert replay.done - before <= most
            version = 2
            await running
    answers = replay.answers
    assert len(answers) == 300
    assert (answers["version"] == 2).sum() >= 200 - most - 16
    assert not answers["throttled"][answers["row"] < 100].any()
    assert answers["throttled"][(answers["version"] == 1) & (answers["row"] >= 100)].all()


async def test_a_replay_holds_still_until_told_to_go_on() -> None:
    came = []
    arrived = {25: asyncio.Event(), 40: asyncio.Event()}

    async def handler(request: web.Request) -> web.Response:
        [row] = orjson.loads(await request.read())["inputs"][0]["data"]
        came.append(int(row))
        if len(came) in arrived:
            arrived[len(came)].set()
        return answer(1)

    async with answering(handler) as url:
        replay = Replay(url, numbered(60), throttle_at=60)
        replay.go_until(25)
        running = asyncio.create_task(replay.run())
        async with asyncio.timeout(30):
            for until, further in ((25, 40), (40, 1000)):
                await arrived[until].wait()
                await asyncio.sleep(0.1)
                assert sorted(came) == list(range(until))
                assert not running.done()
                replay.go_until(further)
            await running
    assert sorted(came) == list(range(60))


async def test_a_replay_can_be_cancelled() -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        raise AssertionError

    async with answering(handler) as url:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Replay(url, numbered(100), throttle_at=100).run(), 0.2)
