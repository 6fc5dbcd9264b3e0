"""The cost of the monitor: the same server with it off, counting only, and comparing with a profile."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import models
from bench.common import SERVER_CORE, Effort, free_port, pinned, running, serve_command
from bench.load import Load, Ratios, in_turn, load
from bench.requests import Client, Request, first_response, json_request
from bench.results import Result, Table, Target
from driftline.engine.model import Model
from driftline.monitor.reference.profile import Profile

NAME = "trees"
CONNECTIONS = (1, 64)
REFERENCE_ROWS = 50_000
MIN_SHARE = 0.95
OFF, COUNTING, WATCHING = "off", "without a profile", "with a profile"


def run(effort: Effort) -> Result:
    """Measure the three servers in turn."""
    model = models.xgboost()
    request = json_request(NAME, models.rows(1, models.FEATURES), "probabilities")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        profile = Path(name, "profile.arrow")
        matrix = models.rows(REFERENCE_ROWS, models.FEATURES, seed=3)
        Profile.fit({"input": matrix, **Model.load(model).predict(matrix)}).save(profile)
        files = {OFF: {"driftline.toml": b"[monitor]\nenabled = false\n"}, COUNTING: {}}
        files[WATCHING] = {"profile.arrow": profile.read_bytes()}
        ports = {
            form: stack.enter_context(
                serving(Path(name, form), {"model.onnx": model.read_bytes(), **extra_files}, request)
            )
            for form, extra_files in files.items()
        }
        for port in ports.values():  # its first seconds are not representative
            load(port, request, CONNECTIONS[-1], effort.seconds)
        turns = effort.rounds * effort.seconds
        loads = {connections: in_turn(ports, request, connections, turns) for connections in CONNECTIONS}
    return report(loads)


@contextmanager
def serving(registry: Path, files: dict[str, bytes], request: Request) -> Iterator[int]:
    """Run a server of one version with these files, its monitor loaded; yield its port."""
    version = registry / NAME / "1"
    version.mkdir(parents=True)
    for name, content in files.items():
        (version / name).write_bytes(content)
    port = free_port()
    with running(pinned(SERVER_CORE, *serve_command(NAME, "--registry", registry, port=port))) as process:
        first_response(process, port, request)
        client = Client(port)
        while "is being loaded" in client.get(f"/v2/models/{NAME}/drift").get("error", ""):
            time.sleep(0.1)
        client.close()
        yield port


def report(loads: dict[int, dict[str, list[Load]]]) -> Result:
    """Return the medians and ratios of all turns."""
    rows, targets, figures = [], [], []
    for connections, points in loads.items():
        for form, form_loads in points.items():
            typical, share = Load.median(form_loads), Ratios.of(form_loads, points[OFF])
            columns = [
                f"{typical.requests_per_second:,.0f}",
                f"{typical.p50_ms:.2f}",
                f"{typical.p99_ms:.2f}",
            ]
            rows.append([form, str(connections), *columns, f"{share:.3f}"])
            figures.append({"monitor": form, "connections": connections, "ratios": share})
            if form == WATCHING:
                what = f"of the requests/s without a monitor, at {connections} connections"
                targets.append(Target(what, share.median, "at least", MIN_SHARE))
    return Result(
        "what the monitor costs: one row of 30 features as JSON, XGBoost of 100 trees, one core",
        Table(["monitor", "connections", "requests/s", "p50 ms", "p99 ms", "of none"], rows),
        targets,
        [
            "The profile has the 30 inputs and all 3 columns of the outputs. The servers have load in turn, "
            "a second each; medians of all turns, quartiles of the ratio within one."
        ],
        {"points": figures},
    )
