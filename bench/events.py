"""How many events of a logger an agent takes on one core, and its memory when more are sent."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import orjson
import psutil
from prometheus_client.parser import text_string_to_metric_families

from bench.common import (
    CLIENT_CORE,
    HERE,
    HOST,
    SERVER_CORE,
    Effort,
    Sample,
    free_port,
    pinned,
    program,
    running,
)
from bench.open_loop import GRACE_SECONDS, NUMBER, content_of, open_loop
from bench.requests import Request
from bench.results import Result, Table, Target
from driftline.monitor.reference.profile import Profile

COLUMNS = 30
CONNECTIONS = 16
BATCHES = (1, 64)
MIN_RATE = 10_000
FLOODS = 4
FLOOD_CONNECTIONS = 512
SETTLE_SECONDS = 2
FORMS = {1: "one event a post", 64: "64 events a post"}


def run(effort: Effort) -> Result:
    """Load an agent with one form after the other, so that neither uses memory of the other's."""
    measurements: dict[int, list[dict[str, float]]] = {batch: [] for batch in BATCHES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        matrix = np.random.default_rng(0).standard_normal((50_000, COLUMNS)).astype(np.float32)
        Profile.fit({"x": matrix, "score": matrix.mean(axis=1)}).save(folder / "m.arrow")
        row = [round(float(value), 4) for value in matrix[0]]
        (folder / "asked").write_bytes(tensor("inputs", "x", [1, COLUMNS], row))
        (folder / "answered").write_bytes(tensor("outputs", "score", [1], [0.1]))
        port = free_port()
        command = ["-m", "driftline", "monitor", "--profile", folder / "m.arrow", "--listen", "--port", port]
        with running(pinned(SERVER_CORE, sys.executable, *map(str, command))) as process:
            agent = psutil.Process(process.popen.pid)
            while not ready(port):
                process.check()
                time.sleep(0.1)
            for batch in BATCHES:
                for _ in range(effort.rounds):
                    measurements[batch].append(measure(port, folder, batch, effort.seconds, agent))
            max_rate = Sample.of([point["observed"] for point in measurements[1]]).median
            floods = flood(port, folder, 2 * max_rate, effort, agent)
    return report(measurements, floods)


def flood(
    port: int, folder: Path, rate: float, effort: Effort, agent: psutil.Process
) -> list[dict[str, float]]:
    """Offer a rate of events several times; return what became of them, and the memory after each time."""
    outcomes = []
    for number in range(FLOODS):
        contents = [
            content_of(Request("/", (folder / name).read_bytes()), port, headers_of(kind, f"{number}-"))
            for name, kind in (("asked", "request"), ("answered", "response"))
        ]
        before = counts(port)
        sent = open_loop(port, contents, rate, effort.seconds, FLOOD_CONNECTIONS)
        counted = {name: value - before.get(name, 0) for name, value in counts(port).items()}
        outcomes.append(
            {
                "offered": rate * effort.seconds,
                "unanswered": (sent["failed"] - sent["refused"]) * rate * effort.seconds,
                "taken": counted["taken"],
                "refused": counted["refused"],
                "resident": agent.memory_info().rss,
            }
        )
    return outcomes


def headers_of(kind: str, run: str) -> dict[str, str]:
    """Return the headers that KServe's logger sends, for numbered events."""
    return {
        "Ce-Specversion": "1.0", "Ce-Id": run + NUMBER.decode(),
        "Ce-Source": "pod", "Ce-Type": f"org.kubeflow.serving.inference.{kind}",
        "Ce-Time": "2026-11-24T10:11:12.123456789Z", "Ce-Inferenceservicename": "m", "Ce-Namespace": "prod",
        "Ce-Component": "predictor", "Ce-Endpoint": "default", "Ce-Metadata": "{}",
    }  # fmt: skip


def tensor(key: str, name: str, shape: list[int], data: list[float]) -> bytes:
    return orjson.dumps({key: [{"name": name, "datatype": "FP32", "shape": shape, "data": data}]})


def ready(port: int) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{port}/v2/health/ready").is_success
    except httpx.HTTPError:
        return False


def counts(port: int) -> dict[str, float]:
    families = text_string_to_metric_families(httpx.get(f"http://{HOST}:{port}/metrics", timeout=60).text)
    names = ("driftline_events_total", "driftline_exchanges_total", "driftline_halves_total")
    return {
        sample.labels["outcome"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name in names
    }


def measure(port: int, folder: Path, batch: int, seconds: int, agent: psutil.Process) -> dict[str, float]:
    """Events a second that were taken and observed under as much as wrk can send, and the memory."""
    env = {"BATCH": str(batch), "ASKED": str(folder / "asked"), "ANSWERED": str(folder / "answered")}
    env["RUN"] = f"{time.time_ns()}-"
    load = pinned(
        CLIENT_CORE, program("wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{seconds + SETTLE_SECONDS}s",
        "-s", HERE / "events.lua", f"http://{HOST}:{port}/",
    )  # fmt: skip
    with subprocess.Popen(load, env={**os.environ, **env}, stdout=subprocess.DEVNULL) as sender:
        time.sleep(SETTLE_SECONDS)
        before, begin = counts(port), time.perf_counter()
        busy_seconds = cpu_seconds(agent)
        time.sleep(max(0.5, seconds - 1))
        after, elapsed = counts(port), time.perf_counter() - begin
        busy_seconds = cpu_seconds(agent) - busy_seconds
        resident = agent.memory_info().rss
        sender.wait()
    rate = {name: (after[name] - before.get(name, 0)) / elapsed for name in after}
    taken, refused, observed = rate["taken"], rate["refused"], 2 * rate["observed"]
    cpu = 1e6 * busy_seconds / elapsed / max(observed, 1)
    return {"taken": taken, "refused": refused, "observed": observed, "cpu": cpu, "resident": resident}


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU seconds of a process, including system time."""
    times = process.cpu_times()
    return float(times.user + times.system)


def report(measurements: dict[int, list[dict[str, float]]], floods: list[dict[str, float]]) -> Result:
    """Return the medians of all rounds."""
    rows, targets = [], []
    for batch, points in measurements.items():
        taken, refused, observed, cpu = (
            Sample.of([point[name] for point in points]) for name in ("taken", "refused", "observed", "cpu")
        )
        growth = points[-1]["resident"] / points[1]["resident"]
        lost = f"{refused.median:,.0f}"  # of mostly none there is no spread
        rows.append([FORMS[batch], f"{taken:,.0f}", f"{observed:,.0f}", lost, f"{cpu:.1f}", f"{growth:.2f}"])
        targets.append(Target(f"events/s, {FORMS[batch]}", observed.median, "at least", MIN_RATE))
        targets.append(Target(f"memory, {FORMS[batch]}", growth, "at most", 1.10))
    growth = floods[-1]["resident"] / floods[0]["resident"]
    targets.append(Target("memory behind twice the rate of single events", growth, "at most", 1.10))
    offered, refused, unanswered, taken = (
        sum(outcome[name] for outcome in floods) for name in ("offered", "refused", "unanswered", "taken")
    )
    return Result(
        f"events: exchanges of {COLUMNS} columns, joined and counted on one core, {CONNECTIONS} connections",
        Table(["", "taken/s", "observed/s", "refused/s", "CPU us", "memory"], rows),
        targets,
        [
            "observed: events of exchanges that were counted; memory: under load in the last round, of that "
            "in the second: in the first, queues of bounded length fill",
            f"twice the rate: of {offered:,.0f} events offered over {FLOOD_CONNECTIONS} connections "
            f"{taken:,.0f} were taken and {refused:,.0f} refused with 503, as /metrics counts them; "
            f"{unanswered:,.0f} were not answered {GRACE_SECONDS:.0f} s after the last was due; the agent "
            f"has {floods[-1]['resident'] / 1e6:.0f} MB",
            "CPU us: of the agent, for each of those: the same beside busy neighbours, nearly",
        ],
        {**{str(batch): points for batch, points in measurements.items()}, "floods": floods},
    )
