"""Servers that log what they are asked and what they answer, whatever protocol and lane it comes by."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx_models import scale
from payload_sink import EventReceiver, receiving
from prometheus_client.parser import text_string_to_metric_families
from server_process import Process, infer_request, serving
from waiting import until

from driftline.protocols.payloads import Payload, of_event, of_table
from driftline.registry.source import Registry

ROW = json.dumps(infer_request({"x": ("FP32", [[1.0, 2.0, 3.0]])})).encode()
BINARY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}],
     "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
).encode()  # fmt: skip
INFER, TABLE = "/v2/models/m/infer", pa.table({f"x_{i}": [float(i)] for i in range(3)})


def arrow() -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return sink.getvalue().to_pybytes()


REQUESTS: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "v2": (INFER, ROW, {"content-type": "application/json"}),
    "a version": ("/v2/models/m/versions/1/infer", ROW, {}),
    "binary": (
        INFER, BINARY + np.arange(3, dtype="<f4").tobytes(),
        {"content-type": "application/octet-stream", "inference-header-content-length": str(len(BINARY))},
    ),
    "v1": ("/v1/models/m:predict", b'{"instances": [[1, 2, 3]]}', {"content-type": "application/json"}),
    "MLflow": ("/invocations", b'{"inputs": [[1, 2, 3]]}', {"content-type": "application/json"}),
    "CSV": ("/models/m/invocations", b"a,b,c\n1,2,3\n", {"content-type": "text/csv"}),
    "Arrow": (INFER, arrow(), {"content-type": "application/vnd.apache.arrow.stream"}),
    "answered compressed, logged as it was before": (
        INFER, json.dumps(infer_request({"x": ("FP32", [[1.0, 2.0, 3.0]] * 500)})).encode(),
        {"content-type": "application/json", "accept-encoding": "gzip"},
    ),
    "refused": (INFER, b'{"inputs": []}', {"content-type": "application/json"}),
}  # fmt: skip


def metrics(server: Process) -> dict[str, float]:
    families = text_string_to_metric_families(server.get("/metrics").text)
    found = {sample.name: sample.value for family in families for sample in family.samples}
    return {name: value for name, value in found.items() if name.startswith("driftline_payloads")}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    root = tmp_path_factory.mktemp("payloads")
    registry = Registry.open(root / "models")
    registry.register([scale(root / "model.onnx", 2.0)], "m")
    return registry


@pytest.fixture(scope="module")
def logged(registry: Registry) -> Iterator[tuple[Process, EventReceiver]]:
    with receiving() as receiver:
        flags = ("--log-payloads", "all", "--log-sink", receiver.url, "--log-namespace", "prod")
        with serving("--registry", registry.uri, *flags) as server:
            yield server, receiver
            assert server.stop() == 0
        assert "secret" not in "".join(server.log)


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("lane", ["fast", "slow"])
def test_every_protocol_is_logged_as_it_went_over_the_wire(
    logged: tuple[Process, EventReceiver], name: str, lane: str
) -> None:
    server, receiver = logged
    path, body, headers = REQUESTS[name]
    number = f"{name}-{lane}"
    # A query is nothing that the fast lane would take.
    answer = server.post(
        path + ("?a" if lane == "slow" else ""), content=body, headers={**headers, "ce-id": number}
    )
    halves = 1 if name == "refused" else 2
    assert answer.is_success is (halves == 2), answer.text
    assert answer.headers.get("content-encoding") == headers.get("accept-encoding")

    def come() -> list[Any]:
        return [event for event in receiver.events if event.id == number]

    until(lambda: len(come()) == halves, "the halves")
    payloads = {payload.type: payload for payload in map(of_event, come())}
    request = payloads["request"]
    assert request.body == body
    assert request.content_type == headers.get("content-type", "")
    assert request.json_length == (len(BINARY) if name == "binary" else None)
    assert (request.model, request.version) == ("m", "1" if halves == 2 else "")
    assert all(event.attributes["namespace"] == "prod" for event in come())
    if halves == 2:
        response = payloads["response"]
        assert response.body == answer.content
        assert response.content_type == request.content_type  # as KServe's logger will have it
        length = answer.headers.get("inference-header-content-length")
        assert response.json_length == (int(length) if length else None)


def test_what_runs_together_is_logged_one_by_one(logged: tuple[Process, EventReceiver]) -> None:
    server, receiver = logged
    before = len(receiver.events)
    rows = [[float(row), 0.0, 0.0] for row in range(64)]
    bodies = [json.dumps(infer_request({"x": ("FP32", [row])})).encode() for row in rows]

    async def ask() -> list[bytes]:
        async def one(session: aiohttp.ClientSession, body: bytes) -> bytes:
            async with session.post(server.url + INFER, data=body) as answer:
                return await answer.read()

        async with aiohttp.ClientSession() as session:
            return list(await asyncio.gather(*(one(session, body) for body in bodies * 4)))

    answers = asyncio.run(ask())
    found = receiver.wait(before + 2 * len(answers))[before:]
    pairs: dict[str, dict[str, bytes]] = {}
    for payload in map(of_event, found):
        pairs.setdefault(payload.id, {})[payload.type] = payload.body
    assert sorted(pair["request"] for pair in pairs.values()) == sorted(bodies * 4)
    expected = dict(zip(bodies * 4, answers, strict=True))
    assert all(pair["response"] == expected[pair["request"]] for pair in pairs.values())


def test_metrics_count_what_became_of_payloads(logged: tuple[Process, EventReceiver]) -> None:
    server, receiver = logged
    server.post(INFER, content=ROW)
    found = until(lambda: (one := metrics(server))["driftline_payloads_queued"] == 0 and one, "all sent")
    assert found["driftline_payloads_sent_total"] == len(receiver.events)
    assert found["driftline_payloads_dropped_total"] == found["driftline_payloads_queued_bytes"] == 0


def rows(folder: Path) -> list[Payload]:
    return [one for file in sorted(folder.glob("*.parquet")) for one in of_table(pq.read_table(file))]


def test_workers_log_to_files_and_one_that_is_killed_loses_only_what_waited(
    registry: Registry, tmp_path: Path
) -> None:
    config = tmp_path / "driftline.toml"
    config.write_text('[server]\nlog_payloads = "all"\nlog_file_seconds = 0.5\n')
    folder = tmp_path / "logged"
    env = {"DRIFTLINE_CONFIG": str(config), "DRIFTLINE_LOG_SINK": str(folder)}
    with serving("--registry", registry.uri, "--workers", "2", env=env) as server:
        for number in range(20):  # each over a connection of its own, so that both are asked
            server.post(INFER, content=ROW, headers={"ce-id": str(number)}).raise_for_status()
        until(lambda: len(rows(folder)) == 40, "the files")
        assert len({file.stem.rpartition("-")[2] for file in folder.iterdir()}) == 2
        sent = until(lambda: (one := metrics(server))["driftline_payloads_sent_total"] == 40 and one, "40")
        assert sent["driftline_payloads_queued"] == 0
        worker = psutil.Process(server.popen.pid).children()[0]
        os.kill(worker.pid, signal.SIGKILL)
        until(lambda: len(psutil.Process(server.popen.pid).children()) == 2, "another worker")

        def asked() -> bool:
            try:
                return server.post(INFER, content=ROW, headers={"ce-id": "last"}).is_success
            except httpx.HTTPError:  # of a connection that the killed one held
                return False

        until(asked, "an answer")
        assert metrics(server)["driftline_payloads_sent_total"] >= 40
        assert server.stop() == 0
    found = rows(folder)  # what waited at the end has been written
    assert {one.id for one in found} == {*map(str, range(20)), "last"}
    assert {(one.model, one.version, one.status) for one in found} == {("m", "1", 200)}
    assert not list(folder.glob(".*"))


def test_a_sink_that_is_away_slows_nobody_and_costs_no_memory(registry: Registry) -> None:
    with receiving() as receiver:
        url = receiver.url
    flags = ("--log-payloads", "all", "--log-sink", url, "--log-queue-bytes", "1000000")
    with serving("--registry", registry.uri, *flags) as server:
        large = json.dumps(infer_request({"x": ("FP32", [[1.0, 2.0, 3.0]] * 8000)})).encode()
        process = psutil.Process(server.popen.pid)
        with httpx.Client() as client:
            for number in range(500):
                client.post(server.url + INFER, content=large, timeout=60).raise_for_status()
                if number == 100:
                    before = process.memory_info().rss
        found = metrics(server)
        assert process.memory_info().rss - before < 80 * 2**20  # Numba is being loaded, too
        dropped = found["driftline_payloads_dropped_total"]
        # On a busy machine some are skipped for want of time, before they could wait.
        assert dropped > 100
        assert dropped + found["driftline_payloads_skipped_total"] > 900
        held = 4 * 3 * len(large)  # an exchange at each of the sink's connections
        assert 0 < found["driftline_payloads_queued_bytes"] <= 1_000_000 + held
        assert server.stop() == 0
        assert any("could not be posted to 127.0.0.1" in line for line in server.log)


def test_a_wrong_setting_ends_the_start(registry: Registry) -> None:
    for workers in ("1", "2"):
        command = [sys.executable, "-m", "driftline", "serve", "--registry", registry.uri, "--port", "0"]
        done = subprocess.run(
            [*command, "--workers", workers, "--log-payloads", "all"], capture_output=True, text=True
        )
        assert done.returncode == 2
        assert "--log-payloads: expected --log-sink, a URL or a folder, with it" in done.stderr
