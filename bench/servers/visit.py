"""One visit: a server is started, asked for right answers, then put under each load, then ended."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from bench import models
from bench.common import (
    CLIENT_CORE,
    Client,
    Effort,
    Neighbours,
    Request,
    attempt,
    first_answer,
    free_port,
    on_core,
    pinned,
)
from bench.servers.catalogue import Peer
from bench.servers.environment import Unavailable
from bench.servers.open_loop import content_of
from bench.servers.place import Place
from bench.servers.process import Family, family
from bench.servers.works import JSON, MEMORY, OPEN_LOOP, OPEN_LOOP_SHARE, PEAK, ROW_1, START, WORKS, Subject, Work

POLL_SECONDS = 0.005
WARM_SECONDS, WARM_CONNECTIONS = 1, 16
OPEN_CONNECTIONS = 128
TOLERANCE = 1e-4
"""How far a probability may be from ONNX Runtime's: what text of few digits loses, and no more."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one server did on one work in one round: its figures, or why there are none."""

    round: int
    server: str
    work: str
    figures: dict[str, float]
    reason: str = ""


def visit(peer: Peer, subjects: dict[str, Subject], number: int, effort: Effort) -> Iterator[Seen]:
    """All that a server is asked in one round, as it is seen; what fails says why, and the rest goes on."""
    for name, subject in subjects.items():
        works = [work for work in WORKS if work.subject == name and work.name in peer.works]
        if not works:
            continue
        with Neighbours() as neighbours:
            try:
                for work, figures in _measured(peer, subject, works, effort):
                    yield Seen(number, peer.name, work, figures)
            except (Unavailable, RuntimeError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
                said = " ".join(f"{error}".split())[-300:]
                for work in works:
                    yield Seen(number, peer.name, work.name, {}, said)
        yield Seen(number, peer.name, f"neighbours, {name}", {"cores": neighbours.cores})


def _measured(
    peer: Peer, subject: Subject, works: list[Work], effort: Effort
) -> Iterator[tuple[str, dict[str, float]]]:
    """Start, memory, and the load of each work, by name."""
    with started(peer, subject) as (server, port, seconds):
        if ROW_1 in works:
            yield START, {"seconds": seconds}
        for work in works:
            check(peer, subject, work, port)
        peer.settle(port)
        attempt(port, asked(peer, subject, works[0]), WARM_CONNECTIONS, WARM_SECONDS)
        best = 0.0
        for work in works:
            drain(peer, subject, port)
            figures = loaded(server, port, asked(peer, subject, work), work.connections, effort.seconds)
            if work in PEAK:
                best = max(best, figures["rate"])
            yield work.name, figures
        if OPEN_LOOP in peer.works and best:
            drain(peer, subject, port)
            request = asked(peer, subject, ROW_1)
            yield OPEN_LOOP, opened(port, request, best * OPEN_LOOP_SHARE, effort.seconds)
        if ROW_1 in works:
            yield MEMORY, server.memory()


def asked(peer: Peer, subject: Subject, work: Work) -> Request:
    """The request of a work in a server's own form."""
    return peer.form.request(subject, models.rows(work.rows, subject.width), work.form)


@contextmanager
def started(peer: Peer, subject: Subject) -> Iterator[tuple[Family, int, float]]:
    """A server that answers; its processes, its port, and the seconds from exec to the first right answer."""
    ports = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(peer.bin(), Path(folder), ports, subject)
        peer.prepare(place)
        request = peer.form.request(subject, models.rows(1, subject.width), JSON)
        right = peer.predict(subject, models.rows(1, subject.width))
        command = [*pinned(peer.cores[0]), *place.command(peer.command)]
        command[2] = ",".join(map(str, peer.cores))
        begin = perf_counter()
        with family(command, {**place.environment(), **peer.env}) as server:
            with on_core(CLIENT_CORE):
                body = first_answer(server.process, ports[0], request, POLL_SECONDS)
            seconds = perf_counter() - begin
            compare(peer, body, JSON, right)
            yield server, ports[0], seconds


def check(peer: Peer, subject: Subject, work: Work, port: int) -> None:
    """Raise RuntimeError if a work's answer is not ONNX Runtime's."""
    matrix = models.rows(work.rows, subject.width)
    client = Client(port)
    try:
        status, body = client.send(asked(peer, subject, work))
    finally:
        client.close()
    if status != 200:
        raise RuntimeError(f"{work.name}: status {status}: {body[:200]!r}")
    compare(peer, body, work.form, peer.predict(subject, matrix))


def compare(peer: Peer, body: bytes, form: str, right: Any) -> None:
    """Raise RuntimeError if an answer's numbers are not the right ones."""
    try:
        came = peer.form.read(body, form).ravel()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RuntimeError(f"an answer that can't be read ({error!r}): {body[:200]!r}") from None
    if came.shape != right.ravel().shape or not np.allclose(came, right.ravel(), atol=TOLERANCE):
        raise RuntimeError(f"a wrong answer: expected {right.ravel()[:4]}, came {came[:4]}")


def drain(peer: Peer, subject: Subject, port: int) -> None:
    """Wait until what an earlier load has left in the server's queues is done: one row is answered."""
    client = Client(port)
    try:
        client.send(peer.form.request(subject, models.rows(1, subject.width), JSON))
    finally:
        client.close()


def loaded(server: Family, port: int, request: Request, connections: int, seconds: int) -> dict[str, float]:
    """A closed loop: good answers/s, latencies, the part that failed, the cores that the server took."""
    before, begin = server.cpu_seconds(), perf_counter()
    seen = attempt(port, request, connections, seconds)
    cores = (server.cpu_seconds() - before) / (perf_counter() - begin)
    return {
        "rate": seen.requests_per_second,
        "p50_ms": seen.p50_ms,
        "p99_ms": seen.p99_ms,
        "failed": seen.failed,
        "cores": cores,
    }


def opened(port: int, request: Request, rate: float, seconds: int) -> dict[str, float]:
    """An open loop at a rate, from the client's core."""
    with tempfile.NamedTemporaryFile() as content:
        content.write(content_of(request, port))
        content.flush()
        arguments = map(str, (port, content.name, rate, seconds, OPEN_CONNECTIONS))
        command = pinned(CLIENT_CORE, sys.executable, "-m", "bench.servers.open_loop", *arguments)
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the open loop: {done.stderr.strip()[-200:]}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures
