"""A host with models, and both lanes to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from lanes import MOST, House
from onnx_models import gather, identity, scale, slow

import driftline as dl
from driftline.config import Server
from driftline.registry.source import Registry
from driftline.serving.host import Host
from driftline.serving.http.app import App
from driftline.serving.http.fastlane import FastLane, fast_lane


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    root: Path = tmp_path_factory.mktemp("lanes")
    registry = Registry.open(root / "models")
    file = root / "model.onnx"
    registry.register([scale(file, 2)], "scale")
    registry.register([gather(file)], "gather")
    registry.register([identity(file, "BYTES", ("N", 1))], "text")
    registry.register([slow(file, layers=100)], "slow")
    settings = root / "driftline.toml"
    settings.write_text("[batching]\nmax_batch_rows = 0\n")
    registry.register([scale(file, 2), settings], "whole")
    transform = dl.Transform([dl.Pass("a"), dl.OneHot("c", ("x", "[y]"))]).fit({"a": [0.0], "c": ["x"]})
    transform.save(root / "transform.json")
    registry.register([scale(file, 2), root / "transform.json"], "raw")
    loop = asyncio.new_event_loop()

    async def start() -> House:
        host = Host(registry, [])
        await host.start()
        app = App(host, Server(max_body_bytes=MOST))
        lane = fast_lane(app)
        assert issubclass(lane, FastLane)
        return House(loop, host, app, lane)

    house = loop.run_until_complete(start())
    yield house
    loop.run_until_complete(house.host.close())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
