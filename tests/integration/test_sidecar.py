"""A server with `driftline monitor --upstream` beside it: what passes is the same, and is watched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from click.testing import CliRunner, Result
from onnx_models import scale
from scraping import Scrape
from server_process import Process, infer_request, receiver, serving
from sidecar_process import SidecarProcess, monitoring
from waiting import until

from driftline.cli import main
from driftline.monitor.reference.profile import Profile
from driftline.registry.source import Registry

RANDOM = np.random.default_rng(0)
REFERENCE = RANDOM.standard_normal((5000, 3)).astype(np.float32)
WATCHING = ("--look-rows", "100", "--look-seconds", "0", "--false-alarm-rows", "100000", "--model", "m")


def profile_in(folder: Path) -> Path:
    path = folder / "profile.arrow"
    Profile.fit({"x": REFERENCE, "total": 2 * REFERENCE.sum(axis=1)}).save(path)
    return path


def kept(folder: Path) -> tuple[str | Path, ...]:
    return "--checkpoint", folder / "kept", "--checkpoint-seconds", "0.1"


def until_kept(folder: Path) -> None:
    """Wait for two checkpoints: the second was begun after this call."""
    for _ in range(2):
        written = (folder / "kept").stat().st_mtime_ns
        until(lambda written=written: (folder / "kept").stat().st_mtime_ns > written, "a checkpoint")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sidecar")


@pytest.fixture(scope="module")
def profile(folder: Path) -> Path:
    return profile_in(folder)


@pytest.fixture(scope="module")
def server(folder: Path, profile: Path) -> Iterator[Process]:
    registry = Registry.open(folder / "models")
    for name in ("m", "other"):
        registry.register([scale(folder / "model.onnx", 2.0), profile], name)
    with serving("--registry", registry.uri) as process:
        yield process


@pytest.fixture(scope="module")
def agent(folder: Path, profile: Path, server: Process) -> Iterator[SidecarProcess]:
    with monitoring(profile, server.url, *WATCHING, *kept(folder)) as process:
        yield process


def send(url: str, rows: np.ndarray, model: str = "m") -> None:
    with httpx.Client(base_url=url, timeout=30) as client:
        for part in np.array_split(rows, max(1, len(rows) // 250)):
            body = infer_request({"x": ("FP32", part.tolist())})
            client.post(f"/v2/models/{model}/infer", json=body).raise_for_status()


def observed(agent: SidecarProcess) -> int:
    return int(Scrape(agent)("driftline_exchanges_total", outcome="observed"))


@pytest.mark.parametrize("binary", [False, True])
def test_a_client_of_triton_can_not_tell_the_difference(
    server: Process, agent: SidecarProcess, binary: bool
) -> None:
    before = observed(agent)
    rows = RANDOM.standard_normal((7, 3)).astype(np.float32)
    answers = []
    for address in (server.address, agent.traffic.removeprefix("http://")):
        with triton.InferenceServerClient(address) as client:
            tensor = triton.InferInput("x", [7, 3], "FP32")
            tensor.set_data_from_numpy(rows, binary_data=binary)
            outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("y", "total")]
            for compression in (None, "gzip"):
                answer = client.infer(
                    "m", [tensor], outputs=outputs, request_compression_algorithm=compression
                )
                tensors = [answer.as_numpy(name).tobytes() for name in ("y", "total")]
                answers.append([answer.get_response(), *tensors])
            answers.append([client.get_model_metadata("m"), client.is_server_ready()])
    assert answers[:3] == answers[3:]
    until(lambda: observed(agent) == before + 2, "both requests, observed")
    assert Scrape(agent)("driftline_rows_skipped_total") == 0


def test_other_protocols_and_errors_pass_as_they_are(server: Process, agent: SidecarProcess) -> None:
    before = observed(agent)
    split = {"columns": ["a", "b", "c"], "data": [[1, 2, 3]]}
    same: list[tuple[str, dict[str, Any], int]] = [
        ("/v1/models/m:predict", {"json": {"instances": [[1, 2, 3]]}}, 200),
        ("/models/m/invocations", {"json": {"inputs": [[1, 2, 3]]}}, 200),
        ("/models/m/invocations", {"json": {"dataframe_split": split}}, 200),
        ("/v2/models/m/infer", {"content": b"{"}, 400),
        ("/v2/models/none/infer", {"json": {}}, 404),
        ("/models/m/invocations", {"content": b"", "headers": {"content-type": "text/none"}}, 415),
    ]
    for path, content, status in same:
        direct = server.post(path, **content)
        through = httpx.post(agent.traffic + path, timeout=30, **content)
        assert (direct.status_code, direct.content) == (through.status_code, through.content)
        assert direct.status_code == status, direct.text
        assert direct.headers.keys() == through.headers.keys()
    until(lambda: observed(agent) >= before + 2, "those that could be read")
    assert Scrape(agent)("driftline_proxy_dropped_total", reason="status") >= 3


def test_what_is_asked_of_another_model_is_left_out(agent: SidecarProcess) -> None:
    rows = Scrape(agent)("driftline_rows_observed_total")
    send(agent.traffic, REFERENCE[:10], "other")
    until(lambda: Scrape(agent)("driftline_exchanges_total", outcome="other model") == 1, "the other")
    assert Scrape(agent)("driftline_rows_observed_total") == rows


@pytest.mark.parametrize("stopped", [False, True])
def test_a_burst_is_alarmed_though_nothing_comes_behind_it(
    server: Process, profile: Path, stopped: bool
) -> None:
    with receiver() as (url, events):
        with monitoring(profile, server.url, "--alarm-webhook", url, "--model", "m") as agent:
            send(agent.traffic, RANDOM.standard_normal((4800, 3)) + 1.0)
            if not stopped:
                until(lambda: len(events) == 4, "all alarms")
            assert agent.stop() == 0
        assert sorted(event["subject"] for _, event in events) == ["total", "x_0", "x_1", "x_2"]


def test_drift_is_found_where_the_server_does_not_look(server: Process, agent: SidecarProcess) -> None:
    assert agent.get("/drift").json()["alarms"] == []
    drifted = RANDOM.standard_normal((3000, 3)).astype(np.float32)
    drifted[:, 1] += 1.0
    send(agent.traffic, drifted)

    def alarmed() -> bool:
        found = agent.get("/v2/models/m/drift").json()
        return "x_1" in [signal["column"] for signal in found["alarms"]]

    until(alarmed, "an alarm")
    assert Scrape(agent)("driftline_alarms_total", column="x_1", model="m") >= 1
    assert agent.get("/v2/models/none/drift").status_code == 404


def test_large_bodies_pass_unobserved(server: Process, agent: SidecarProcess) -> None:
    rows = RANDOM.standard_normal((60_000, 3)).astype(np.float32)
    body = infer_request({"x": ("FP32", rows.tolist())})
    answer = httpx.post(f"{agent.traffic}/v2/models/m/infer", json=body, timeout=60)
    assert len(answer.json()["outputs"][1]["data"]) == 60_000
    assert Scrape(agent)("driftline_proxy_dropped_total", reason="large") == 1


def test_a_dead_agent_is_replaced_while_requests_pass(folder: Path, agent: SidecarProcess) -> None:
    rows = Scrape(agent)("driftline_rows_observed_total")
    until_kept(folder)
    (child,) = Path(f"/proc/{agent.popen.pid}/task/{agent.popen.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    agent.wait_for("another starts", 60)
    send(agent.traffic, REFERENCE[:10])
    until(lambda: sum('"ready: watching' in line for line in agent.log) == 2, "another agent", 90)
    send(agent.traffic, REFERENCE[:10])

    def goes_on() -> bool:
        return Scrape(agent)("driftline_rows_observed_total") >= rows + 10

    until(goes_on, "what was kept and what comes now")


def drift(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["drift", *arguments])


def test_a_stop_may_wait_until_clients_have_gone_elsewhere(server: Process, profile: Path) -> None:
    body = infer_request({"x": ("FP32", REFERENCE[:1].tolist())})
    with (
        monitoring(profile, server.url, *WATCHING, "--stop-delay-seconds", "1000") as agent,
        httpx.Client(base_url=agent.traffic, timeout=30) as client,
    ):
        assert "connection" not in client.post("/v2/models/m/infer", json=body).headers
        agent.popen.send_signal(signal.SIGTERM)
        closes = False
        while not closes:
            answer = client.post("/v2/models/m/infer", json=body)
            assert answer.status_code == 200
            closes = answer.headers.get("connection") == "close"
        assert client.post("/v2/models/m/infer", json=body).headers["connection"] == "close"  # on a new one
        assert agent.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    with monitoring(profile, server.url, *WATCHING, "--stop-delay-seconds", "0.2") as agent:
        assert agent.stop() == 0


def test_the_report_of_a_fleet(profile: Path, server: Process, agent: SidecarProcess, tmp_path: Path) -> None:
    """The server watches by the same profile, and its window is added to the agent's."""

    def rows(url: str) -> int:
        return int(httpx.get(f"{url}/v2/models/m/drift", timeout=30).json()["rows"])

    until(lambda: server.get("/v2/models/m/drift").status_code == 200, "the server's own monitor")
    send(agent.traffic, REFERENCE[:100])
    until(lambda: Scrape(agent)("driftline_proxy_waiting") == 0, "what waits")
    expected = rows(server.url) + rows(agent.url)
    done = drift(server.url, agent.url, "--model", "m", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    (found,) = json.loads(done.stdout)["reports"]
    assert (found["model"], found["rows"], len(found["agents"])) == ("m", expected, 2)
    table = drift(agent.url, "http://127.0.0.1:1", server.url)
    assert table.exit_code == 1
    assert "m: drift, of 2 servers together" in table.stdout
    assert "other: drift\n" in table.stdout
    assert "x_1" in table.stdout
    assert "http://127.0.0.1:1 is left out" in table.stderr
    page = tmp_path / "drift.html"
    assert drift(server.url, agent.url, "-o", str(page)).exit_code == 0
    assert "<h1>m: drift, of 2 servers together</h1>" in page.read_text()
    assert list(tmp_path.iterdir()) == [page]
    refused = drift(server.url, "-o", str(tmp_path / "drift.pdf"))
    assert (refused.exit_code, "expected a name that ends in .html" in refused.stderr) == (2, True)


def test_a_browser_sees_a_page(server: Process, agent: SidecarProcess) -> None:
    browser = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    for url, title in ((server.url, "m 1: drift"), (agent.url, "m: drift")):
        until(lambda url=url: httpx.get(f"{url}/v2/models/m/drift").status_code == 200, "the monitor")  # type: ignore[misc]
        page = httpx.get(f"{url}/v2/models/m/drift", headers=browser)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["vary"] == "accept"
        assert f"<title>{title}</title>" in page.text
        missing = httpx.get(f"{url}/v2/models/none/drift", headers=browser)
        assert (missing.status_code, "error" in missing.json()) == (404, True)


def test_what_can_not_begin_says_why(folder: Path, server: Process) -> None:
    wrong = folder / "wrong.arrow"
    wrong.write_bytes(b"no profile")
    cases = {
        ("--profile", str(wrong), "--upstream", "https://h"): "expected an http:// URL of a server",
        ("--profile", str(folder / "none"), "--upstream", server.url): "expected a file, there is none",
    }
    for arguments, message in cases.items():
        done = CliRunner().invoke(main, ["monitor", *arguments])
        assert (done.exit_code, message in done.stderr) == (2, True), done.stderr
    command = [sys.executable, "-m", "driftline", "monitor", "--port", "0", "--proxy-port", "0"]
    cases = {  # these have begun to log
        ("--profile", str(wrong), "--upstream", server.url): "expected a profile",
        ("--profile", str(wrong)): "expected a source: --upstream URL",
        ("--profile", str(wrong), "--listen", "--checkpoint", str(wrong)): "no file, got something else",
        ("--profile", str(wrong), "--upstream", server.url, "--checkpoint", str(wrong)): "something else",
        ("--profile", str(wrong), "--listen", "--checkpoint", "/nonexist/x"): "/nonexist is none",
    }
    for arguments, message in cases.items():
        started = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)
        assert started.returncode == 2, started.stderr
        assert message in started.stderr
        assert "Traceback" not in started.stderr
    assert wrong.read_bytes() == b"no profile"


def test_all_is_killed_and_comes_back(
    folder: Path, profile: Path, server: Process, agent: SidecarProcess
) -> None:
    """First the upstream, then the agent, whose checkpoint has all. The last test: it takes both."""
    port = server.url.rpartition(":")[2]
    server.popen.kill()
    server.popen.wait()
    body = infer_request({"x": ("FP32", REFERENCE[:1].tolist())})
    answer = httpx.post(f"{agent.traffic}/v2/models/m/infer", json=body, timeout=30)
    assert answer.status_code == 502
    assert "can't be reached: Connection refused" in answer.json()["error"]
    drifted = REFERENCE[:1000] + np.array([0, 1, 0], np.float32)
    with serving("m", "--registry", folder / "models", "--port", port):
        send(agent.traffic, drifted)
        until(lambda: agent.get("/drift").json()["alarms"], "an alarm")
        until(lambda: Scrape(agent)("driftline_proxy_waiting") == 0, "what waits")
        before = agent.get("/drift").json()
        until_kept(folder)
        agent.kill_all()
        with monitoring(profile, server.url, *WATCHING, *kept(folder)) as second:
            after = second.get("/drift").json()
            for key in ("rows", "began", "alarms", "changes", "columns"):
                assert after[key] == before[key], key
            send(second.traffic, drifted[:10])
            until(lambda: second.get("/drift").json()["rows"] == before["rows"] + 10, "more rows")
            assert second.stop() == 0  # and is written once more
            second.close()
            assert '"stopped"' in second.log[-1]
