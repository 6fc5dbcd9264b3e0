"""`driftline monitor --listen` and `--files`: what KServe's logger and ours send and write."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx_models import scale
from prometheus_client.parser import text_string_to_metric_families
from server_process import Process, infer_request, serving
from structured import to_structured
from waiting import until

from driftline.monitor.reference.profile import Profile
from driftline.protocols.cloudevents import Event, Fields, to_batch, to_binary
from driftline.registry.source import Registry

RANDOM = np.random.default_rng(0)
REFERENCE = RANDOM.standard_normal((5000, 3)).astype(np.float32)
SHARP = ("--look-rows", "100", "--look-seconds", "0", "--false-alarm-rows", "100000")


@contextmanager
def monitoring(profile: Path, *arguments: str | Path) -> Iterator[Process]:
    """`driftline monitor ARGUMENTS` on a free port of its own, ready; killed if it is still there."""
    command = [sys.executable, "-m", "driftline", "monitor", "--profile", profile, *arguments, *SHARP]
    with subprocess.Popen(
        [*map(str, command), "--port", "0", "--log-format", "json"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    ) as popen:
        process = Process(popen)
        try:
            process.wait_for("ready: watching", 60)
            yield process
        finally:
            process.close()


def metrics(agent: Process) -> dict[str, float]:
    """All but what has other labels, by `name` or `name outcome`."""
    families = text_string_to_metric_families(agent.get("/metrics").text)
    return {
        " ".join(filter(None, (sample.name, sample.labels.get("outcome", "")))): sample.value
        for family in families
        for sample in family.samples
    }


def rows(agent: Process) -> int:
    return int(agent.get("/drift").json()["rows"])


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("events") / "m.arrow"
    Profile.fit({"x": REFERENCE, "total": 2 * REFERENCE.sum(axis=1)}).save(path)
    return path


@pytest.fixture(scope="module")
def listening(profile: Path) -> Iterator[tuple[Process, tuple[str | Path, ...]]]:
    """An agent that listens, and the flags with which another goes on after it."""
    checkpoint = ("--checkpoint", profile.parent / "checkpoint", "--checkpoint-seconds", "0.1")
    flags = ("--listen", "--model", "m", *checkpoint)
    with monitoring(profile, *flags) as agent:
        yield agent, flags


# -- KServe's logger --------------------------------------------------------------------------------


def kserve(kind: str, name: str, body: bytes, content_type: str = "application/json") -> Event:
    """An event as pkg/logger/worker.go makes it."""
    attributes = {
        "id": name, "source": "m-predictor-5d9f", "type": f"org.kubeflow.serving.inference.{kind}",
        "time": "2026-11-24T10:11:12.123456789Z", "inferenceservicename": "m", "namespace": "prod",
        "component": "predictor", "endpoint": "default", "metadata": "{}",
    }  # fmt: skip
    return Event(attributes, content_type, body)


def halves(name: str, form: str, values: np.ndarray) -> tuple[Event, Event]:
    """A request of one row and its answer; whatever the answer is, it has the request's content type."""
    row = values.astype(np.float32).reshape(1, 3)
    total = 2 * row.sum(axis=1)
    answer = {"outputs": [{"name": "total", "datatype": "FP32", "shape": [1], "data": total.tolist()}]}
    if form == "json":
        request = infer_request({"x": ("FP32", row.tolist())})
        return kserve("request", name, json.dumps(request).encode()), kserve(
            "response", name, json.dumps(answer).encode()
        )
    if form == "v1":  # without names: the profile's columns, in order
        request = {"instances": row.tolist()}
        return kserve("request", name, json.dumps(request).encode()), kserve(
            "response", name, json.dumps({"predictions": total.tolist()}).encode()
        )
    binary = "application/octet-stream"
    sized = {"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}
    asked = kserve("request", name, json.dumps({"inputs": [sized]}).encode() + row.tobytes(), binary)
    if form == "binary":  # and the answer is JSON
        return asked, kserve("response", name, json.dumps(answer).encode(), binary)
    sized = {"name": "total", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}
    body = json.dumps({"outputs": [sized]}).encode() + total.astype(np.float32).tobytes()
    return asked, kserve("response", name, body, binary)


def post(client: httpx.Client, sent: tuple[Fields, bytes]) -> int:
    fields, body = sent
    return client.post("/", headers=fields, content=body).status_code


def test_a_replay_of_kserves_logger_in_disorder(
    listening: tuple[Process, tuple[str | Path, ...]],
) -> None:
    agent, _ = listening
    order = random.Random(0)
    forms = ["json", "v1", "binary", "both binary"] * 50
    pairs = [halves(str(n), form, RANDOM.standard_normal(3)) for n, form in enumerate(forms)]
    events = [event for pair in pairs for event in pair]
    lost = [events.pop(index) for index in sorted(order.sample(range(len(events)), 20), reverse=True)]
    whole = len(pairs) - len({event.id for event in lost})
    twice = order.sample(events, 30)
    events += twice
    order.shuffle(events)
    with httpx.Client(base_url=agent.url, timeout=30) as client:
        for event in events[:100]:
            assert post(client, to_binary(event)) == 200
        for event in events[100:200]:
            assert post(client, to_structured(event)) == 200
        for first in range(200, len(events), 32):
            assert post(client, to_batch(events[first : first + 32])) == 200
        until(lambda: metrics(agent)["driftline_events_queued"] == 0, "an empty queue")
        until(lambda: rows(agent) == whole, f"{whole} rows")
        found = metrics(agent)
        assert found["driftline_halves_total joined"] == 2 * whole
        assert found["driftline_halves_total duplicate"] == 30
        assert found["driftline_halves_total late"] > 0
        assert found["driftline_events_total taken"] == len(events)
        assert found["driftline_exchanges_total failed"] == 0
        report = agent.get("/drift").json()
        assert {column["name"] for column in report["columns"]} == {"x_0", "x_1", "x_2", "total"}
        # Malformed ones are said to be, and counted.
        wrong = client.post("/events", headers={"ce-id": "1"}, content=b"{}")
        assert wrong.status_code == 400
        assert "'specversion': expected '1.0', got nothing" in wrong.json()["error"]
        assert client.get("/events").status_code == 405
        assert metrics(agent)["driftline_events_total malformed"] == 1


def test_what_comes_too_late_and_too_much_is_counted(profile: Path) -> None:
    flags = ("--listen", "--join-seconds", "0.05", "--event-queue-bytes", "20000")
    with monitoring(profile, *flags) as agent, httpx.Client(base_url=agent.url, timeout=30) as client:
        request, response = halves("1", "json", np.zeros(3))
        post(client, to_binary(response))
        until(
            lambda: (post(client, to_binary(halves(str(random.random()), "json", np.zeros(3))[1])),
                     metrics(agent)["driftline_halves_total expired"])[1] >= 1, "what has expired",
        )  # fmt: skip
        assert post(client, to_batch([request] * 100)) == 503
        found = metrics(agent)
        assert found["driftline_events_total refused"] == 100
        assert agent.stop() == 0


# -- ours -------------------------------------------------------------------------------------------


def send(server: Process, values: np.ndarray) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for row in values:
            request = infer_request({"x": ("FP32", [row.tolist()])})
            client.post("/v2/models/m/infer", json=request).raise_for_status()


def test_drift_is_found_through_our_own_log(
    profile: Path, tmp_path: Path, listening: tuple[Process, tuple[str | Path, ...]]
) -> None:
    """The last that listens: it takes the agent."""
    registry = Registry.open(tmp_path / "models")
    registry.register([scale(tmp_path / "model.onnx", 2.0)], "m")
    agent, flags = listening
    before = rows(agent)
    logging = ("--workers", "2", "--log-payloads", "all", "--log-sink", agent.url)
    with serving("--registry", registry.uri, *logging) as server:
        send(server, RANDOM.standard_normal((300, 3)))
        until(lambda: rows(agent) == before + 300, "300 rows")
        assert agent.get("/drift").json()["alarms"] == []
        for sent in range(400, 4000, 100):  # looks are a second apart, and fall behind rows that come
            send(server, RANDOM.standard_normal((100, 3)) + np.array([1.5, 0, 0]))
            until(lambda sent=sent: rows(agent) == before + sent, f"{sent} rows")
            if {"x_0", "total"} <= set(map(str, _columns(agent.get("/drift").json()["alarms"]))):
                break
        else:
            pytest.fail("no alarm of x_0 and of total")
        assert metrics(agent)["driftline_exchanges_total failed"] == 0
        assert server.stop() == 0
    agent.wait_for("alarm of column x_0")
    kept = profile.parent / "checkpoint"
    for _ in range(2):  # the second is begun after all were counted
        written = kept.stat().st_mtime_ns
        until(lambda written=written: kept.stat().st_mtime_ns > written, "a checkpoint")
    assert agent.stop(signal.SIGKILL) == -signal.SIGKILL
    with monitoring(profile, *flags) as agent:
        assert rows(agent) == before + sent
        assert agent.stop() == 0


def test_what_our_server_wrote_is_read_each_row_once_whatever_is_killed(
    profile: Path, tmp_path: Path
) -> None:
    registry, folder = Registry.open(tmp_path / "models"), tmp_path / "logged"
    registry.register([scale(tmp_path / "model.onnx", 2.0)], "m")
    watching = ("--files", folder, "--checkpoint", tmp_path / "checkpoint", "--checkpoint-seconds", "0.05")
    flags = ("--log-payloads", "all", "--log-sink", folder, "--log-file-seconds", "0.3")
    with serving("--registry", registry.uri, *flags) as server:
        with monitoring(profile, *watching) as agent:
            send(server, RANDOM.standard_normal((100, 3)))
            until(lambda: rows(agent) > 0, "some rows")
            send(server, RANDOM.standard_normal((100, 3)))
            assert agent.stop(signal.SIGKILL) == -signal.SIGKILL
        with monitoring(profile, *watching) as agent:
            send(server, RANDOM.standard_normal((100, 3)))
            until(lambda: rows(agent) >= 300, "all rows")
            assert rows(agent) == 300
            assert metrics(agent)["driftline_exchanges_total failed"] == 0
            assert agent.stop() == 0
        assert server.stop() == 0


def _columns(signals: list[Any]) -> list[str]:
    return [one["column"] if isinstance(one, dict) else one for one in signals]


def test_a_client_that_leaves_with_posts_unanswered_is_no_line(profile: Path) -> None:
    row = json.dumps({"instances": [[1.0, 2.0, 3.0]]})
    head = (
        f"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {len(row)}\r\n\r\n"  # no event: refused, the long way
    )
    with monitoring(profile, "--listen") as agent:
        host, _, port = agent.address.partition(":")
        with socket.create_connection((host, int(port)), timeout=3) as client, suppress(TimeoutError):
            for _ in range(100):
                client.sendall((head + row).encode() * 1000)
        until(lambda: agent.get("/metrics").status_code == 200, "an answer")
        assert agent.stop() == 0
        agent.close()
        assert not [line for line in agent.log if "Traceback" in line]
