"""What is answered beside inference."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from jsonschema import Draft202012Validator, ValidationError
from onnx_models import scale
from server_process import infer_request
from starlette.routing import Route

from driftline.config import Server
from driftline.errors import NotFound
from driftline.registry.directory import DirectoryRegistry
from driftline.registry.source import Version
from driftline.serving.host import Host
from driftline.serving.http import openapi
from driftline.serving.http.app import App


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


async def test_the_index_has_the_other_models_while_some_can_not_be_read(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "models"
    for name in ("broken", "gone", "other"):
        host.registry.register([scale(tmp_path / "model.onnx", 2.0)], name)
    for name in ("broken", "m"):
        (root / name / "aliases.json").write_text("{")
    versions = DirectoryRegistry.versions

    def without_one(registry: DirectoryRegistry, name: str) -> list[Version]:
        if name == "gone":
            raise NotFound("it was removed after the models were listed")
        return versions(registry, name)

    monkeypatch.setattr(DirectoryRegistry, "versions", without_one)
    async with client(host) as stranger:
        rows = (await stranger.post("/v2/repository/index")).json()
        ready = (await stranger.post("/v2/repository/index", json={"ready": True})).json()
    assert [(row["name"], row["version"], row["state"]) for row in rows] == [
        ("broken", "", "UNAVAILABLE"),
        ("m", "1", "READY"),
        ("other", "1", "UNAVAILABLE"),
    ]
    for row in rows[:2]:
        assert f"{root}/{row['name']}/aliases.json: expected an object" in row["reason"]
    assert rows[2]["reason"] == ""
    assert ready == rows[1:2]


async def test_the_description_is_of_what_is_there(host: Host) -> None:
    app = App(host, Server(model_control="explicit"))
    async with client(host, model_control="explicit") as reader:
        document = (await reader.get("/openapi.json")).json()
        described = {(path, method) for path, item in document["paths"].items() for method in item}
        pages = {
            (route.path, method.lower())
            for route in app._pages.routes
            if isinstance(route, Route)
            for method in route.methods or ()
            if method != "HEAD"
        }
        inference = {(path, "post") for path in openapi.INFERENCE}
        assert described == pages | inference
        identifiers = [
            operation["operationId"] for item in document["paths"].values() for operation in item.values()
        ]
        assert len(set(identifiers)) == len(identifiers)
        for path, method in described:
            operation = document["paths"][path][method]
            assert operation["summary"]
            named = [parameter["name"] for parameter in operation["parameters"]]
            assert path.format(**dict.fromkeys(named, "1")).count("{") == 0
            reached = app.endpoint(path.format(name="m", version="1"))
            assert (reached is not None) == ((path, method) in inference)


async def test_what_is_asked_and_answered_is_as_described(host: Host) -> None:
    body = infer_request({"x": ("FP32", [[1, 2, 3]])}, id="7", outputs=[{"name": "y"}])
    async with client(host) as reader:
        document = (await reader.get("/openapi.json")).json()

        def check(name: str, instance: object) -> None:
            schema = document | {"$ref": f"#/components/schemas/{name}"}
            Draft202012Validator(schema).validate(instance)

        check("InferenceRequest", body)
        check("InferenceResponse", (await reader.post("/v2/models/m/infer", json=body)).json())
        check("Error", (await reader.post("/v2/models/m/infer", json={})).json())
        check("ModelMetadata", (await reader.get("/v2/models/m")).json())
        check("PredictRequest", {"instances": [[1, 2, 3]]})
        predicted = await reader.post("/v1/models/m:predict", json={"instances": [[1, 2, 3]]})
        check("PredictResponse", predicted.json())
        for body in ({"inputs": [1]}, {"dataframe_split": {"data": [[1]]}}, {"instances": [1], "params": {}}):
            check("ScoringRequest", body)
        for name, instance in (
            ("InferenceRequest", {"inputs": []}),
            ("PredictRequest", {"inputs": None}),
            ("PredictRequest", {"instances": []}),
            ("ScoringRequest", {"dataframe_records": {}}),
            ("ScoringRequest", {}),
        ):
            with pytest.raises(ValidationError):
                check(name, instance)
        content_types = document["paths"]["/invocations"]["post"]["requestBody"]["content"]
        assert set(content_types) == {"application/json", "text/csv", "application/vnd.apache.parquet"}
        check("ScoringError", (await reader.post("/models/m/invocations", json={})).json())
        for name in ("InferenceRequest", "PredictRequest", "Error"):
            with pytest.raises(ValidationError):
                check(name, {})
