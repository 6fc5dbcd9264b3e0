"""`driftline bench` and `driftline tune`, as a user types them, against real servers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest
from onnx_models import identity, scale
from server_process import Process, serving

from driftline.registry.source import Registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Two models: `double`, and `column` of strings."""
    folder = tmp_path_factory.mktemp("registry")
    registry = Registry.open(folder / "models")
    registry.register([scale(folder / "model.onnx", 2.0)], "double")
    registry.register([identity(folder / "model.onnx", "BYTES", ("N",))], "column")
    return registry


@pytest.fixture(scope="module")
def server(registry: Registry) -> Iterator[Process]:
    with serving("--registry", registry.uri) as process:
        yield process


def run(*arguments: object, code: int = 0) -> str:
    """What a command says, both ways; it must end with this code."""
    command = [sys.executable, "-m", "driftline", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def bench(server: Process, *arguments: object, code: int = 0) -> str:
    return run("bench", server.url, "--seconds", 0.3, "--warm-up", 0, *arguments, code=code)


def points(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["points"]
    return found


def requests_of(server: Process, model: str) -> int:
    """How many the server itself has counted."""
    stats = server.get(f"/v2/models/{model}/stats").json()["model_stats"]
    return sum(version["inference_stats"]["success"]["count"] for version in stats)


@pytest.mark.parametrize("form", [[], ["--binary"]])
@pytest.mark.parametrize("model", ["double", "column"])
def test_what_it_counts_is_what_the_server_counts(
    server: Process, tmp_path: Path, model: str, form: list[str]
) -> None:
    before = requests_of(server, model)
    json_file = tmp_path / "figures.json"
    options = ("--model", model, "--connections", 1, "--connections", 4, "--sender", "own", "--rows", 3)
    said = bench(server, *options, *form, "--json", json_file)
    measured = points(json_file)
    assert [point["connections"] for point in measured] == [1, 4]
    assert all(point["failures"] == {} for point in measured)
    once = 1  # it tries the request before
    assert sum(point["answered"] for point in measured) + once == requests_of(server, model) - before
    assert f"{model}, 3 rows as {'bytes' if form else 'JSON'}" in said
    assert "4 connections" in said


@pytest.mark.parametrize("tool", ["h2load", "wrk"])
def test_the_tools_count_the_same(server: Process, tmp_path: Path, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    before, json_file = requests_of(server, "double"), tmp_path / "figures.json"
    said = bench(server, "--model", "double", "--connections", 4, "--sender", tool, "--json", json_file)
    (point,) = points(json_file)
    assert f"sent by {tool}" in said
    assert point["failures"] == {}
    # What is in flight when a tool stops, it does not count.
    assert 0 <= requests_of(server, "double") - before - 1 - point["answered"] <= 4
    assert 0 < point["ms"]["p50"] <= point["ms"]["p99"] <= point["ms"]["max"]


def test_an_open_loop_sends_what_was_due_and_draws(server: Process, tmp_path: Path) -> None:
    json_file, plot_file = tmp_path / "figures.json", tmp_path / "figures.svg"
    options = ("--model", "double:1", "--rate", 20, "--rate", 40, "--json", json_file, "--plot", plot_file)
    said = bench(server, *options)
    assert [point["answered"] for point in points(json_file)] == [6, 12]
    assert "20/s" in said
    assert ElementTree.parse(plot_file).getroot().tag.endswith("svg")


def test_a_server_that_stalls_is_seen_in_the_tail(tmp_path: Path) -> None:
    path, json_file = scale(tmp_path / "m.onnx", 2.0), tmp_path / "figures.json"
    with serving(path) as server:
        command = [sys.executable, "-m", "driftline", "bench", server.url, "--seconds", "4", "--warm-up", "0"]
        with subprocess.Popen(
            [*command, "--rate", "50", "--json", str(json_file)], stdout=subprocess.DEVNULL
        ):
            while requests_of(server, "m") < 20:
                pass
            server.popen.send_signal(signal.SIGSTOP)
            time.sleep(1)  # the stall itself: nothing waits for this
            server.popen.send_signal(signal.SIGCONT)
    (point,) = points(json_file)
    assert point["answered"] == 200
    slow = sum(count for ms, count in point["histogram_ms"] if ms >= 500)
    assert slow >= 20  # of the 50 that were due in the stall, those of its first half waited so long
    assert point["ms"]["max"] >= 900


def test_the_knee_is_shown(server: Process, tmp_path: Path) -> None:
    json_file = tmp_path / "figures.json"
    options = ("--find-knee", "--p99-ms", 1000, "--rate", 400, "--connections", 16, "--json", json_file)
    said = bench(server, "--model", "double", *options)
    knee = json.loads(json_file.read_text())["knee"]
    assert knee["p99_ms"] == 1000
    assert knee["rate"] in [point["rate"] for point in points(json_file)]
    assert "knee: " in said
    assert any(point["failures"] or point["ms"]["p99"] > 1000 for point in points(json_file))


def test_ctrl_c_shows_what_was_measured_so_far(server: Process, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "driftline", "bench", server.url, "--model", "double"]
    before = requests_of(server, "double")
    with subprocess.Popen(
        [*command, "--sender", "own", "--seconds", "60", "--warm-up", "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        while requests_of(server, "double") < before + 50:
            pass
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: this is what was measured until then" in said
    assert "64 connections" in said


def test_a_body_of_ones_own(server: Process, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text('{"instances": [[1, 2, 3]]}')
    said = bench(server, "--body", body, "--path", "/v1/models/double:predict", "--rate", 20)
    assert "26 bytes to" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected --model, the server has: column, double"),
        (["--model", "none"], "has no model 'none'; it serves: column, double"),
        (["--model", "double:7"], "has no model 'double:7'"),
        (["--path", "/x"], "expected --body FILE with them"),
        (["--body", "{here}/none", "--path", "/x"], "none: No such file"),
        (["--body", "{here}/bad", "--path", "x"], "--path 'x': expected a path"),
        (["--body", "{here}/bad", "--path", "/x", "--content-type", "é"], "expected a media type"),
        (["--body", "{here}/bad", "--model", "double"], "expected an answer of status 2xx, got 400: "),
        (["--body", "{here}/bad", "--path", "/x"], "expected an answer of status 2xx, got 404: "),
        (["--model", "double", "--rate", "1", "--connections", "1", "--connections", "2"], "expected one"),
        (["--model", "double", "--find-knee", "--rate", "1", "--rate", "2"], "expected one --rate"),
        (["--model", "double", "--p99-ms", "1"], "expected --find-knee with it"),
        (["--model", "double", "--json", "{here}/no/x.json"], "expected a file in a folder that is there"),
    ],
)
def test_what_can_not_be_measured_is_said_in_a_line(
    server: Process, tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "bad").write_text("{}")
    said = bench(server, *(option.replace("{here}", str(tmp_path)) for option in options), code=2)
    assert message in said
    assert said.startswith("driftline: ")
    assert said.count("\n") == 1


def test_a_server_that_is_not_there_is_said_in_a_line() -> None:
    said = run("bench", "http://127.0.0.1:1", code=2)
    assert said.startswith("driftline: http://127.0.0.1:1/")
    assert "refused" in said


# -- tune ---------------------------------------------------------------------------------------------

ONE_CORE = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]


def tune(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [*ONE_CORE, sys.executable, "-m", "driftline", "tune", "m", "--p99-ms", "500", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, text=True, **pipes)


@pytest.mark.timeout(300)
def test_tune_writes_what_it_found_and_keeps_what_is_there(tmp_path: Path) -> None:
    # A model that is not batched, on one core: there is nothing to vary but what is there.
    Registry.open(tmp_path / "models").register([identity(tmp_path / "model.onnx", shape=(1, 3))], "m")
    settings = tmp_path / "driftline.toml"
    settings.write_text("# ours\n[server]\nport = 9000\n")
    with tune(tmp_path, "--seconds", "0.1") as process:
        said, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    assert settings.read_text().startswith("# ours\n[server]\nport = 9000\n\n")
    found = tomllib.loads(settings.read_text())["models"]["m"]
    assert found == {"batching": {"max_batch_rows": 128}, "engine": {"instances": 1, "threads": 0}}
    assert "as it was" in said
    assert "it is in driftline.toml" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tune_leaves_no_server_behind_when_it_is_stopped(tmp_path: Path, number: int) -> None:
    Registry.open(tmp_path / "models").register([scale(tmp_path / "model.onnx", 2.0)], "m")
    with tune(tmp_path) as process:
        tuning = psutil.Process(process.pid)
        while not (servers := tuning.children()):
            assert process.poll() is None
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert not any(server.is_running() for server in servers)
    assert not (tmp_path / "driftline.toml").exists()


def test_tune_says_in_a_line_what_is_wrong(tmp_path: Path) -> None:
    Registry.open(tmp_path / "models").register([scale(tmp_path / "model.onnx", 2.0)], "m")
    for arguments, message in (
        (["none"], "none"),
        (["m", "--output", "nowhere/x.toml"], "expected a file in a folder that is there"),
    ):
        said = run("tune", *arguments, "--registry", tmp_path / "models", code=2)
        assert message in said
        assert said.count("\n") == 1
