"""Swaps every few seconds and workers killed at random, under load: is any response wrong or lost?"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic

import numpy as np
import onnx
import orjson
import psutil
from onnx import TensorProto, helper, numpy_helper

from bench.common import HOST, Effort, Process, free_port, running, serve_command
from bench.requests import Request, first_response, json_request
from bench.results import Result, Table, Target
from driftline.registry.source import PRODUCTION, Registry

MODEL = "soaked"
WORKERS = 2
CLIENTS = 16
VERSIONS = 4
SWAP_SECONDS = 5.0
KILL_SECONDS = 11.0
"""Time between two kills, for a worker to be replaced."""
ANSWER_SECONDS = 60.0
MAX_GROWTH = 1.10


@dataclass(slots=True)
class Outcome:
    """The events: responses by version, broken sockets and sockets that killed workers held, memory in MB."""

    answers: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    wrong: list[str] = field(default_factory=list)
    swaps: int = 0
    kills: int = 0
    megabytes: list[tuple[float, float]] = field(default_factory=list)
    held: int = 0


def run(effort: Effort) -> Result:
    """Soak for half an hour, or for a minute with --quick."""
    return report(soak(effort.soak))


def soak(seconds: float) -> Outcome:
    """Load two workers for this long, swapping and killing."""
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry.open(Path(folder) / "models")
        for number in range(1, VERSIONS + 1):
            file = Path(folder) / "model.onnx"
            onnx.save(multiplier(number), file)
            registry.register([file], MODEL)
        registry.promote(MODEL, 1, PRODUCTION)
        port = free_port()
        workers = ("--workers", str(WORKERS), "--poll-seconds", "0.5")
        with running(serve_command("--registry", registry.uri, *workers, port=port)) as process:
            first_response(process, port, json_request(MODEL, np.ones((1, 3), np.float32), "y", "x"))
            return asyncio.run(_soak(process, port, registry, seconds))


def multiplier(factor: int) -> onnx.ModelProto:
    """Return a model whose `y` is `factor` times `x`: a response shows which version gave it."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", 3)) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])], "graph", tensors[:1], tensors[1:],
        [numpy_helper.from_array(np.float32(factor), "factor")],
    )  # fmt: skip
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    return model


async def _soak(process: Process, port: int, registry: Registry, seconds: float) -> Outcome:
    outcome, end = Outcome(), monotonic() + seconds
    chaos = random.Random(0)
    async with asyncio.TaskGroup() as tasks:
        for seed in range(CLIENTS):
            tasks.create_task(_client(port, random.Random(seed), outcome, end))
        tasks.create_task(_swap(registry, outcome, end))
        tasks.create_task(_kill(process, chaos, outcome, end))
        tasks.create_task(_record_memory(process, outcome, end))
    process.check()
    return outcome


async def _client(port: int, numbers: random.Random, outcome: Outcome, end: float) -> None:
    """Send requests over one connection, and over another when it breaks."""
    while monotonic() < end:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            while monotonic() < end:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await _send_request(reader, writer, numbers, outcome)
        except (ConnectionError, asyncio.IncompleteReadError):
            outcome.broken += 1
        finally:
            writer.close()


async def _send_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, numbers: random.Random, outcome: Outcome
) -> None:
    row = np.array([[numbers.randrange(1000) for _ in range(3)]], np.float32)
    request: Request = json_request(MODEL, row, "y", "x")
    head = f"POST {request.path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {len(request.body)}\r\n\r\n"
    writer.write(head.encode() + request.body)
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length"))
    response = orjson.loads(await reader.readexactly(length))
    version = response.get("model_version", "")
    expected = (row * int(version or 0)).ravel().tolist()
    if lines[0].split()[1] != "200" or response["outputs"][0]["data"] != expected:
        outcome.wrong.append(f"{lines[0]} {response}")
    outcome.answers[version] += 1


async def _swap(registry: Registry, outcome: Outcome, end: float) -> None:
    for turn in count(1):
        await asyncio.sleep(SWAP_SECONDS)
        if monotonic() >= end:
            return
        await asyncio.to_thread(registry.promote, MODEL, turn % VERSIONS + 1, PRODUCTION)
        outcome.swaps += 1


async def _kill(process: Process, chaos: random.Random, outcome: Outcome, end: float) -> None:
    """Kill a worker now and then, while all of them are running."""
    while True:
        await asyncio.sleep(KILL_SECONDS)
        if monotonic() >= end - KILL_SECONDS:
            return
        workers = psutil.Process(process.popen.pid).children()
        if len(workers) == WORKERS:
            victim = chaos.choice(workers)
            victim.suspend()  # it accepts no connections while its sockets are counted
            outcome.held += sum(
                (connection.pid, connection.status) == (victim.pid, psutil.CONN_ESTABLISHED)
                for connection in psutil.net_connections("tcp4")
            )
            victim.kill()
            outcome.kills += 1


async def _record_memory(process: Process, outcome: Outcome, end: float) -> None:
    """Record the memory of all processes, while all workers are running."""
    begin = monotonic()
    while monotonic() < end:
        await asyncio.sleep(1)
        supervisor = psutil.Process(process.popen.pid)
        workers = supervisor.children()
        if len(workers) == WORKERS:
            with suppress(psutil.NoSuchProcess):  # killed while it is measured
                total = sum(member.memory_info().rss for member in (supervisor, *workers))
                outcome.megabytes.append((monotonic() - begin, total / 2**20))


def report(outcome: Outcome) -> Result:
    """Return what was wrong, what broke, and whether memory grew from the second third to the last."""
    third = len(outcome.megabytes) // 3 or 1
    early = float(np.median([size for _, size in outcome.megabytes[third : 2 * third]]))
    late = float(np.median([size for _, size in outcome.megabytes[-third:]]))
    return Result(
        f"{WORKERS} workers, a swap every {SWAP_SECONDS:.0f} s, workers killed at random",
        Table(
            ["answers", "swaps", "kills", "sockets broken", "answers wrong", "MB early", "MB late"],
            [
                [
                    f"{outcome.answers.total():,}", str(outcome.swaps), str(outcome.kills),
                    str(outcome.broken), str(len(outcome.wrong)), f"{early:.0f}", f"{late:.0f}",
                ]
            ],
        ),
        [
            Target("wrong answers", len(outcome.wrong), "at most", 0),
            Target(
                "sockets broken, of those that killed workers held", outcome.broken, "at most", outcome.held
            ),
            Target("memory, late of early", late / early, "at most", MAX_GROWTH),
        ],
        ["Each answer is checked against the version that it names; memory is that of all processes."],
        {"answers": dict(outcome.answers), "megabytes": outcome.megabytes, "wrong": outcome.wrong[:10]},
        timed=False,
    )  # fmt: skip
