from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from driftline.demo.server import free_port
from driftline.engine.model import Model
from driftline.registry.source import Reference, Registry


@pytest.mark.timeout(300)
def test_the_demo_swaps_to_a_new_version_under_load_without_a_failure(tmp_path: Path) -> None:
    port = free_port("127.0.0.1", 0)
    options = ["--rows", "600", "--port", str(port), "--registry", str(tmp_path / "models")]
    done = subprocess.run(
        [sys.executable, "-m", "driftline", "demo", *options], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "600 requests, 0 failed" in done.stdout
    first, second = (int(re.search(rf"^version {n} +(\d+) ", done.stdout, re.M)[1]) for n in (1, 2))
    assert first >= 200
    assert second > 0
    assert "\x1b" not in done.stdout
    # Every window of 67 flights of version 1, and what of the next it answered; then those of version 2.
    windows = re.findall(r"^drift +\S+ \S+ to \S+ \S+, version (\d): (.*)$", done.stdout, re.M)
    assert [version for version, _ in windows] == sorted(version for version, _ in windows)
    assert {version for version, _ in windows} == {"1", "2"}
    assert len(windows) >= 9
    # The month, if nothing else, is far from what a model of January to March has learnt from.
    assert any("month" in told for version, told in windows if version == "1")
    rows = re.findall(r"^\d+ \S+ to \d+ \S+ +([12]) +(\d+) +\S+% ", done.stdout, re.M)
    assert [version for version, _ in rows] == [version for version, _ in windows]
    assert [count for version, count in rows if version == "1"][:2] == ["67", "67"]
    # Nothing but what version 1 answered after its last report is missing from the table.
    assert sum(int(count) for version, count in rows if version == "2") == second

    registry = Registry.open(tmp_path / "models")
    assert registry.resolve(Reference.parse("flights")).number == 2
    [line] = [line for line in done.stdout.splitlines() if line.startswith("curl ")]
    _, url, option, body = shlex.split(line)
    assert (url, option) == (f"http://127.0.0.1:{port}/v1/models/flights:predict", "-d")
    [flight] = json.loads(body)["instances"]
    assert flight["month"] == 4
    assert None in flight.values()
    columns = {name: np.array([value], float if value is None else None) for name, value in flight.items()}
    for number in (1, 2):
        outputs = Model.load(tmp_path / "models" / "flights" / str(number)).predict(columns)
        assert 0 < outputs["probabilities"][0, 1] < 1
    transforms = [(tmp_path / f"models/flights/{number}/transform.json").read_text() for number in (1, 2)]
    assert transforms[0] != transforms[1]
