"""Whole servers that write what they see to a real MLflow tracking server, read by its own client."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx_models import scale
from server_process import Process, serving
from tracking import Client, TrackingServer
from waiting import until

from driftline.monitor.monitor import Monitor
from driftline.monitor.reference.profile import Profile
from driftline.registry.source import Registry, Version
from driftline.serving.monitoring.runs import Runs, mlflow_name

pytestmark = [pytest.mark.timeout(600)]

RANDOM = np.random.default_rng(7)
WINDOW = 500
SECONDS = 180.0
"""How long a tracking server may take."""

READ = """
mlflow.set_tracking_uri(url)
client = MlflowClient()
experiment = client.get_experiment_by_name("driftline")
query = f"tags.`driftline.model` = '{name}'"
answer = [
    {
        "id": run.info.run_id,
        "status": run.info.status,
        "tags": dict(run.data.tags),
        "steps": sorted((one.step, one.value) for one in client.get_metric_history(run.info.run_id, "rows")),
        "metrics": dict(run.data.metrics),
    }
    for run in (client.search_runs([experiment.experiment_id], query) if experiment else [])
]
"""


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    with TrackingServer.running(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    client = Client()
    try:
        yield client
    finally:
        client.close()


def runs_of(client: Client, mlflow: TrackingServer, name: str) -> Any:
    return client.run(READ, url=mlflow.url, name=name)


def steps_of(client: Client, mlflow: TrackingServer, name: str, steps: int) -> Any:
    """The one run of a model, when it has so many windows."""

    def told() -> Any:
        found = runs_of(client, mlflow, name)
        return found and len(found[0]["steps"]) >= steps

    until(told, f"{steps} windows", SECONDS)
    return runs_of(client, mlflow, name)[0]  # anew: what was read before the steps may be older than they are


def register(registry: str, folder: Path, name: str) -> None:
    reference = RANDOM.standard_normal((5000, 3))
    profile, settings = folder / "profile.arrow", folder / "driftline.toml"
    Profile.fit({"x": reference, "total": 2 * reference.sum(axis=1)}).save(profile)
    settings.write_text(f"[monitor]\nlook_rows = 100\nwindow_rows = {WINDOW}\nwindow_seconds = 0\n")
    Registry.open(registry).register([scale(folder / "model.onnx", 2.0), profile, settings], name)


def send(server: Process, name: str, rows: int, shift: float = 0.0) -> None:
    """Rows in requests of 100, shifted in their second column."""
    for _ in range(rows // 100):
        batch = RANDOM.standard_normal((100, 3)) + np.array([0.0, shift, 0.0])
        server.infer(name, {"x": ("FP32", batch.tolist())}).raise_for_status()


def monitored(server: Process, name: str) -> None:
    until(lambda: server.get(f"/v2/models/{name}/drift").status_code == 200, "the monitor", SECONDS)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_windows_are_metrics_and_alarms_tags_of_one_run(
    workers: str, mlflow: TrackingServer, client: Client, tmp_path: Path
) -> None:
    name, folder = f"of-{workers}", str(tmp_path / "models")
    register(folder, tmp_path, name)
    arguments = (name, "--registry", folder, "--workers", workers)
    environment = {"MLFLOW_TRACKING_URI": mlflow.url, "DRIFTLINE_TRACK": "true"}
    with serving(*arguments, env=environment) as server:
        monitored(server, name)
        send(server, name, 2 * WINDOW)
        send(server, name, 2 * WINDOW, shift=1.0)
        server.get(f"/v2/models/{name}/drift")  # all is collected that was counted
        run = until(
            lambda: next(
                (one for one in runs_of(client, mlflow, name) if "driftline.alarm.x_1" in one["tags"]), None
            ),
            "an alarm",
            SECONDS,
        )
        assert run["status"] == "RUNNING"
        assert "mean up" in run["tags"]["driftline.alarm.x_1"]
        assert run["tags"]["driftline.version"] == "1"
        assert run["tags"]["mlflow.source.name"] == "driftline"
        assert "driftline_tracking_dropped_total 0.0" in server.get("/metrics").text
        assert server.stop() == 0
    (run,) = runs_of(client, mlflow, name)
    assert run["status"] == "FINISHED"
    assert [step for step, _ in run["steps"]] == list(range(len(run["steps"])))
    assert sum(rows for _, rows in run["steps"]) == 4 * WINDOW
    assert run["metrics"]["psi/x_1"] > 0.2
    assert run["metrics"]["mean/x_1"] == pytest.approx(1.0, abs=0.2)
    assert run["metrics"].keys() >= {"psi/total", "wasserstein/x_0", "missing_rate/x_2", "whole/mmd"}

    with serving(*arguments, env=environment) as server:
        monitored(server, name)
        send(server, name, WINDOW)
        server.get(f"/v2/models/{name}/drift")
        again = steps_of(client, mlflow, name, len(run["steps"]) + 1)
        assert (again["id"], again["status"]) == (run["id"], "RUNNING")
        assert server.stop() == 0


def test_what_happens_while_mlflow_is_away_is_written_when_it_is_back(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_CACHE", str(tmp_path / "cache"))
    with TrackingServer.running(tmp_path / "mlflow") as mlflow:
        register(mlflow.url, tmp_path, "m")
        with serving("m", "--registry", mlflow.url, "--track") as server:
            monitored(server, "m")
            send(server, "m", WINDOW)
            run = steps_of(client, mlflow, "m", 1)
            mlflow.stop()
            send(server, "m", 3 * WINDOW, shift=1.0)
            server.wait_for("windows and alarms wait")
            send(server, "m", WINDOW)
            mlflow.start()
            mlflow.wait()
            after = steps_of(client, mlflow, "m", 5)
            assert after["id"] == run["id"]
            assert after["steps"] == [(step, WINDOW) for step in range(5)]
            until(
                lambda: "driftline.alarm.x_1" in runs_of(client, mlflow, "m")[0]["tags"], "an alarm", SECONDS
            )
            assert server.stop() == 0


def test_columns_of_any_name_and_number(mlflow: TrackingServer, client: Client) -> None:
    names = ["age (years)", "a/b", "a_b", "..", "größe", "日本", "50 %", "n" * 300, "emoji 🙂"]
    names += [f"column {number}" for number in range(200)]
    rows = {name: RANDOM.standard_normal(300) for name in names}
    profile = Profile.fit(rows)
    runs, version = Runs(mlflow.url), Version("odd", 1)
    monitor = Monitor(profile, window_rows=300, on_window=partial(runs.window, version, profile))
    monitor.observe(rows)
    runs.close()
    (run,) = runs_of(client, mlflow, "odd")
    assert runs.dropped == 0
    for statistic in ("psi", "jensen_shannon", "kolmogorov_smirnov", "wasserstein", "missing_rate", "mean"):
        assert {name for name in run["metrics"] if name.startswith(f"{statistic}/")} == {
            f"{statistic}/{mlflow_name(name)}" for name in names
        }


def test_a_run_that_somebody_deletes_is_followed_by_another(mlflow: TrackingServer, client: Client) -> None:
    rows = {"x": RANDOM.standard_normal(100)}
    profile = Profile.fit(rows)
    runs, version = Runs(mlflow.url), Version("deleted", 1)
    monitor = Monitor(profile, window_rows=100, on_window=partial(runs.window, version, profile))
    monitor.observe(rows)
    first = steps_of(client, mlflow, "deleted", 1)
    delete = {"run_id": first["id"]}
    httpx.post(f"{mlflow.url}/api/2.0/mlflow/runs/delete", json=delete).raise_for_status()
    monitor.observe(rows)
    runs.close()
    (second,) = runs_of(client, mlflow, "deleted")
    assert second["id"] != first["id"]
    assert second["steps"] == [(0, 100.0)]
