"""One visit: a server is started, asked for right answers, then put under each load, then ended."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from bench import models
from bench.common import CLIENT_CORE, Effort, Neighbours, free_port, on_core, pinned
from bench.load import attempt
from bench.open_loop import content_of, open_loop
from bench.requests import Client, Request, first_response
from bench.servers.catalogue import Peer
from bench.servers.environment import Unavailable
from bench.servers.place import Place
from bench.servers.process import Family, family
from bench.servers.works import (
    JSON,
    MEMORY,
    OPEN_LOOP,
    OPEN_LOOP_SHARE,
    PEAK,
    ROW_1,
    START,
    WORKS,
    Subject,
    Work,
)

POLL_SECONDS, MAX_START_SECONDS = 0.005, 180.0
WARM_SECONDS, WARM_CONNECTIONS = 1, 16
OPEN_CONNECTIONS = 128
MAX_REASON = 300
NEIGHBOURS = "neighbours"
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


FAILURES = (Unavailable, RuntimeError, OSError, ValueError, HTTPException, subprocess.SubprocessError)
"""What a server may do to us: then it has no figure, a reason instead."""


def visit(peer: Peer, subjects: dict[str, Subject], number: int, effort: Effort) -> Iterator[Seen]:
    """All that a server is asked in one round, as it is seen; what fails says why, and the rest goes on."""
    for name, subject in subjects.items():
        works = [work for work in WORKS if work.subject == name and work.name in peer.works]
        if not works:
            continue
        with Neighbours() as neighbours:
            try:
                with started(peer, subject) as (server, port, seconds):
                    if ROW_1 in works:
                        yield Seen(number, peer.name, START, {"seconds": seconds})
                    server.settle()
                    yield from _asked_all(Visited(peer, subject, server, port), works, number, effort)
            except FAILURES as error:
                for work in works:
                    yield Seen(number, peer.name, work.name, {}, shortly(error))
        yield Seen(number, peer.name, f"{NEIGHBOURS}, {name}", {"cores": neighbours.cores})


@dataclass(frozen=True, slots=True)
class Visited:
    """A server that runs, and what it serves."""

    peer: Peer
    subject: Subject
    server: Family
    port: int


def _asked_all(at: Visited, works: list[Work], number: int, effort: Effort) -> Iterator[Seen]:
    """Each work, then the open loop at a share of the peak, then the memory that all this has taken."""
    best = 0.0
    for work in works:
        try:
            check(at, work)
            if work is works[0]:
                attempt(at.port, asked(at.peer, at.subject, work), WARM_CONNECTIONS, WARM_SECONDS)
            drain(at)
            figures = loaded(at, work, effort.seconds)
        except FAILURES as error:
            yield Seen(number, at.peer.name, work.name, {}, shortly(error))
            continue
        if work in PEAK:
            best = max(best, figures["rate"])
        yield Seen(number, at.peer.name, work.name, figures)
    if OPEN_LOOP in at.peer.works and best:
        try:
            drain(at)
            yield Seen(number, at.peer.name, OPEN_LOOP, opened(at, best * OPEN_LOOP_SHARE, effort.seconds))
        except FAILURES as error:
            yield Seen(number, at.peer.name, OPEN_LOOP, {}, shortly(error))
    if ROW_1 in works:
        yield Seen(number, at.peer.name, MEMORY, at.server.memory())


def shortly(error: Exception) -> str:
    """An error on one line, its end if that is long: there stands what was wrong."""
    text = " ".join(f"{error}".split()) or type(error).__name__
    return text if len(text) <= MAX_REASON else f"... {text[-MAX_REASON:]}"


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
                body = first_response(server.process, ports[0], request, POLL_SECONDS, MAX_START_SECONDS)
            seconds = perf_counter() - begin
            compare(peer, body, JSON, right)
            yield server, ports[0], seconds


def check(at: Visited, work: Work) -> None:
    """Raise RuntimeError if a work's answer is not ONNX Runtime's."""
    client = Client(at.port)
    try:
        status, body = client.send(asked(at.peer, at.subject, work))
    finally:
        client.close()
    if status != 200:
        raise RuntimeError(f"status {status}: {body[:200]!r}")
    right = at.peer.predict(at.subject, models.rows(work.rows, at.subject.width))
    compare(at.peer, body, work.form, right)


def compare(peer: Peer, body: bytes, form: str, right: Any) -> None:
    """Raise RuntimeError if an answer's numbers are not the right ones."""
    try:
        came = peer.form.read(body, form).ravel()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RuntimeError(f"an answer that can't be read ({error!r}): {body[:200]!r}") from None
    if came.shape != right.ravel().shape or not np.allclose(came, right.ravel(), atol=TOLERANCE):
        raise RuntimeError(f"a wrong answer: expected {right.ravel()[:4]}, got {came[:4]}")


def drain(at: Visited) -> None:
    """Wait until what an earlier load has left in the server's queues is done: one row is answered."""
    client = Client(at.port)
    try:
        client.send(at.peer.form.request(at.subject, models.rows(1, at.subject.width), JSON))
    finally:
        client.close()


def loaded(at: Visited, work: Work, seconds: int) -> dict[str, float]:
    """A closed loop: good answers/s, latencies, the part that failed, the cores that the server took."""
    before, begin = at.server.cpu_seconds(), perf_counter()
    seen = attempt(at.port, asked(at.peer, at.subject, work), work.connections, seconds)
    cores = (at.server.cpu_seconds() - before) / (perf_counter() - begin)
    return {
        "rate": seen.requests_per_second,
        "p50_ms": seen.p50_ms,
        "p99_ms": seen.p99_ms,
        "failed": seen.failed,
        "cores": cores,
    }


def opened(at: Visited, rate: float, seconds: int) -> dict[str, float]:
    """An open loop of single rows at a rate, from the client's core."""
    content = content_of(asked(at.peer, at.subject, ROW_1), at.port)
    return open_loop(at.port, [content], rate, seconds, OPEN_CONNECTIONS)
