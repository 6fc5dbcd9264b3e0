"""Whole servers that follow a real MLflow tracking server: its own client registers, promotes and loads."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from onnx_models import scale
from server_process import Process, infer_request, serving
from tracking import CREDENTIALS, PASSWORD, Client, TrackingServer

from driftline.engine.model import Model
from driftline.errors import RegistryError
from driftline.monitor.reference.profile import Profile
from driftline.registry.cache import Cache
from driftline.registry.mlflow.source import MlflowRegistry
from driftline.registry.source import Reference

pytestmark = [pytest.mark.timeout(300)]

SECRET = "what only the two of them know"

LOG = """
import mlflow.data
mlflow.set_tracking_uri(url)
client = MlflowClient()
model = onnx.load(path)
signature = mlflow.models.infer_signature(
    {"x": np.zeros((2, 3), np.float32)}, {"y": np.zeros((2, 3), np.float32), "total": np.zeros(2, np.float32)}
)
with mlflow.start_run() as run:
    frame = pd.DataFrame({"x": [1.0, 2.0]})
    mlflow.log_input(mlflow.data.from_pandas(frame, name="flights of 2013"), context="training")
    mlflow.onnx.log_model(
        model, name="model", signature=signature, registered_model_name=name, pip_requirements=["onnx"]
    )  # else it runs the model to find out
answer = run.info.run_id
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    with TrackingServer.running(tmp_path_factory.mktemp("plain")) as server:
        yield server


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    with TrackingServer.running(tmp_path_factory.mktemp("secured"), "--app-name", "basic-auth") as server:
        yield server


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    client = Client(**CREDENTIALS)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a driftline server is started with; this process reads registries with it, too."""
    names = {"DRIFTLINE_CACHE": str(tmp_path / "cache"), "DRIFTLINE_MLFLOW_WEBHOOK_SECRET": SECRET}
    for name, value in (names | CREDENTIALS).items():
        monkeypatch.setenv(name, value)
    return names | CREDENTIALS


PROMOTE = """
mlflow.set_tracking_uri(url)
MlflowClient().set_registered_model_alias(name, "production", version)
"""


def promote(client: Client, url: str, name: str, version: int) -> None:
    client.run(PROMOTE, url=url, name=name, version=version)


@asynccontextmanager
async def load_on(*servers: Process) -> AsyncIterator[list[Counter[str]]]:
    """Clients that ask `m` all the time, and bear no failure; how often each version has answered."""
    answers: list[Counter[str]] = [Counter() for _ in servers]
    going_on = True

    async def ask(session: aiohttp.ClientSession, server: Process, counts: Counter[str]) -> None:
        request = infer_request({"x": ("FP32", [[1, 2, 3]])})
        while going_on:
            async with session.post(f"{server.url}/v2/models/m/infer", json=request) as response:
                answer = await response.json()
                assert response.status == 200, answer
                version = answer["model_version"]
                assert answer["outputs"][1]["data"] == [6.0 * int(version)]
                counts[version] += 1
            await asyncio.sleep(0.002)  # MLflow needs the cores, too

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        for server, counts in zip(servers, answers, strict=True):
            for _ in range(2):
                tasks.create_task(ask(session, server, counts))
        yield answers
        going_on = False


async def answered_by(counts: Counter[str], version: str, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not counts[version]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


HOOK = """
from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent
mlflow.set_tracking_uri(url)
events = [WebhookEvent(WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction.CREATED)]
MlflowClient().create_webhook(name="driftline", url=hook, events=events, secret=secret)
"""


@pytest.mark.parametrize("kind", ["plain", "secured"])
async def test_an_alias_that_mlflow_moves_is_followed_under_load(
    kind: str, request: pytest.FixtureRequest, client: Client, tmp_path: Path, environment: dict[str, str]
) -> None:
    url = request.getfixturevalue(kind).url
    for version in (1, 2, 3):
        model = str(scale(tmp_path / "model.onnx", float(version), ballast_bytes=200_000))
        run_id = client.run(LOG, url=url, name="m", path=model)
    promote(client, url, "m", 1)
    workers = "2" if kind == "plain" else "1"
    hooked = ("m", "--registry", url, "--poll-seconds", "3600", "--workers", workers)
    with (
        serving("m", "--registry", url, "--poll-seconds", "0.2", env=environment) as polling,
        serving(*hooked, env=environment) as told,
    ):
        async with load_on(polling, told) as (of_polling, of_told):
            await answered_by(of_polling, "1")
            promote(client, url, "m", 2)
            await answered_by(of_polling, "2")
            hook = f"{told.url}/hooks/mlflow"
            client.run(HOOK, url=url, hook=hook, secret=SECRET)
            assert (
                "3" not in of_told
            )  # it may have had its first look since 2 was promoted; there is no second
            promote(client, url, "m", 3)
            await answered_by(of_told, "3")
            await answered_by(of_polling, "3")
        metadata = told.get("/v2/models/m").json()
        assert metadata["lineage"]["run_id"] == run_id
        assert metadata["lineage"]["datasets"][0]["name"] == "flights of 2013"
        (ready,) = told.post("/v2/repository/index", json={"ready": True}).json()
        assert (ready["version"], ready["lineage"]) == ("3", metadata["lineage"])
        assert polling.stop() == told.stop() == 0
        for line in polling.log + told.log:
            assert PASSWORD not in line
            assert SECRET not in line


LOADED = """
mlflow.set_tracking_uri(url)
loaded = mlflow.onnx.load_model(f"models:/{name}/1")
model = mlflow.pyfunc.load_model(f"models:/{name}@champion")
version = MlflowClient().get_model_version(name, "1")
artifacts = MlflowClient().list_logged_model_artifacts(version.source.removeprefix("models:/"))
answer = (
    [node.name for node in loaded.graph.input],
    {key: value.tolist() for key, value in model.predict(np.array([[1, 2, 3]], np.float32)).items()},
    model.metadata.signature.to_dict()["inputs"],
    sorted(one.path for one in artifacts),
)
"""


def test_what_driftline_registers_mlflow_loads(
    plain: TrackingServer, client: Client, tmp_path: Path, environment: dict[str, str]
) -> None:
    model = scale(tmp_path / "in/model.onnx", 5.0)
    Profile.fit({"x": np.random.default_rng(0).random((100, 3), np.float32)}).save(
        tmp_path / "in/profile.arrow"
    )
    command = [sys.executable, "-m", "driftline", "register", tmp_path / "in", "--name", "own.model"]
    done = subprocess.run(
        [*command, "--alias", "champion", "--registry", plain.url], capture_output=True, text=True, check=True
    )
    assert "own.model@champion is version 1" in done.stdout
    names, outputs, inputs, artifacts = client.run(LOADED, url=plain.url, name="own.model")
    assert names == ["x"]
    assert outputs == {"y": [[5, 10, 15]], "total": [30]}
    assert json.loads(inputs)[0]["tensor-spec"] == {"dtype": "float32", "shape": [-1, 3]}
    assert {"MLmodel", "model.onnx", "profile.arrow", "requirements.txt"} <= set(artifacts)

    registry = MlflowRegistry(plain.url)
    assert "own.model" in registry.models()
    folder = registry.fetch(registry.resolve(Reference.parse("own.model@champion")))
    assert (folder / "model.onnx").read_bytes() == model.read_bytes()
    assert Model.load(folder).predict({"x": [[1, 2, 3]]})["total"].tolist() == [30]


def test_a_storage_initializer_fetches_what_an_alias_points_at(
    plain: TrackingServer, environment: dict[str, str], tmp_path: Path
) -> None:
    registry = MlflowRegistry(plain.url)
    registry.register([scale(tmp_path / "a.onnx", 2.0)], "fetched")
    registry.promote("fetched", 1, "champion")
    command = [sys.executable, "-m", "driftline", "fetch", "models:/fetched@champion", tmp_path / "mnt"]
    where = {**os.environ, "MLFLOW_TRACKING_URI": plain.url, "DRIFTLINE_CACHE": "/dev/null/never"}
    for _ in "a pod", "the same pod, started again":
        done = subprocess.run(command, env=where, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, f"fetched 1 is in {tmp_path}/mnt\n"), done.stderr
        assert (tmp_path / "mnt/model.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes()
        assert (tmp_path / "mnt/MLmodel").is_file()
        assert list((tmp_path / "mnt/.driftline").iterdir()) == []


def test_a_refused_check_registers_nothing(
    plain: TrackingServer, tmp_path: Path, environment: dict[str, str]
) -> None:
    def refuse(folder: Path) -> None:
        raise RegistryError(f"{(folder / 'model.onnx').name} is no good")

    registry = MlflowRegistry(plain.url)
    with pytest.raises(RegistryError, match="no good"):
        registry.register([scale(tmp_path / "model.onnx", 1.0)], "refused", refuse)
    assert "refused" not in registry.models()


def serve(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "driftline", "serve", *arguments, "--port", "0"],
        env=os.environ | environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_an_unknown_alias_ends_the_start(
    plain: TrackingServer, tmp_path: Path, environment: dict[str, str]
) -> None:
    registry = MlflowRegistry(plain.url)
    version = registry.register([scale(tmp_path / "model.onnx", 1.0)], "aliased")
    registry.promote("aliased", version.number, "challenger")
    done = serve("aliased@champion", "--registry", plain.url, environment=environment)
    assert done.returncode == 2
    assert "model 'aliased' has no alias 'champion'; it has: challenger" in done.stderr


def test_credentials_that_are_wrong_end_the_start(
    secured: TrackingServer, environment: dict[str, str]
) -> None:
    wrong = environment | {"MLFLOW_TRACKING_PASSWORD": "wrong-passphrase"}
    done = serve("m", "--registry", secured.url, environment=wrong)
    assert done.returncode == 2
    assert "refuses: 401" in done.stderr
    assert "wrong-passphrase" not in done.stderr


async def test_a_registry_that_is_away_takes_nothing_down(
    client: Client, tmp_path: Path, environment: dict[str, str]
) -> None:
    with TrackingServer.running(tmp_path / "tracking") as server:
        registry = MlflowRegistry(server.url, Cache(tmp_path / "another cache"))
        for version in (1, 2):
            registry.register([scale(tmp_path / "model.onnx", float(version))], "m")
        registry.promote("m", 1)
        arguments: tuple[Any, ...] = ("m", "--registry", server.url, "--poll-seconds", "0.2")
        with serving(*arguments, env=environment) as first:
            async with load_on(first) as (of_first,):
                await answered_by(of_first, "1")
                server.stop()
                await asyncio.to_thread(first.wait_for, "what it said last")
                done = serve(*arguments, "--require-registry", environment=environment)
                assert done.returncode == 2
                assert "can't be reached" in done.stderr
                with serving(*arguments, env=environment) as second:
                    async with load_on(second) as (of_second,):
                        await answered_by(of_second, "1")
                        server.start()
                        await asyncio.to_thread(server.wait)
                        await asyncio.to_thread(promote, client, server.url, "m", 2)
                        await answered_by(of_first, "2")
                        await answered_by(of_second, "2")
                    assert second.stop() == 0
            assert first.stop() == 0
            assert any("can be read again" in line for line in first.log)
