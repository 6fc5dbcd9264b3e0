"""How bench/servers asks: forms, the open loop against servers that stall; that no process is left."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
import psutil
import pytest
from bench.common import HOST
from bench.open_loop import content_of, main
from bench.requests import Request
from bench.servers.catalogue import PEERS
from bench.servers.forms import V2, Invocations, Records, Rows, Static, static_answer
from bench.servers.process import family
from bench.servers.visit import compare
from bench.servers.works import BINARY, JSON, Subject

OUTPUT = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


class Known(Subject):
    """A model whose answer is known without a file."""

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        return OUTPUT


SUBJECT = Known("trees", Path("none.onnx"), 3, "probabilities")


def test_forms_ask_for_the_same_rows() -> None:
    v2 = orjson.loads(V2().request(SUBJECT, MATRIX, JSON).body)["inputs"][0]
    assert (v2["shape"], v2["data"]) == ([2, 3], MATRIX.ravel().tolist())
    assert orjson.loads(Rows("/").request(SUBJECT, MATRIX, JSON).body)["rows"] == MATRIX.tolist()
    invoked = orjson.loads(Invocations().request(SUBJECT, MATRIX, JSON).body)
    assert invoked == {"inputs": {"input": MATRIX.tolist()}}
    records = orjson.loads(Records().request(SUBJECT, MATRIX, JSON).body)["instances"]
    assert records[1] == {"x0": 3.0, "x1": 4.0, "x2": 5.0}
    binary = V2().request(SUBJECT, MATRIX, BINARY)
    assert binary.body[binary.json_length :] == MATRIX.tobytes()


def test_forms_read_the_numbers() -> None:
    output = {"name": "probabilities", "parameters": {"binary_data_size": OUTPUT.nbytes}}
    bodies = [
        (V2(), JSON, static_answer(SUBJECT, MATRIX).encode()),
        (Static(), JSON, static_answer(SUBJECT, MATRIX).encode()),
        (V2(), BINARY, json.dumps({"outputs": [output]}).encode() + OUTPUT.tobytes()),
        (Rows("/"), JSON, json.dumps({"rows": OUTPUT.tolist()}).encode()),
        (Rows("/"), JSON, json.dumps(OUTPUT.tolist()).encode()),
        (Invocations(), JSON, json.dumps({"predictions": {"probabilities": OUTPUT.tolist()}}).encode()),
        (
            Records(),
            JSON,
            json.dumps({"predictions": [{"probabilities": r} for r in OUTPUT.tolist()]}).encode(),
        ),
    ]
    for form, kind, body in bodies:
        assert np.array_equal(form.read(body, kind).ravel(), OUTPUT.ravel()), form


@pytest.mark.parametrize(
    "body", [b"[[0.25, 0.75]]", b"[[0.25, 0.7], [0.5, 0.5]]", b"oops", b'{"error": "no"}']
)
def test_a_wrong_answer_is_refused(body: bytes) -> None:
    litserve = next(peer for peer in PEERS if peer.name == "litserve")
    compare(litserve, b"[[0.25, 0.75], [0.5, 0.5]]", JSON, OUTPUT)
    with pytest.raises(RuntimeError, match="answer"):
        compare(litserve, body, JSON, OUTPUT)


@contextmanager
def answering(answer: Callable[[int], bytes], talks: list[threading.Thread] | None = None) -> Iterator[int]:
    """A server that gives the n-th request, over all connections, its answer; its port.

    `talks` gets a thread for each connection.
    """
    talks = [] if talks is None else talks
    with socket.create_server((HOST, 0)) as listener:
        count, lock = [0], threading.Lock()

        def talk(connection: socket.socket) -> None:
            with connection:
                while connection.recv(65536):
                    with lock:
                        number = count[0]
                        count[0] += 1
                    said = answer(number)
                    connection.sendall(said)
                    if b"close" in said:
                        return

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                talks.append(threading.Thread(target=talk, args=(connection,)))
                talks[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for one in talks:
                one.join()


GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BAD = b"HTTP/1.1 503 Too Busy\r\nContent-Length: 2\r\n\r\nno"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"


def sent(port: int, rate: float, seconds: float, connections: int) -> dict[str, float]:
    """What the open loop sees."""
    return main(port, [content_of(Request("/", b"{}"), port)], rate, seconds, connections)


def test_all_that_wait_for_a_server_that_stands_still_count() -> None:
    stall = 0.4

    def answer(number: int) -> bytes:
        if number == 0:
            time.sleep(stall)
        return GOOD

    with answering(answer) as port:
        seen = sent(port, rate=100, seconds=0.4, connections=1)
    # The k-th is due k/100 s after the first and can't be answered before the stall is over: the median waits
    # half of it. A closed loop would have seen one slow request and 39 quick ones.
    assert seen["p50_ms"] >= 1e3 * (stall - 0.21)
    assert seen["p99_ms"] >= 1e3 * (stall - 0.01)
    assert seen["failed"] == 0


def test_failures_are_counted_and_connections_kept() -> None:
    talks: list[threading.Thread] = []
    with answering(lambda number: BAD if number % 4 == 0 else GOOD, talks) as port:
        assert sent(port, rate=400, seconds=0.1, connections=2)["failed"] == 0.25
    assert len(talks) == 2


def test_a_connection_that_the_server_closes_is_made_anew() -> None:
    with answering(lambda number: LAST) as port:
        assert sent(port, rate=200, seconds=0.1, connections=2)["failed"] == 0


STARTS_OTHERS = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
time.sleep(600)
"""


def test_no_process_of_a_server_is_left() -> None:
    with family([sys.executable, "-c", STARTS_OTHERS], {}) as server:
        deadline = time.monotonic() + 30
        while len(server.members()) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        members = server.members()
        assert len(members) == 2
        server.settle()
        memory = server.memory()
        assert memory["rss_mb"] >= memory["pss_mb"] > 0
        assert server.cpu_seconds() > 0
    assert not [one for one in members if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
