"""What is answered beside inference."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from support import scale

from driftline.config import Server
from driftline.registry.directory import DirectoryRegistry
from driftline.serving.app import App
from driftline.serving.host import Host


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    registry = DirectoryRegistry(tmp_path / "models")
    registry.register([scale(tmp_path / "model.onnx", 2.0)], "m")
    host = Host(registry, interval=3600)
    await host.start()
    yield host
    await host.close()


def client(host: Host, **settings: str) -> httpx.AsyncClient:
    """Who asks a server with these settings, without a connection."""
    transport = httpx.ASGITransport(App(host, Server(**settings)))  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://driftline")


@pytest.mark.parametrize("verb", ["load", "unload"])
async def test_nobody_loads_or_unloads_unless_the_settings_allow_it(host: Host, verb: str) -> None:
    async with client(host) as stranger:
        answer = await stranger.post(f"/v2/repository/models/m/{verb}", content=b"no JSON")
        assert answer.status_code == 403
        assert "--model-control (DRIFTLINE_MODEL_CONTROL) is none, not explicit" in answer.json()["error"]
        assert (await stranger.get("/v2/models/m/ready")).status_code == 200
        assert (await stranger.post("/v2/repository/index")).json()[0]["state"] == "READY"
    async with client(host, model_control="explicit") as operator:
        assert (await operator.post(f"/v2/repository/models/m/{verb}")).status_code == 200
        assert ("m" in {served.version.name for served in host.served()}) == (verb == "load")
