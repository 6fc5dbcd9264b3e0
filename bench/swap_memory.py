"""A thousand hot swaps under light traffic: is the old version's memory freed?"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import orjson
import psutil

from bench import models
from bench.common import Effort, Sample, free_port, running, serve_command
from bench.requests import Client, Request, first_response, json_request
from bench.results import Result, Table, Target
from driftline.registry.source import PRODUCTION, Registry

MODEL = "swapped"
VERSIONS = 3
EVERY = 50
MAX_GROWTH = 1.10
SETTLE_SECONDS = 0.3
REQUESTS_PER_SECOND = 50


def run(effort: Effort) -> Result:
    """Swap, and measure the process's memory now and then."""
    request = json_request(MODEL, models.rows(1, models.TEN_MEGABYTES[0]), "output")
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry.open(folder)
        for seed in range(VERSIONS):
            registry.register([models.mlp(models.TEN_MEGABYTES, seed)], MODEL)
        registry.promote(MODEL, 1, PRODUCTION)
        port = free_port()
        # The registry is read only on our request: each swap is timed from its start to its flip.
        command = serve_command(
            "--registry", folder, "--poll-seconds", "3600", "--model-control", "explicit", port=port
        )
        with running(command) as process:
            first_response(process, port, request)
            with traffic(port, request) as answered:
                seconds, curve = swaps(registry, port, process.popen.pid, request, effort)
            process.check()
    return report(Sample.of(seconds), curve, len(answered), effort)


def swaps(
    registry: Registry, port: int, pid: int, request: Request, effort: Effort
) -> tuple[list[float], dict[int, float]]:
    """Swap to one version after another; return the seconds of each, and megabytes by number of swaps."""
    client = Client(port)
    load = Request(f"/v2/repository/models/{MODEL}/load", b"{}")
    process = psutil.Process(pid)
    seconds, curve = [], {}
    for swap in range(1, effort.swaps + 1):
        number = 1 + swap % VERSIONS
        begin = perf_counter()
        registry.promote(MODEL, number, PRODUCTION)
        status, message = client.send(load)
        seconds.append(perf_counter() - begin)
        _, response = client.send(request)
        serves = orjson.loads(response).get("model_version")
        if status != 200 or serves != str(number):
            raise RuntimeError(f"expected version {number}, {serves} serves: {message.decode()}")
        if swap % EVERY == 0 or swap in (effort.settle, effort.swaps):
            time.sleep(SETTLE_SECONDS)
            curve[swap] = process.memory_info().rss / 1e6
    client.close()
    return seconds, curve


@contextmanager
def traffic(port: int, request: Request) -> Iterator[list[str]]:
    """Send light traffic meanwhile; yield the versions that answered. Raises RuntimeError if one fails."""
    stop = threading.Event()
    answered: list[str] = []
    failed: list[str] = []

    def work() -> None:
        client = Client(port)
        while not stop.wait(1 / REQUESTS_PER_SECOND):
            status, body = client.send(request)
            (answered if status == 200 else failed).append(orjson.loads(body).get("model_version", body))
        client.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield answered
    finally:
        stop.set()
        thread.join(30)
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(failed) + len(answered)} requests failed: {failed[0]}")


def report(seconds: Sample, curve: dict[int, float], answered: int, effort: Effort) -> Result:
    """Return the curve and the growth since the first swaps."""
    settled = curve[effort.settle]
    growth = curve[effort.swaps] / settled
    megabytes = Path(models.mlp(models.TEN_MEGABYTES)).stat().st_size / 1e6
    return Result(
        f"{effort.swaps:,} hot swaps of a model of {megabytes:.0f} MB",
        Table(
            ["swaps", "RSS MB", f"of that after {effort.settle}"],
            [[str(swap), f"{rss:.1f}", f"{rss / settled:.3f}"] for swap, rss in curve.items()],
        ),
        [Target(f"memory at the end, of that after {effort.settle} swaps", growth, "at most", MAX_GROWTH)],
        [
            f"A swap (alias, load, warm, flip) takes {seconds.median * 1e3:.0f} ms in the median, "
            f"{max(seconds.values) * 1e3:.0f} ms at most; {answered:,} requests meanwhile, none failed."
        ],
        {"rss_megabytes_after_swaps": curve, "swap_seconds": seconds, "requests": answered},
    )
