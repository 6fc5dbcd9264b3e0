"""Whole servers: how they start, fail to start, stop, and what they log."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
from onnx_models import gather, identity, scale, slow
from prometheus_client.parser import text_string_to_metric_families
from server_process import Process, infer_request, serving
from waiting import until

from driftline.registry.source import Registry

LONG = 3000
"""Layers of a model that takes many seconds for a full batch on one core of any machine."""
ROW = {"x": ("FP32", [[1.0, 2.0, 3.0]])}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "driftline", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def one_thread(folder: Path) -> dict[str, str]:
    """The environment of a server whose model `slow` has one core, however many there are."""
    config = folder / "driftline.toml"
    config.write_text("[models.slow.engine]\nthreads = 1\n")
    return {"DRIFTLINE_CONFIG": str(config)}


def wait_until_busy(server: Process, requests: int = 1) -> None:
    """Return when so many requests have arrived, answered or not."""
    counts = r'(?m)^nv_inference_(?:pending_request_count|request_success)\{model="slow",version="1"\} (.+)$'
    until(
        lambda: sum(map(float, re.findall(counts, server.get("/metrics").text))) >= requests,
        f"{requests} requests",
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry.open(tmp_path / "models")
    registry.register([scale(tmp_path / "model.onnx", 2.0)], "m")
    return registry


def test_a_lone_file_serves_and_serves_anew_when_it_has_changed(tmp_path: Path) -> None:
    path = scale(tmp_path / "double.onnx", 2.0)
    with serving(path, "--model-control", "explicit") as server:
        assert server.infer("double", ROW).json()["outputs"][0]["data"] == [2, 4, 6]
        scale(path, 3.0)
        server.post("/v2/repository/models/double/load").raise_for_status()
        assert server.infer("double", ROW).json()["outputs"][0]["data"] == [3, 6, 9]


def test_a_folder_made_for_triton_serves_as_it_is(tmp_path: Path) -> None:
    scale(tmp_path / "models/m/1/model.onnx", 1.0)
    scale(tmp_path / "models/m/10/model.onnx", 10.0)
    scale(tmp_path / "models/n/2/model.onnx/model.onnx", 2.0)
    (tmp_path / "models/m/config.pbtxt").write_text('name: "m"\nplatform: "onnxruntime_onnx"\n')
    (tmp_path / "models/m/labels").mkdir()
    (tmp_path / "models/n/config.pbtxt").write_text(
        "instance_group [{ kind: KIND_GPU }]\nversion_policy: { specific { versions: [1] }}\n"
    )
    with serving("--registry", tmp_path / "models") as server:
        assert server.infer("m", ROW).json()["model_version"] == "10"
        assert server.infer("n", ROW).json()["model_version"] == "2"
        warnings = [event["message"] for event in server.events() if event["level"] == "warning"]
    assert warnings == [
        "n: config.pbtxt is not followed in: instance_group, version_policy; "
        "here, aliases and driftline.toml say that"
    ]


def test_references_choose_versions(tmp_path: Path, registry: Registry) -> None:
    registry.register([scale(tmp_path / "model.onnx", 3.0)], "m")
    registry.register([scale(tmp_path / "model.onnx", 4.0)], "m")
    registry.promote("m", 2, "champion")
    with serving("m@champion", "m:1", "--registry", registry.uri) as server:
        assert server.infer("m", ROW).json()["model_version"] == "2"
        one = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
        assert server.post("/v2/models/m/versions/1/infer", json=one).json()["model_version"] == "1"
        missing = server.post("/v2/models/m/versions/3/infer", json=one)
        assert missing.status_code == 404
        assert "version 3 is not found; loaded: 1, 2" in missing.json()["error"]
        assert server.get("/v2/models/m").json()["versions"] == ["1", "2"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_answers_what_is_in_flight_and_exits_0(tmp_path: Path, number: int) -> None:
    path = slow(tmp_path / "slow.onnx", layers=400)
    with serving(path, "--drain-seconds", "100") as server:
        results: list[httpx.Response] = []
        data = np.ones((32, 1024), np.float32).tolist()

        def ask() -> None:
            results.append(server.infer("slow", {"x": ("FP32", data)}))

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for client in clients:
            client.start()
        wait_until_busy(server, len(clients))
        assert server.stop(number, timeout=100) == 0
        for client in clients:
            client.join()
        assert [result.status_code for result in results] == [200] * 4
        server.close()
        messages = [event["message"] for event in server.events()]
        assert messages[-1] == "stopped"
        assert not [event for event in server.events() if event["level"] in ("error", "critical")]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_may_wait_until_clients_have_gone_elsewhere(registry: Registry, workers: str) -> None:
    with (
        serving("--registry", registry.uri, "--workers", workers, "--stop-delay-seconds", "1000") as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        assert "connection" not in client.post("/v2/models/m/infer", json=infer_request(ROW)).headers
        server.popen.send_signal(signal.SIGTERM)
        for path in ("/v2/models/m/infer", "/v2/models/m/infer?a=b", "/invocations"):
            body = {"inputs": [[1, 2, 3]]} if path == "/invocations" else infer_request(ROW)
            closes = False
            while not closes:  # each worker hears of it when it does
                answer = client.post(path, json=body)
                assert answer.status_code == 200, path
                closes = answer.headers.get("connection") == "close"
        for path in ("/v2/health/ready", "/v2/models/m/ready", "/v1/models/m", "/ping"):
            while server.get(path).status_code != 503:
                pass
        assert server.get("/v2/health/live").status_code == 200
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    with serving("--registry", registry.uri, "--workers", workers, "--stop-delay-seconds", "0.2") as server:
        assert server.stop() == 0


def test_a_stop_does_not_wait_for_what_takes_longer_than_it_may(tmp_path: Path) -> None:
    path = slow(tmp_path / "slow.onnx", layers=LONG)
    with serving(path, "--drain-seconds", "1", env=one_thread(tmp_path)) as server:
        data = np.ones((128, 1024), np.float32).tolist()
        answers: list[httpx.Response] = []
        client = threading.Thread(target=lambda: answers.append(server.infer("slow", {"x": ("FP32", data)})))
        client.start()
        wait_until_busy(server)
        assert server.stop() == 0
        client.join()
        (answer,) = answers
        assert (answer.status_code, answer.json()) == (503, {"error": "the server is stopping"})


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    path = slow(tmp_path / "slow.onnx", layers=LONG)
    with serving(path, env=one_thread(tmp_path)) as server:
        data = np.ones((128, 1024), np.float32).tolist()
        failures: list[Exception] = []

        def ask() -> None:
            try:
                server.infer("slow", {"x": ("FP32", data)})
            except httpx.HTTPError as error:
                failures.append(error)

        client = threading.Thread(target=ask)
        client.start()
        wait_until_busy(server)
        server.popen.send_signal(signal.SIGTERM)
        server.wait_for("stopping:")
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
        client.join()
        assert failures


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: (folder / "m/1/model.onnx").write_bytes(b"garbage"), "model.onnx"),
        (lambda folder: (folder / "m/1/model.onnx").unlink(), "expected a file model.onnx"),
        (
            lambda folder: (folder / "m/1/driftline.toml").write_text(
                "[batching]\nmax_batch_rows = 'many'\n"
            ),
            "driftline.toml: batching.max_batch_rows = 'many': expected a whole number from 0",
        ),
        (
            lambda folder: (folder / "m/1/driftline.toml").write_text("[engine]\ndevice = 'tpu'\n"),
            "engine.device = 'tpu': expected 'cpu', 'cuda', 'cuda:N', 'cuda:N,M', 'cuda:all' or 'auto'",
        ),
    ],
    ids=["corrupt", "missing", "setting", "device"],
)
def test_what_cannot_be_served_ends_the_start_with_one_line(
    registry: Registry, prepare: object, message: str
) -> None:
    assert callable(prepare)
    prepare(Path(registry.uri))
    ended = run("serve", "m", "--registry", registry.uri, "--port", "0", "--log-level", "warning")
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert line.startswith("driftline: ")
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no model 'nothing'"),
        (["m@champion"], "model 'm' has no alias 'champion'; it has: none"),
        (["m:7"], "model 'm' has no version 7; it has: 1"),
        (["m:x"], "version 'x': expected a whole number from 1"),
        (["../m"], "../m: expected a model's name"),
        (["nothing.onnx"], "nothing.onnx"),
    ],
)
def test_wrong_references_are_named(registry: Registry, arguments: list[str], message: str) -> None:
    ended = run("serve", *arguments, "--registry", registry.uri, "--port", "0")
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_taken_port_is_named(registry: Registry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("serve", "m", "--registry", registry.uri, "--port", str(port))
    assert ended.returncode == 2
    assert f"can't listen on 127.0.0.1:{port}" in ended.stderr


def test_flags_beat_the_environment_beats_the_file(tmp_path: Path, registry: Registry) -> None:
    config = tmp_path / "driftline.toml"
    config.write_text(
        f'[server]\nregistry = "{registry.uri}"\nmax_body_bytes = 50\n'
        "[models.m.batching]\nmax_batch_rows = 4\n"
    )
    with serving("m", env={"DRIFTLINE_CONFIG": str(config)}) as server:
        assert server.get("/v2/models/m/config").json()["max_batch_size"] == 4
        assert server.infer("m", ROW).status_code == 413
    with serving("m", env={"DRIFTLINE_CONFIG": str(config), "DRIFTLINE_MAX_BODY_BYTES": "10000"}) as server:
        assert server.infer("m", ROW).status_code == 200
    with serving(
        "m",
        "--max-body-bytes",
        "1",
        env={"DRIFTLINE_CONFIG": str(config), "DRIFTLINE_MAX_BODY_BYTES": "10000"},
    ) as server:
        assert server.infer("m", ROW).status_code == 413


def test_an_arrow_stream_is_answered_with_one(registry: Registry) -> None:
    sink = pa.BufferOutputStream()
    rows = pa.table({f"x_{index}": np.arange(300, dtype=np.float32) for index in range(3)})
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=100)
    headers = {"content-type": "application/vnd.apache.arrow.stream"}
    with serving("m", "--registry", registry.uri) as server:
        answer = server.post("/v2/models/m/infer", content=sink.getvalue().to_pybytes(), headers=headers)
        assert answer.headers["content-type"] == headers["content-type"]
        outputs = pa.ipc.open_stream(answer.content).read_all()
        assert outputs["y_2"].to_pylist() == [2.0 * row for row in range(300)]
        refused = server.post("/v2/models/m/infer", content=b"x", headers=headers)
        assert refused.status_code == 400
        assert "not a valid Arrow stream" in refused.json()["error"]


def test_the_access_log_is_off_unless_it_is_wanted(registry: Registry) -> None:
    for wanted in (False, True):
        with serving("m", "--registry", registry.uri, *(["--access-log"] if wanted else [])) as server:
            server.infer("m", ROW)
            assert server.stop() == 0
            server.close()
            assert any("POST /v2/models/m/infer" in line for line in server.log) == wanted


def test_prometheus_can_read_the_metrics(tmp_path: Path, registry: Registry) -> None:
    registry.register([gather(tmp_path / "model.onnx")], "g")
    with serving("--registry", registry.uri) as server:
        for _ in range(3):
            server.infer("m", ROW)
        server.infer("g", {"i": ("INT64", [99])})
        text = server.get("/metrics").text
    # This parser puts _total behind every counter; Triton's names, as served, have none.
    samples = {
        (sample.name.removesuffix("_total"), *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    m, g = (("model", "m"), ("version", "1")), (("model", "g"), ("version", "1"))
    assert samples["nv_inference_request_success", *m] == 3
    assert samples["nv_inference_count", *m] == 3
    assert samples["nv_inference_request_failure", *g[:1], ("reason", "OTHER"), *g[1:]] == 1
    assert samples["driftline_request_duration_seconds_count", ("model", "m")] == 3
    assert samples["driftline_model_version_info", ("aliases", ""), ("default", "true"), *m] == 1
    assert "# TYPE nv_inference_request_success counter" in text


def test_nothing_a_client_sends_ends_the_process(registry: Registry, tmp_path: Path) -> None:
    registry.register([identity(tmp_path / "model.onnx", "BYTES")], "words")
    with serving("--registry", registry.uri, "--max-body-bytes", "1000") as server:
        host, port = server.address.split(":")
        for raw in (
            b"",
            b"\x00\xff" * 100,
            b"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
            b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\nhalf",
            b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
            b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"3e8\r\n"
            + b"x" * 1000
            + b"\r\n3e8\r\n",
            b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
        ):
            with socket.create_connection((host, int(port)), timeout=10) as client:
                client.sendall(raw)
        too_large = server.post("/v2/models/m/infer", content=b"x" * 1001)
        assert too_large.status_code == 413
        assert "expected at most 1000 bytes, got 1001" in too_large.json()["error"]
        assert server.get("/v2/models/m/infer").status_code == 405
        assert server.get("/nothing").status_code == 404
        assert server.post("/v2/models/m/infer", content=b"{").status_code == 400
        assert server.infer("m", ROW).status_code == 200
