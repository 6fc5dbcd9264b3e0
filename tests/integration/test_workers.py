"""Several workers on one port: one server to whoever asks, whatever happens to one of its processes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import psutil
import pytest
from onnx_models import scale, slow, with_transform
from prometheus_client.parser import text_string_to_metric_families
from server_process import Process, infer_request, infer_rows, receiver, serving
from waiting import eventually, until

import driftline as dl
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reference.storage import decode
from driftline.registry.source import Registry

RANDOM = np.random.default_rng(0)
REFERENCE = RANDOM.standard_normal((5000, 3)).astype(np.float32)
ROW = {"x": ("FP32", [[1.0, 2.0, 3.0]])}
SWAPS = 20
VERSIONS = 4


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = set(os.listdir("/dev/shm"))
    yield
    assert set(os.listdir("/dev/shm")) <= before


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry.open(tmp_path / "models")
    for version in range(1, VERSIONS + 1):
        registry.register([scale(tmp_path / "model.onnx", float(version))], "m")
    registry.promote("m", 1)
    return registry


@pytest.fixture
def watched(tmp_path: Path) -> Registry:
    """A model with a profile, of numbers and of what is missing among them."""
    registry = Registry.open(tmp_path / "watched")
    profile, settings = tmp_path / "profile.arrow", tmp_path / "driftline.toml"
    Profile.fit({"x": REFERENCE, "total": 2 * REFERENCE.sum(axis=1)}).save(profile)
    settings.write_text(
        "[monitor]\nlook_rows = 100\nlook_seconds = 0\nfalse_alarm_rows = 100_000\n"
        f'window_rows = 3000\nwindow_seconds = 0\nhistory = "{tmp_path / "history"}"\n'
    )
    registry.register([scale(tmp_path / "model.onnx", 2.0), profile, settings], "m")
    return registry


def workers_of(server: Process) -> list[psutil.Process]:
    """The processes of its workers; those that are being started are still copies of the server itself."""
    return [one for one in psutil.Process(server.popen.pid).children() if is_worker(one)]


def is_worker(process: psutil.Process) -> bool:
    try:
        return "driftline.serving.fleet.worker" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def monitored(server: Process) -> dict[str, Any]:
    """The report, when the monitor is there and all rows that were answered are in it."""

    def ready() -> Any:
        answer = server.get("/v2/models/m/drift")
        lag = sample(server, "driftline_observation_lag_rows")
        return answer.json() if answer.status_code == 200 and not lag else None

    return until(ready, "the monitor")  # type: ignore[no-any-return]


def sample(server: Process, name: str) -> float:
    """The sum of a metric over its labels."""
    families = text_string_to_metric_families(server.get("/metrics").raise_for_status().text)
    return sum(one.value for family in families for one in family.samples if one.name.startswith(name))


def send(server: Process, rows: np.ndarray) -> None:
    """Rows as requests of some dozens, each on a connection of its own."""
    with httpx.Client(base_url=server.url, timeout=30, headers={"connection": "close"}) as client:
        for part in np.array_split(rows, max(1, len(rows) // 50)):
            data = [[None if np.isnan(value) else float(value) for value in row] for row in part]
            body = infer_request({"x": ("FP32", data)})
            client.post("/v2/models/m/infer", json=body).raise_for_status()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_version_that_may_be_a_mistake_is_told(watched: Registry, tmp_path: Path, workers: str) -> None:
    flags = ("--registry", watched.uri, "--poll-seconds", "0.05", "--workers", workers)
    with serving("m", *flags) as server:
        until(lambda: sample(server, "driftline_profile_rows") == len(REFERENCE), "the monitor")
        watched.register([scale(tmp_path / "model.onnx", 2.0, width=4)], "m")
        server.wait_for("m 2 serves, 1 drains")
        until(lambda: server.get("/v2/models/m/drift").is_success, "the next monitor")
        text = server.get("/metrics").text
        assert 'driftline_profile_rows{model="m",version="2"} 0.0' in text
        assert server.stop() == 0
    warnings = [one for one in server.events() if one["level"] == "warning" and one.get("version") == 2]
    assert [one["message"] for one in warnings] == [
        "m 2 may break clients of version 1: input 'x' is FP32 [-1, 4], was FP32 [-1, 3], "
        "output 'y' is FP32 [-1, 4], was FP32 [-1, 3]",
        "m 2 has no profile.arrow: its data is not compared with a reference; version 1 had one",
    ]


async def test_swaps_under_load_lose_nothing_and_mix_nothing(registry: Registry) -> None:
    with serving(
        "m",
        "--registry",
        registry.uri,
        "--workers",
        "3",
        "--poll-seconds",
        "0.02",
        "--model-control",
        "explicit",
    ) as server:
        answers: Counter[int] = Counter()
        going_on = True

        async def client(rows: int) -> None:
            while going_on:  # a connection for some requests, so that every worker gets some
                async with aiohttp.ClientSession() as session:
                    for _ in range(20):
                        answers[await infer_rows(session, server.url, rows)] += 1

        async with asyncio.TaskGroup() as clients:
            for rows in (1, 1, 1, 2, 5, 17, 100, 300):
                clients.create_task(client(rows))
            version = 1
            for turn in range(SWAPS):
                version = version % VERSIONS + 1
                registry.promote("m", version)
                if turn % 3 == 0:
                    path = f"{server.url}/v2/repository/models/m/load"
                    await asyncio.to_thread(lambda path=path: httpx.post(path, timeout=30).raise_for_status())
                    for _ in range(8):  # when that is answered, every worker has flipped
                        async with aiohttp.ClientSession() as session:
                            assert await infer_rows(session, server.url, 1) == version
                elif turn % 3 == 1:
                    server.popen.send_signal(signal.SIGHUP)
                before = answers[version]
                await eventually(lambda version=version, before=before: answers[version] >= before + 10)
            going_on = False
        assert set(answers) == set(range(1, VERSIONS + 1))
        assert sample(server, "driftline_swaps_total") == SWAPS
        assert sample(server, "nv_inference_request_failure") == 0
        workers = workers_of(server)
        assert len(workers) == 3
        assert server.stop() == 0
        server.close()
        assert not [event for event in server.events() if event["level"] in ("error", "warning")]
        assert not any(worker.is_running() for worker in workers)


def test_the_same_rows_are_counted_alike_by_one_worker_and_by_three(watched: Registry) -> None:
    rows = RANDOM.standard_normal((2000, 3))
    rows[::7, 1] = np.nan
    reports = []
    for number in (1, 3):
        with serving("m", "--registry", watched.uri, "--workers", str(number)) as server:
            send(server, rows[:200])  # before there is a monitor
            monitored(server)
            send(server, rows[200:])
            assert sample(server, "nv_inference_request_success") == 40
            assert sample(server, "nv_inference_count") == sample(server, "driftline_rows_observed_total")
            reports.append(server.get("/v2/models/m/drift").json())
            assert server.stop() == 0
    one, three = reports
    assert one["rows"] == three["rows"] == 2000
    for alone, together in zip(one["columns"], three["columns"], strict=True):
        assert alone["bins"] == together["bins"]
        assert alone["facts"] == pytest.approx(together["facts"], rel=1e-9)
        assert alone["statistics"]["psi"] == together["statistics"]["psi"]


def test_windows_turn_and_alarms_come_of_all_workers(watched: Registry, tmp_path: Path) -> None:
    with (
        receiver() as (url, events),
        serving("m", "--registry", watched.uri, "--workers", "2", "--alarm-webhook", url) as server,
    ):
        monitored(server)
        send(server, RANDOM.standard_normal((4000, 3)))
        quiet = server.get("/v2/models/m/drift?window=2").json()
        assert quiet["rows"] == 4000
        assert quiet["alarms"] == []
        assert server.get("/v2/models/m/drift").json()["rows"] <= 1000
        drifted = RANDOM.standard_normal((2000, 3))
        drifted[:, 1] += 1.0
        send(server, drifted)
        until(lambda: [one for _, one in events if one.get("subject") == "x_1"], "the webhook")
        alarms = server.get("/v2/models/m/drift").json()["alarms"]
        assert "x_1" in [alarm["column"] for alarm in alarms]
        answers = [server.get("/v2/models/m/drift").json() for _ in range(10)]
        assert all(answer["alarms"] == alarms for answer in answers)
        let_go = server.post("/v2/models/m/drift/acknowledge").json()["acknowledged"]
        assert "x_1" in [signal["column"] for signal in let_go]
        assert all(server.get("/v2/models/m/drift").json()["alarms"] == [] for _ in range(5))
        assert server.stop() == 0
    assert len([one for _, one in events if one.get("subject") == "x_1"]) == 1
    assert list((tmp_path / "history").glob("*.parquet"))


def succeeded(answer: httpx.Response) -> httpx.Response | None:
    return answer if answer.is_success else None


def test_a_profile_of_live_traffic_is_of_what_all_workers_are_asked(registry: Registry) -> None:
    path = "/v2/models/m/profile?rows=300&seconds="
    with (
        serving("m", "--registry", registry.uri, "--workers", "3") as server,
        ThreadPoolExecutor(1) as thread,
    ):
        with suppress(httpx.ReadTimeout):  # who goes is not waited for
            httpx.get(f"{server.url}{path}3000", timeout=1)
        until(lambda: "got none" in server.get(f"{path}0.1").text, "that another can be made")
        asked = thread.submit(lambda: until(lambda: succeeded(server.get(f"{path}60")), "a profile"))
        until(lambda: "another profile" in server.get(f"{path}0.1").text, "that it is being made")
        server.get("/v2/models/stats")  # all workers have been asked something since
        for number in range(30):  # each over a connection of its own, so that every worker gets some
            server.infer("m", {"x": ("FP32", [[number, 1, 2]] * 10)}).raise_for_status()
        answer = asked.result()
        assert answer.headers["driftline-profile-rows"] == "300"
        profile = Profile(*decode(answer.content, server.url))
        assert profile.rows == 300
        assert server.get("/v2/models/nothing/profile").status_code == 404
        assert server.stop() == 0


def test_metrics_and_statistics_are_the_same_whoever_answers(registry: Registry) -> None:
    with serving("m", "--registry", registry.uri, "--workers", "3") as server:
        for asked in range(1, 31):
            server.infer("m", ROW).raise_for_status()
            assert sample(server, "nv_inference_request_success") == asked
            (stats,) = server.get("/v2/models/stats").json()["model_stats"]
            assert stats["inference_count"] == asked
        assert sample(server, "driftline_request_duration_seconds_count") == 30
        assert sample(server, "driftline_loads_total") == 1
        text = server.get("/metrics").text
        assert text.count("driftline_model_version_info{") == 1
        for _ in range(6):
            (row, *_) = (one for one in server.post("/v2/repository/index").json() if one["state"] == "READY")
            assert row["version"] == "1"
            assert server.get("/v2/models/m").json()["versions"] == ["1"]
            assert server.get("/v2/health/ready").status_code == 200
        rss = sum(worker.memory_info().rss for worker in workers_of(server))
        assert sample(server, "process_resident_memory_bytes") > rss / 2


async def test_a_worker_that_is_killed_costs_its_open_requests_only(watched: Registry) -> None:
    with serving("m", "--registry", watched.uri, "--workers", "3") as server:
        await asyncio.to_thread(monitored, server)
        answered, lost, going_on = 0, 0, True

        async def client() -> None:
            nonlocal answered, lost
            while going_on:
                try:
                    async with aiohttp.ClientSession() as session:
                        for _ in range(20):
                            data = {"x": ("FP32", [[0.1, 0.2, 0.3]])}
                            async with session.post(
                                f"{server.url}/v2/models/m/infer", json=infer_request(data)
                            ) as response:
                                assert response.status == 200, await response.text()
                                await response.read()
                            answered += 1
                except aiohttp.ClientConnectionError:
                    lost += 1

        async with asyncio.TaskGroup() as clients:
            for _ in range(9):
                clients.create_task(client())
            victims, uncounted = [], 0
            for _ in range(3):
                before = answered
                await eventually(lambda before=before: answered >= before + 300)
                victim = random.choice(await asyncio.to_thread(workers_of, server))
                victims.append(victim.pid)
                before = answered
                await asyncio.to_thread(sample, server, "nv_inference_request_success")
                victim.kill()
                # What was answered since the supervisor last asked may go with the worker, and nothing more:
                # how much that is depends on the machine. Each client may be about to read one more answer.
                uncounted += answered - before + 9
                await eventually(
                    lambda victim=victim: len(workers_of(server)) == 3 and not victim.is_running()
                )
            going_on = False
        assert lost <= 9 * len(victims)
        for pid in victims:
            line = next(event for event in server.events() if event.get("pid") == pid)
            assert "was killed by SIGKILL; another takes its place" in line["message"]
        counted = sample(server, "nv_inference_request_success")
        assert uncounted < answered
        assert answered - uncounted <= counted <= answered + lost
        rows = monitored(server)
        observed = sample(server, "driftline_rows_observed_total")
        assert 0 < rows["rows"] <= observed <= answered + lost
        # Rows that waited for the monitor of a worker that was killed young are skipped, and counted so.
        assert answered - uncounted <= observed + sample(server, "driftline_rows_skipped_total")
        assert server.stop() == 0


def test_who_waits_to_be_accepted_by_a_killed_worker_waits_for_the_next(registry: Registry) -> None:
    with serving("m", "--registry", registry.uri, "--workers", "2") as server:
        for victim in workers_of(server):
            victim.suspend()  # it accepts nobody, but connections are made
        results: list[int] = []
        clients = [
            threading.Thread(target=lambda: results.append(server.infer("m", ROW).status_code))
            for _ in range(8)
        ]
        for client in clients:
            client.start()
        for victim in workers_of(server):
            until(lambda: len([c for c in established(server) if c]) >= 8, "the connections")
            victim.kill()
        for client in clients:
            client.join()
        assert results == [200] * 8
        assert server.stop() == 0


@pytest.mark.parametrize("killed", [True, False])
def test_another_worker_accepts_for_one_that_can_not(registry: Registry, killed: bool) -> None:
    with serving("m", "--registry", registry.uri, "--workers", "2") as server:
        hanging, other = workers = workers_of(server)
        hanging.suspend()
        if killed:
            hanging.kill()
            until(lambda: set(workers_of(server)) - set(workers), "a replacement")
            (hanging,) = set(workers_of(server)) - {other}
            hanging.suspend()  # before it can accept: it may take as long as its models need
        with ThreadPoolExecutor(16) as clients:  # the system gives each of the two about half of them
            answers = [clients.submit(server.infer, "m", ROW) for _ in range(16)]
        assert [answer.result().status_code for answer in answers] == [200] * 16
        assert server.get("/metrics").status_code == 200
        hanging.resume()
        assert server.stop() == 0


def test_a_worker_that_ends_during_the_stop_delay_keeps_no_connections(registry: Registry) -> None:
    with serving("m", "--registry", registry.uri, "--workers", "2", "--stop-delay-seconds", "8") as server:
        victim, _ = workers_of(server)
        server.popen.send_signal(signal.SIGTERM)
        until(lambda: server.get("/v2/health/ready").status_code != 200, "not ready")
        victim.kill()
        victim.wait()
        with ThreadPoolExecutor(16) as clients:
            answers = [clients.submit(server.infer, "m", ROW) for _ in range(16)]
        assert [answer.result().status_code for answer in answers] == [200] * 16
        server.popen.send_signal(signal.SIGTERM)  # the delay need not pass


def established(server: Process) -> list[str]:
    """Connections to the server, accepted or not."""
    port = f":{int(server.address.rpartition(':')[2]):04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [line for line in lines if line.split()[1].endswith(port) and line.split()[3] == "01"]


def test_a_supervisor_that_is_killed_takes_its_workers_along(registry: Registry) -> None:
    with serving("m", "--registry", registry.uri, "--workers", "2") as server:
        workers = workers_of(server)
        server.popen.kill()
        server.popen.wait(30)
        until(lambda: not any(worker.is_running() for worker in workers), "the workers' end")
        with pytest.raises(httpx.ConnectError):
            server.get("/v2/health/live")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_answers_what_is_in_flight_and_exits_0(tmp_path: Path, number: int) -> None:
    path = slow(tmp_path / "slow.onnx", layers=200)
    with serving(path, "--workers", "2", "--drain-seconds", "100") as server:
        results: list[int] = []
        data = np.ones((32, 1024), np.float32).tolist()
        clients = [
            threading.Thread(
                target=lambda: results.append(server.infer("slow", {"x": ("FP32", data)}).status_code)
            )
            for _ in range(4)
        ]
        for client in clients:
            client.start()
        names = ("nv_inference_pending_request_count", "nv_inference_request_success")
        until(lambda: sum(sample(server, name) for name in names) >= 4, "the requests")
        assert server.stop(number, timeout=100) == 0
        for client in clients:
            client.join()
        assert results == [200] * 4
        server.close()
        assert server.events()[-1]["message"] == "stopped"
        errors = [event for event in server.events() if event["level"] in ("error", "critical")]
        assert not errors, "".join(server.log)


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    config = tmp_path / "driftline.toml"
    config.write_text("[models.slow.engine]\nthreads = 1\n")
    path = slow(tmp_path / "slow.onnx", layers=400)
    with serving(path, "--workers", "2", env={"DRIFTLINE_CONFIG": str(config)}) as server:
        workers = workers_of(server)
        failures: list[Exception] = []

        def ask_long() -> None:
            try:
                server.infer("slow", {"x": ("FP32", [[1] * 1024] * 1024)})  # eight batches
            except httpx.HTTPError as error:
                failures.append(error)

        client = threading.Thread(target=ask_long)
        client.start()
        until(lambda: sample(server, "nv_inference_pending_request_count") >= 1, "the request")
        server.popen.send_signal(signal.SIGTERM)
        server.wait_for("stopping:")
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
        client.join()
        assert failures
        until(lambda: not any(worker.is_running() for worker in workers), "the workers' end")


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_serving_everywhere(
    tmp_path: Path, registry: Registry
) -> None:
    with serving(
        "m",
        "--registry",
        registry.uri,
        "--workers",
        "2",
        "--poll-seconds",
        "0.05",
        "--model-control",
        "explicit",
    ) as server:
        (tmp_path / "model.onnx").write_bytes(b"no model")
        registry.register([tmp_path / "model.onnx"], "m")
        registry.promote("m", VERSIONS + 1)
        server.wait_for(f"m {VERSIONS + 1} can't be loaded")
        for _ in range(8):
            assert server.infer("m", ROW).json()["model_version"] == "1"

        def reason() -> str:
            rows = server.post("/v2/repository/index").json()
            return str(next(row["reason"] for row in rows if row["version"] == str(VERSIONS + 1)))

        assert "model.onnx" in until(reason, "the reason")
        assert sample(server, "driftline_loads_total") > 1
        failed = server.post("/v2/repository/models/m/load")
        assert failed.status_code == 400
        assert "failed to load 'm'" in failed.json()["error"]
        registry.promote("m", 2)
        server.post("/v2/repository/models/m/load").raise_for_status()
        assert {server.infer("m", ROW).json()["model_version"] for _ in range(8)} == {"2"}
        server.post("/v2/repository/models/m/unload").raise_for_status()
        assert {server.infer("m", ROW).status_code for _ in range(8)} == {404}
        server.post("/v2/repository/models/m/load").raise_for_status()
        assert {server.infer("m", ROW).json()["model_version"] for _ in range(8)} == {"2"}
        assert server.stop() == 0


def test_no_worker_loads_or_unloads_unless_the_settings_allow_it(registry: Registry) -> None:
    with serving("m", "--registry", registry.uri, "--workers", "2") as server:
        for verb in ("load", "unload"):
            assert server.post(f"/v2/repository/models/m/{verb}").status_code == 403
        assert {server.infer("m", ROW).status_code for _ in range(8)} == {200}


def test_a_worker_that_comes_after_a_swap_has_what_the_others_have(registry: Registry) -> None:
    with serving("m", "--registry", registry.uri, "--workers", "2", "--model-control", "explicit") as server:
        registry.promote("m", 3)
        server.post("/v2/repository/models/m/load").raise_for_status()
        for victim in workers_of(server):
            victim.send_signal(signal.SIGTERM)  # this one leaves gently, and is replaced as well
            until(lambda victim=victim: not victim.is_running(), "its end")
        server.wait_for("ended with code 0; another takes its place")
        assert {server.infer("m", ROW).json()["model_version"] for _ in range(8)} == {"3"}
        assert server.stop() == 0


def test_clients_wait_for_a_worker_though_all_have_left(registry: Registry) -> None:
    with serving("m", "--registry", registry.uri, "--workers", "2") as server:
        workers = workers_of(server)
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        until(lambda: not any(worker.is_running() for worker in workers), "their end")
        assert {server.infer("m", ROW).status_code for _ in range(8)} == {200}


def test_a_table_with_one_column_of_a_datatype_is_served(tmp_path: Path) -> None:
    transform = dl.Transform([dl.Pass("a"), dl.OneHot("t")]).fit({"a": [1.0, 2.0], "t": ["x", "y"]})
    (tmp_path / "m/1").mkdir(parents=True)
    with_transform(tmp_path / "m/1", transform)
    with serving("m", "--registry", tmp_path, "--workers", "2") as server:
        answer = server.infer("m", {"a": ("FP64", [3.0]), "t": ("BYTES", ["y"])}).json()
        assert answer["outputs"][0]["data"] == [3.0, 0.0, 1.0]
        assert server.stop() == 0


def test_what_cannot_be_served_ends_the_start_with_one_line(tmp_path: Path, registry: Registry) -> None:
    (Path(registry.uri) / "m/1/model.onnx").write_bytes(b"garbage")
    with serving("m", "--registry", registry.uri, "--workers", "2", ready=False) as server:
        assert server.popen.wait(60) == 2
        server.close()
        assert server.log[-1].startswith("driftline: ")
        assert "model.onnx" in server.log[-1]


def test_a_port_is_not_shared_with_another_server(registry: Registry) -> None:
    with serving("m", "--registry", registry.uri, "--workers", "2") as server:
        port = server.address.rpartition(":")[2]
        command = [
            sys.executable,
            "-m",
            "driftline",
            "serve",
            "m",
            "--registry",
            registry.uri,
            "--workers",
            "2",
        ]
        ended = subprocess.run([*command, "--port", port], capture_output=True, text=True, timeout=60)
        assert ended.returncode == 2
        assert f"can't listen on 127.0.0.1:{port}" in ended.stderr
