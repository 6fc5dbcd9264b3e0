"""A whole server that watches its data: reports, alarms, metrics, webhook, history, profiles of traffic."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from onnx_models import scale
from scraping import Scrape
from server_process import Process, receiver, serving
from waiting import until

from driftline.monitor.reference.profile import Profile
from driftline.registry.source import Registry

RANDOM = np.random.default_rng(0)
REFERENCE = RANDOM.standard_normal((5000, 3)).astype(np.float32)
SETTINGS = "[monitor]\nlook_seconds = 0.05\nfalse_alarm_rows = 100_000\n"


def monitored(server: Process, model: str = "m") -> httpx.Response:
    """The first report, when the monitor is loaded."""

    def ready() -> httpx.Response | None:
        answer = server.get(f"/v2/models/{model}/drift")
        return answer if answer.status_code == 200 else None

    return until(ready, "the monitor")  # type: ignore[no-any-return]


def send(server: Process, rows: np.ndarray, model: str = "m") -> None:
    """Rows as requests of some hundred rows each."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for part in np.array_split(rows, max(1, len(rows) // 250)):
            entry = {
                "name": "x",
                "datatype": "FP32",
                "shape": list(part.shape),
                "data": part.ravel().tolist(),
            }
            client.post(f"/v2/models/{model}/infer", json={"inputs": [entry]}).raise_for_status()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry.open(tmp_path / "models")
    model = scale(tmp_path / "model.onnx", 2.0)
    profile = tmp_path / "profile.arrow"
    Profile.fit({"x": REFERENCE, "total": 2 * REFERENCE.sum(axis=1)}).save(profile)
    settings = tmp_path / "driftline.toml"
    settings.write_text(SETTINGS + f'history = "{tmp_path / "history"}"\n')
    registry.register([model, profile, settings], "m")
    return registry


def test_drift_is_reported_alarmed_posted_and_kept(registry: Registry, tmp_path: Path) -> None:
    with (
        receiver(503) as (url, events),
        serving("m", "--registry", registry.uri, "--alarm-webhook", url) as server,
    ):
        send(server, RANDOM.standard_normal((500, 3)))  # before the monitor is there: they wait
        monitored(server)
        until(lambda: Scrape(server)("driftline_rows_observed_total") == 500, "what waited")
        send(server, RANDOM.standard_normal((3000, 3)))
        quiet = server.get("/v2/models/m/drift").json()
        assert quiet["rows"] == 3500
        assert quiet["alarms"] == []
        assert [column["name"] for column in quiet["columns"]] == ["x_0", "x_1", "x_2", "total"]

        drifted = RANDOM.standard_normal((4000, 3))
        drifted[:, 1] += 1.0

        def alarmed() -> bool:
            send(server, drifted)
            return bool(server.get("/v2/models/m/drift").json()["alarms"])

        until(alarmed, "an alarm")
        until(lambda: [event for _, event in events[1:] if event.get("subject") == "x_1"], "the webhook")
        for content_type, event in events:
            assert content_type.startswith("application/cloudevents+json")
            assert event["specversion"] == "1.0"
            assert event["type"] == "io.driftline.alarm"
            assert event["source"] == "/v2/models/m/versions/1"
            assert event["data"]["kind"] == "alarm"
        alarm = next(event["data"] for _, event in events if event.get("subject") == "x_1")
        assert "mean up" in alarm["words"]
        assert alarm["statistics"]["psi"]["value"] > alarm["statistics"]["psi"]["null"]

        metrics = Scrape(server)
        assert metrics("driftline_alarms_total", column="x_1", model="m", version="1") >= 1
        assert metrics("driftline_signal", column="x_1", kind="alarm") == 1
        onset = datetime.fromisoformat(alarm["onset"]["when"]).timestamp()
        assert metrics("driftline_signal_onset_timestamp_seconds", column="x_1", kind="alarm") == onset
        assert not alarm["onset"]["first"]
        assert alarm["onset"]["rows"] < alarm["rows"]
        assert metrics("driftline_drift", column="x_1", statistic="psi") > 0.02
        assert metrics("driftline_drift_null", column="x_1", statistic="psi") > 0
        assert metrics("driftline_rows_skipped_total", model="m") == 0
        assert metrics("driftline_observation_lag_rows", model="m") == 0

        let_go = server.post("/v2/models/m/drift/acknowledge").json()["acknowledged"]
        assert "x_1" in [signal["column"] for signal in let_go]
        assert server.post("/v2/models/m/drift/acknowledge").json()["acknowledged"] == []
        assert server.stop() == 0
        server.close()
        lines = [event for event in server.events() if "signal" in event]
        assert {event["level"] for event in lines if event["signal"]["kind"] == "alarm"} == {"warning"}
        assert not any("secret" in line for line in server.log)
        told = [event["message"] for event in server.events() if "acknowledged" in event["message"]]
        assert len(told) == 1
        assert re.match(r"m 1: \d+ signals? (is|are) acknowledged: ", told[0])
    history = pq.read_table(tmp_path / "history")
    assert set(history["column"].to_pylist()) >= {"x_0", "x_1", "x_2", "total"}
    assert set(history["model"].to_pylist()) == {"m"}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_burst_is_alarmed_though_nothing_comes_behind_it(
    registry: Registry, tmp_path: Path, workers: str
) -> None:
    """A nightly batch, say: one is told in the silence behind it, another when the server stops at once."""
    settings = "[monitor]\nwindow_seconds = 0\n"
    profile = tmp_path / "profile.arrow"
    (tmp_path / "driftline.toml").write_text(settings + f'history = "{tmp_path / "history"}"\n')
    registry.register([tmp_path / "model.onnx", profile, tmp_path / "driftline.toml"], "nightly")
    drifted = RANDOM.standard_normal((4800, 3)) + 1.0
    alarmed = ["total", "x_0", "x_1", "x_2"]
    with receiver() as (url, events):
        arguments = ("--registry", registry.uri, "--alarm-webhook", url, "--workers", workers)
        for silence in (True, False):
            events.clear()
            with serving("nightly", *arguments) as server:
                monitored(server, "nightly")
                send(server, drifted, "nightly")
                if silence:
                    until(lambda: len(events) == 4, "all alarms")
                    report = server.get("/v2/models/nightly/drift").json()
                    assert (report["rows"], len(report["alarms"]), len(report["changes"])) == (4800, 4, 4)
                assert server.stop() == 0
                server.close()
                logged = [event["signal"] for event in server.events() if "signal" in event]
            for kind in ("alarm", "change"):
                assert sorted(one["column"] for one in logged if one["kind"] == kind) == alarmed
            assert sorted(event["subject"] for _, event in events) == alarmed
    history = pq.read_table(tmp_path / "history")
    assert set(history["rows"].to_pylist()) == {4800}


def test_without_a_profile_rows_are_counted_and_a_profile_comes_of_traffic(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "models")
    model = scale(tmp_path / "model.onnx", 2.0)
    registry.register([model], "m")
    with serving("m", "--registry", registry.uri, "--model-control", "explicit") as server:
        monitored(server)
        rows = RANDOM.standard_normal((1000, 3))
        rows[:100, 2] = 7.0
        send(server, rows)
        report = server.get("/v2/models/m/drift").json()
        assert report["rows"] == 1000
        assert report["alarms"] == report["changes"] == []
        metrics = Scrape(server)
        assert metrics("driftline_rows_observed_total", model="m") == 1000

        done = threading.Event()

        def traffic() -> None:
            while not done.is_set():
                send(server, RANDOM.standard_normal((250, 3)))

        client = threading.Thread(target=traffic)
        client.start()
        command = [sys.executable, "-m", "driftline", "profile", "--from-traffic", server.url, "--model", "m"]
        try:
            made = subprocess.run(
                [*command, "--rows", "2000", "-o", tmp_path / "profile.arrow"], capture_output=True, text=True
            )
            short = ("--rows", "1000000", "--seconds", "0.5", "-o", tmp_path / "short.arrow")
            less = subprocess.run([*command, *short], capture_output=True, text=True)
        finally:
            done.set()
            client.join()
        assert made.returncode == 0, made.stderr
        assert "the profile of 2000 rows and 7 columns is in" in made.stdout
        assert made.stderr == ""
        assert less.returncode == 0
        came = Profile.load(tmp_path / "short.arrow").rows
        assert f"driftline: a profile of {came} rows, not 1000000: it is of what comes within" in less.stderr
        profile = Profile.load(tmp_path / "profile.arrow")
        assert profile.rows == 2000
        assert profile.names == ("x_0", "x_1", "x_2", "y_0", "y_1", "y_2", "total")

        profile.renamed({"x_0": "age"}).save(tmp_path / "profile.arrow")
        registry.register([model, tmp_path / "profile.arrow"], "m")
        server.post("/v2/repository/models/m/load").raise_for_status()
        monitored(server)
        send(server, RANDOM.standard_normal((500, 3)))
        assert server.get("/v2/models/m/drift").json()["version"] == "2"
        with ThreadPoolExecutor(1) as thread:
            asked = thread.submit(server.get, "/v2/models/m/profile?rows=100&seconds=30")
            while not asked.done():
                send(server, RANDOM.standard_normal((10, 3)))
        (tmp_path / "again.arrow").write_bytes(asked.result().content)
        assert Profile.load(tmp_path / "again.arrow").names == ("age", *profile.names[1:])


def test_a_wrong_profile_costs_no_request(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "models")
    model = scale(tmp_path / "model.onnx", 2.0)
    profile = tmp_path / "profile.arrow"
    profile.write_bytes(b"garbage")
    registry.register([model, profile], "garbage")
    Profile.fit({"z": REFERENCE[:, 0]}).save(profile)
    registry.register([model, profile], "other")
    with serving("--registry", registry.uri) as server:
        for name in ("garbage", "other"):
            send(server, REFERENCE[:10], name)
            until(
                lambda name=name: "is not monitored" in server.get(f"/v2/models/{name}/drift").text,  # type: ignore[misc]
                "a refusal",
            )
            answer = server.get(f"/v2/models/{name}/drift")
            assert answer.status_code == 503
            send(server, REFERENCE[:10], name)
        assert "column 'z'" in server.get("/v2/models/other/drift").json()["error"]
        assert Scrape(server)("driftline_rows_skipped_total", model="other") == 20


def test_monitoring_can_be_turned_off(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "models")
    settings = tmp_path / "driftline.toml"
    settings.write_text("[monitor]\nenabled = false\n")
    registry.register([scale(tmp_path / "model.onnx", 2.0), settings], "m")
    with serving("m", "--registry", registry.uri) as server:
        send(server, REFERENCE[:10])
        answer = server.get("/v2/models/m/drift")
        assert answer.status_code == 404
        assert "is not monitored: its settings say so" in answer.json()["error"]


def test_a_wrong_query_is_named(registry: Registry) -> None:
    with serving("m", "--registry", registry.uri) as server:
        monitored(server)
        answer = server.get("/v2/models/m/drift?window=many")
        assert answer.status_code == 400
        assert "parameter 'window': expected a number from 1 to 25, got 'many'" in answer.json()["error"]
        assert server.get("/v2/models/nothing/drift").status_code == 404
        assert server.get("/v2/models/m/versions/1/drift?window=25").status_code == 200
        none = server.get("/v2/models/m/profile?seconds=0.1")
        assert none.status_code == 503
        assert "got none" in none.json()["error"]
