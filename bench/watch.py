"""What the monitor costs: the same server with it off, counting only, and comparing with a profile."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import models
from bench.common import (
    SERVER_CORE,
    Client,
    Effort,
    Load,
    Request,
    Sample,
    first_answer,
    free_port,
    json_request,
    load,
    pinned,
    running,
    serve_command,
)
from bench.results import Result, Table, Target
from driftline.engine.model import Model
from driftline.monitor.profile import Profile

NAME = "trees"
CONNECTIONS = (1, 64)
REFERENCE_ROWS = 50_000
LEAST_SHARE = 0.95
OFF, COUNTING, WATCHING = "off", "without a profile", "with a profile"


def run(effort: Effort) -> Result:
    """Measure the three servers in turn, round by round."""
    model = models.xgboost()
    request = json_request(NAME, models.rows(1, models.FEATURES), "probabilities")
    seen: dict[tuple[str, int], list[Load]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        profile = Path(name, "profile.arrow")
        matrix = models.rows(REFERENCE_ROWS, models.FEATURES, seed=3)
        Profile.fit({"input": matrix, **Model.load(model).predict(matrix)}).save(profile)
        files = {OFF: {"driftline.toml": b"[monitor]\nenabled = false\n"}, COUNTING: {}}
        files[WATCHING] = {"profile.arrow": profile.read_bytes()}
        ports = {
            form: stack.enter_context(
                serving(Path(name, form), {"model.onnx": model.read_bytes(), **more}, request)
            )
            for form, more in files.items()
        }
        for _ in range(effort.rounds):
            for connections in CONNECTIONS:
                for form, port in ports.items():
                    point = load(port, request, connections, effort.seconds)
                    seen.setdefault((form, connections), []).append(point)
    return report(seen)


@contextmanager
def serving(registry: Path, files: dict[str, bytes], request: Request) -> Iterator[int]:
    """A server of one version made of these files, its monitor loaded; its port."""
    version = registry / NAME / "1"
    version.mkdir(parents=True)
    for name, content in files.items():
        (version / name).write_bytes(content)
    port = free_port()
    with running(pinned(SERVER_CORE, *serve_command(NAME, "--registry", registry, port=port))) as process:
        first_answer(process, port, request)
        client = Client(port)
        while "is being loaded" in client.get(f"/v2/models/{NAME}/drift").get("error", ""):
            time.sleep(0.1)
        client.close()
        yield port


def report(seen: dict[tuple[str, int], list[Load]]) -> Result:
    """Medians and ratios of all rounds."""
    rows, targets, figures = [], [], []
    for connections in CONNECTIONS:
        off = Sample.of([point.requests_per_second for point in seen[OFF, connections]])
        for form in (OFF, COUNTING, WATCHING):
            points = seen[form, connections]
            rate = Sample.of([point.requests_per_second for point in points])
            p50, p99 = Sample.of([p.p50_ms for p in points]), Sample.of([p.p99_ms for p in points])
            share = rate / off
            rows.append(
                [
                    form,
                    str(connections),
                    f"{rate:,.0f}",
                    f"{p50.median:.2f}",
                    f"{p99.median:.2f}",
                    f"{share:.3f}",
                ]
            )
            figures.append({"monitor": form, "connections": connections, "requests_per_second": rate})
            if form == WATCHING:
                what = f"of the requests/s without a monitor, at {connections} connections"
                targets.append(Target(what, share.median, "at least", LEAST_SHARE))
    return Result(
        "what the monitor costs: one row of 30 features as JSON, XGBoost of 100 trees, one core",
        Table(["monitor", "connections", "requests/s", "p50 ms", "p99 ms", "of none"], rows),
        targets,
        ["The profile has the 30 inputs and all 3 columns of the outputs; ratios within a round."],
        {"points": figures},
    )
