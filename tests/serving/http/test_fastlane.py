"""The two lanes, over connections in memory: the same bytes in, cut anywhere, give the same bytes out."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import zlib
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from lanes import GATHER, MOST, SLOW, House, ask, headed, post, quiet, until
from server_process import infer_request
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from driftline.http import IncompleteRequests
from driftline.serving.http import exchange, fastlane, infer
from driftline.serving.http.connection import Connection
from driftline.serving.http.exchange import Exchange
from driftline.serving.http.fastlane import fast_lane

JSON = "content-type: application/json"
ONE = post(ask([[1, 2, 3]]))
BINARY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}],
     "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
)  # fmt: skip
REQUESTS = {
    "one row": ONE,
    "rows": post(ask(np.arange(30.0).reshape(10, 3).tolist(), id="7", outputs=[{"name": "total"}])),
    "binary": post(BINARY.encode() + np.arange(3, dtype="<f4").tobytes(), "/v2/models/scale/versions/1/infer",
                   f"Inference-Header-Content-Length: {len(BINARY)}"),
    "a wrong length of JSON": headed("Inference-Header-Content-Length: x"),
    "v1": post('{"instances": [[1, 2, 3]]}', "/v1/models/scale:predict", "content-type: application/json"),
    "text": post(json.dumps(infer_request({"x": ("BYTES", [["ä"], [""]])})), "/v2/models/text/infer"),
    "refused by the model": post(json.dumps(infer_request({"i": ("INT64", [77])})), GATHER),
    "slow": SLOW,
    "MLflow, tensors": post('{"inputs": [[1, 2, 3]]}', "/models/scale/invocations", JSON),
    "MLflow, rows": post('{"dataframe_split": {"data": [[1, NaN, 3]]}}', "/models/scale/invocations", JSON),
    "MLflow, the default": post('{"inputs": [7]}', "/invocations", JSON),
    "MLflow, CSV": post("a,b,c\n1,2,3\n", "/models/scale/invocations", "content-type: text/csv"),
    "MLflow, refused": post('{"inputs": [[1, 2]]}', "/models/scale/invocations", JSON),
    "MLflow, no JSON": post("{", "/models/scale/invocations", JSON),
    "MLflow, no content type": post("{}", "/models/scale/invocations"),
    "MLflow, no such model": post("{}", "/models/none/invocations", JSON),
    "MLflow, too large": post(" " * (MOST + 1), "/invocations", JSON),
    "MLflow, another method": post("{}", "/invocations", JSON).replace(b"POST", b"GET"),
    "no JSON": post("{"), "nothing": post(""), "another shape": post(ask([1, 2])),
    "too large": post(" " * (MOST + 1)), "no such model": post("{}", "/v2/models/none/infer"),
    "no such version": post("{}", "/v2/models/scale/versions/9/infer"),
    "no inference": b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n",
    "no host": ONE.replace(b"host: x\r\n", b""), "two hosts": headed("Host: y"),
    "HTTP/1.0, no host": b"GET /v2/health/live HTTP/1.0\r\n\r\n",
    "no such page": post("{}", "/v2/models/scale/inferno"),
    "another method": ONE.replace(b"POST", b"PUT"), "a query": ONE.replace(b"/infer", b"/infer?a=b"),
    "an escape": ONE.replace(b"/infer", b"/%69nfer"), "HTTP/1.0": post(ask([[1, 2, 3]]), version="1.0"),
    "to be closed": headed("Connection: close"),
    "expected": headed("Expect: 100-continue"),
    "compressed": post(b"\x1f", "/v2/models/scale/infer", "Content-Encoding: gzip"),
    "to be compressed": post(ask(np.arange(300.0).reshape(100, 3).tolist()), "/v2/models/scale/infer",
                             "Accept-Encoding: gzip"),
    "two wishes": post(ask(np.arange(300.0).reshape(100, 3).tolist()), "/v2/models/scale/infer",
                       "Accept-Encoding: gzip", "Accept-Encoding: br"),
    "nothing to compress": headed("Accept-Encoding: deflate"),
    "an upgrade": headed("Connection: upgrade", "Upgrade: h2c"),
    "chunked": b"POST /v2/models/scale/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
               b"%x\r\n%s\r\n0\r\n\r\n" % (len(ask([[1, 2, 3]])), ask([[1, 2, 3]]).encode()),
    "a huge head": headed("x: " + "y" * 5000),
    "no HTTP": b"\x16\x03\x01\r\n\r\n", "two lengths": headed("content-length: 1"),
    "folded": ONE.replace(b"host: x", b"host: x\r\n y"), "bare line feeds": ONE.replace(b"\r\n", b"\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_both_lanes_answer_alike_and_twice(house: House, name: str) -> None:
    request = REQUESTS[name]
    once, _ = house.both(request)
    house.both(request, request)  # by its head, the second time
    assert once


@pytest.mark.parametrize("name", ["one row", "binary", "no JSON", "chunked", "two lengths", "an upgrade"])
def test_a_request_may_be_cut_anywhere(house: House, name: str) -> None:
    request = REQUESTS[name]
    whole = house.both(request)
    for cut in range(1, len(request)):
        assert house.both(request[:cut], request[cut:]) == whole
    assert house.both(*(request[i : i + 1] for i in range(len(request)))) == whole


@pytest.mark.parametrize("name", ["one row", "chunked", "no inference", "another method"])
def test_who_asks_for_another_protocol_is_answered_in_this_one(house: House, name: str) -> None:
    head, _, body = REQUESTS[name].partition(b"\r\n\r\n")
    asking = (
        head + b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    )
    plain, _ = house.both(REQUESTS[name])
    assert house.both(asking, body)[0] == plain  # Java's HttpClient, and curl --http2
    assert house.both((asking + body) * 5 + REQUESTS[name])[0] == plain * 6


def test_a_body_behind_such_a_head_is_no_request(house: House) -> None:
    inner = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    asking = post(inner, "/v2/models/scale/infer", "Connection: upgrade", "Upgrade: x")
    answer, _ = house.both(asking[: -len(inner)], inner)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("before", [b"", ONE], ids=["at first", "behind another"])
@pytest.mark.parametrize(
    ("start", "line"),
    [
        (b"GET /v2/health/live HTTP/1.1\r\nx: ", b"y" * 10_000),
        (b"GET /v2/health/live HTTP/1.1\r\n", b"x: y\r\n" * 2_000),
        (b"POST /v2/models/", b"x" * 10_000),
        (b"", b"\r\n" * 5_000),
        (REQUESTS["chunked"][:-2] + b"x: ", b"y" * 10_000),
    ],
    ids=["a header", "headers", "a path", "empty lines", "a trailer"],
)
def test_no_head_is_without_end(house: House, before: bytes, start: bytes, line: bytes) -> None:
    answer, closed = house.both(*([before] if before else []), *([start] if start else []), *([line] * 8))
    assert closed
    refused = answer.count(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert refused == 1
    assert answer.count(b"HTTP/1.1 ") == refused + bool(before)


@pytest.mark.parametrize("name", ["one row", "slow", "chunked", "no inference", "a query"])
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (REQUESTS["no HTTP"], "the request is not valid HTTP"),
        (REQUESTS["no host"], "expected one Host header, got none"),
        (REQUESTS["two hosts"], "expected one Host header, got 2"),
        (
            REQUESTS["chunked"].partition(b"\r\n\r\n")[0] + b"\r\n\r\nzz\r\n",
            "the request is not valid HTTP",
        ),
    ],
    ids=["garbage", "no host", "two hosts", "a wrong chunk"],
)
def test_what_was_asked_before_what_is_refused_is_answered(
    house: House, name: str, wrong: bytes, reason: str
) -> None:
    before, _ = house.both(REQUESTS[name])
    answer, closed = house.both(REQUESTS[name] * 3 + wrong)
    assert closed
    assert answer.startswith(before * 3 + b"HTTP/1.1 400 ")
    assert answer.endswith(json.dumps({"error": reason}, separators=(",", ":")).encode())
    assert answer.count(b"HTTP/1.1 ") == 4


def test_long_paths_are_not_kept(house: House) -> None:
    before = house.app._cached_endpoint.cache_info().currsize
    for number in range(3):
        house.both(post("{}", f"/v2/models/{'x' * 2_000}{number}/infer"))
    assert house.app._cached_endpoint.cache_info().currsize == before


@given(st.lists(st.sampled_from(sorted(REQUESTS)), min_size=2, max_size=5), st.data())
def test_requests_one_behind_the_other_are_answered_in_order(
    house: House, names: list[str], data: st.DataObject
) -> None:
    stream = b"".join(REQUESTS[name] for name in names)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    ends = [0, *cuts, len(stream)]
    house.both(*(stream[a:b] for a, b in pairwise(ends) if a < b))


@given(st.sampled_from([ONE, REQUESTS["binary"], REQUESTS["v1"], REQUESTS["MLflow, rows"]]), st.data())
def test_whatever_is_sent_both_lanes_answer_alike(house: House, request: bytes, data: st.DataObject) -> None:
    mutated = bytearray(request)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(mutated) - 1))
        mutated[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    house.both(request, bytes(mutated))
    house.both(bytes(mutated), request)


def test_plain_requests_take_the_fast_lane_whether_their_head_is_known_or_not(house: House) -> None:
    async def lanes() -> None:
        house.lane.heads.clear()
        for known in (False, True):
            assert bool(house.lane.heads) is known
            protocol, wire = house.connect(house.lane)
            protocol.data_received(ONE)
            assert isinstance(protocol.cycle, Exchange)
            await until(partial(getattr, wire, "written"))
            protocol.connection_lost(None)
        protocol, wire = house.connect(house.lane)
        protocol.data_received(REQUESTS["a query"])
        assert not isinstance(protocol.cycle, Exchange)
        await until(lambda: wire.written)
        protocol.connection_lost(None)

    house.run(lanes())


@pytest.mark.parametrize("long", [False, True])
def test_who_asks_for_it_is_answered_compressed(
    house: House, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    if long:  # then it is done in a thread
        monkeypatch.setattr(exchange, "LONG", 0)
    request = REQUESTS["to be compressed"]
    plain, _ = house.both(request.replace(b"Accept-Encoding", b"x"))
    packed, _ = house.both(request, request)
    head, _, body = packed.partition(b"\r\n\r\n")
    assert b"\r\ncontent-encoding: gzip\r\nvary: accept-encoding" in head
    assert zlib.decompressobj(31).decompress(body) == plain.partition(b"\r\n\r\n")[2]


def test_lines_of_accepted_codings_are_one_list(house: House) -> None:
    for _ in range(2):
        assert b"content-encoding" not in house.both(REQUESTS["two wishes"])[0]


@pytest.mark.parametrize("failing", ["at once", "in a thread", "without a thread"])
def test_an_answer_that_cannot_be_compressed_goes_as_it_is(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failing: str
) -> None:
    def fail(*arguments: object) -> bytes:
        raise MemoryError

    def no_thread(*arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    async def lane() -> bytes:
        protocol, wire = house.connect(house.lane)
        if failing == "without a thread":
            monkeypatch.setattr(protocol.loop, "run_in_executor", no_thread)
        protocol.data_received(request)
        await until(partial(quiet, protocol))
        protocol.connection_lost(None)
        return wire.written

    request = REQUESTS["to be compressed"]
    plain = house.run(house.talk(house.lane, [request.replace(b"Accept-Encoding", b"x")]))[0]
    monkeypatch.setattr(exchange, "compress", fail)
    if failing != "at once":
        monkeypatch.setattr(exchange, "LONG", 0)
    assert house.run(lane()) == plain
    assert "a response can't be compressed and is sent as it is" in caplog.text


@pytest.mark.parametrize(
    ("name", "status", "answer"),
    [
        ("tensors", 200, {"predictions": {"y": [[2, 4, 6]], "total": [12]}}),
        ("the default", 200, {"predictions": {"y": [[7]]}}),
        ("CSV", 200, {"predictions": [{"y": [2, 4, 6], "total": 12}]}),
        ("refused", 400, "BAD_REQUEST"),
        ("no JSON", 400, "BAD_REQUEST"),
        ("no content type", 415, "BAD_REQUEST"),
        ("no such model", 404, "RESOURCE_DOES_NOT_EXIST"),
        ("too large", 413, "BAD_REQUEST"),
        ("another method", 405, "BAD_REQUEST"),
    ],
)
def test_mlflow_has_errors_of_its_own_form(house: House, name: str, status: int, answer: object) -> None:
    written, _ = house.both(REQUESTS[f"MLflow, {name}"])
    head, body = written.split(b"\r\n\r\n")
    document = json.loads(body)
    assert head.split()[1] == b"%d" % status
    assert (document if status == 200 else document["error_code"]) == answer
    assert status == 200 or set(document) == {"error_code", "message"}


def test_heads_in_memory_are_few(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastlane, "MAX_HEADS", 3)
    for number in range(10):
        house.run(house.talk(house.lane, [post("{}", "/v2/models/scale/infer", f"id: {number}")]))
    assert 0 < len(house.lane.heads) <= 3
    house.lane.heads.clear()
    house.run(house.talk(house.lane, [REQUESTS["a huge head"]]))
    assert not house.lane.heads


@pytest.mark.parametrize("fast", [True, False])
def test_a_body_that_does_not_come_is_not_waited_for_for_ever(
    fast: bool, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange if fast else infer, "BODY_SECONDS", 0.05)

    async def wait() -> bytes:
        protocol, wire = house.connect(house.lane if fast else Connection)
        protocol.data_received(ONE[:-1])
        await until(lambda: wire.closed)
        protocol.connection_lost(None)
        return wire.written

    answer = house.run(wait())
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert answer.lower().count(b"connection: close\r\n") == 1


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([], id="silence"),
        pytest.param([ONE[:20]], id="a part of a head"),
        pytest.param([ONE, ONE[:20]], id="a part of another head"),
        pytest.param([ONE, ONE[:20], ONE[20:30]], id="a part of another head, and a little more"),
        pytest.param([post("", "/v2/models/scale/infer").replace(b"h: 0", b"h: 999999999") + b"{"], id="413"),
    ],
)
def test_nobody_has_a_connection_for_ever(
    parts: list[bytes], house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait() -> int:
        protocol, wire = house.connect(house.lane)
        protocol.timeout_keep_alive = 0.01
        protocol.timeout_keep_alive_task.cancel()
        protocol.timeout_keep_alive_handler()  # it was for uvicorn's five seconds
        for part in parts:
            protocol.data_received(part)
            await until(lambda: quiet(protocol))
        await asyncio.sleep(0.05)
        assert not wire.closed, "it may take longer than to say nothing between two requests"
        monkeypatch.setattr(fastlane, "BODY_SECONDS", 0.02)
        await until(lambda: wire.closed)
        protocol.connection_lost(None)
        return wire.written.count(b"HTTP/1.1 ")

    first = wait()
    monkeypatch.setattr(fastlane, "BODY_SECONDS", 60)
    assert house.run(first) == (1 if parts and parts[0] != ONE[:20] else 0)


@pytest.mark.parametrize("name", ["one row", "a query", "chunked"])
@pytest.mark.parametrize("fast", [True, False])
def test_bodies_that_come_in_parts_take_no_more_memory_than_they_may(
    fast: bool, name: str, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = REQUESTS[name]
    monkeypatch.setattr(IncompleteRequests, "limit", 3 * len(request))

    async def crowd() -> list[bytes]:
        clients = [house.connect(house.lane if fast else Connection) for _ in range(5)]
        for protocol, _ in clients:
            protocol.data_received(request[:-1])
        await until(lambda: all(wire.closed for _, wire in clients[3:]))
        for protocol, wire in clients[:3]:
            protocol.data_received(request[-1:])
            await until(lambda wire=wire: wire.written)
        for protocol, _ in clients:
            protocol.connection_lost(None)
        return [wire.written[:12] for _, wire in clients]

    before = IncompleteRequests.size
    assert house.run(crowd()) == [b"HTTP/1.1 200"] * 3 + [b"HTTP/1.1 503"] * 2
    assert IncompleteRequests.size == before


@pytest.mark.parametrize("fast", [True, False])
def test_requests_that_have_come_whole_are_not_among_those(
    fast: bool, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read has the end of one and the beginning of the next."""
    request, count = REQUESTS["one row"], 20
    monkeypatch.setattr(IncompleteRequests, "limit", 3 * len(request))

    async def follow() -> bytes:
        protocol, wire = house.connect(house.lane if fast else Connection)
        together, half = request * count, len(request) // 2
        protocol.data_received(together[:half])
        for start in range(half, len(together), len(request)):
            protocol.data_received(together[start : start + len(request)])
        await until(lambda: wire.written.count(b"HTTP/1.1 ") == count or wire.closed)
        protocol.connection_lost(None)
        return wire.written

    before = IncompleteRequests.size
    assert house.run(follow()).count(b"HTTP/1.1 200") == count
    assert IncompleteRequests.size == before


def test_who_leaves_takes_the_request_along(house: House) -> None:
    async def leave() -> tuple[int, bytes]:
        served = house.host.find("slow")
        before = served.batcher.counters.failures["CANCELED"]
        protocol, wire = house.connect(house.lane)
        protocol.data_received(SLOW)
        assert isinstance(protocol.cycle, Exchange)
        house.app.joiner.start()
        protocol.connection_lost(ConnectionResetError())
        await served.batcher.drain()
        return served.batcher.counters.failures["CANCELED"] - before, wire.written

    assert house.run(leave()) == (1, b"")


def test_a_server_that_stops_answers_first_and_closes_then(house: House) -> None:
    async def stop() -> tuple[bytes, bool, bool]:
        protocol, wire = house.connect(house.lane)
        protocol.data_received(ONE)
        protocol.shutdown()
        early = wire.closed
        await until(lambda: wire.closed)
        protocol.connection_lost(None)
        return wire.written, early, wire.closed

    answer, early, closed = house.run(stop())
    assert (early, closed) == (False, True)
    assert b"connection: close\r\n\r\n{" in answer


def test_a_server_that_stops_reads_what_waits_behind_a_slow_request(house: House) -> None:
    async def stop() -> bytes:
        protocol, wire = house.connect(house.lane)
        protocol.data_received(SLOW)
        protocol.data_received(ONE[:-1])
        assert protocol.flow.read_paused
        protocol.shutdown()
        for _ in range(3):
            protocol._end_if_stalled()
        await until(lambda: not protocol.flow.read_paused)
        protocol._end_if_stalled()
        protocol.data_received(ONE[-1:])
        await until(lambda: wire.closed)
        protocol.connection_lost(None)
        return wire.written

    answers = house.run(stop())
    assert answers.count(b"HTTP/1.1 200") == 2
    assert b"503" not in answers


def test_idle_connections_are_closed_and_busy_ones_are_not(house: House) -> None:
    async def idle() -> bool:
        protocol, wire = house.connect(house.lane)
        protocol.timeout_keep_alive = 0.05
        for _ in range(10):
            protocol.data_received(ONE)
            await until(lambda: quiet(protocol))
        protocol.data_received(ONE[:-1])
        await asyncio.sleep(0.2)
        assert not wire.closed, "a request is on its way"
        protocol.data_received(ONE[-1:])
        await until(lambda: wire.closed)
        protocol.connection_lost(None)
        return wire.written.count(b"HTTP/1.1 200 OK") == 11

    assert house.run(idle())


def test_a_client_that_does_not_read_is_answered_the_slower_way(house: House) -> None:
    async def full() -> bool:
        protocol, _ = house.connect(house.lane)
        protocol.pause_writing()
        protocol.data_received(ONE)
        fast = isinstance(protocol.cycle, Exchange)
        protocol.connection_lost(None)
        await asyncio.sleep(0.01)
        return fast

    assert not house.run(full())


def test_the_access_log_has_both_lanes(house: House, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "uvicorn.access"):
        house.run(house.talk(house.lane, [ONE, ONE, REQUESTS["a query"]]))
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert lines[0] == lines[1] == ' - "POST /v2/models/scale/infer HTTP/1.1" 200'
    assert lines[2] == ' - "POST /v2/models/scale/infer?a=b HTTP/1.1" 200'


def test_another_uvicorn_is_noticed(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def choose() -> type[Connection]:
        return fast_lane(house.app)

    def renamed(self: Connection) -> None:
        raise AttributeError("cycle")

    monkeypatch.setattr(Connection, "on_message_complete", renamed)
    assert house.run(choose()) is Connection
    assert f"uvicorn {uvicorn.__version__} is not as expected" in caplog.text


@pytest.mark.parametrize("name", ["one row", "a query", "chunked"])
@pytest.mark.parametrize("fast", [True, False])
def test_what_has_come_goes_with_its_client_and_not_with_the_garbage(
    fast: bool, name: str, house: House
) -> None:
    async def leave() -> None:
        for _ in range(20):
            protocol, _ = house.connect(house.lane if fast else Connection)
            protocol.data_received(REQUESTS[name][:-1])
            await asyncio.sleep(0)
            protocol.connection_lost(None)
            await until(lambda protocol=protocol: not protocol.tasks)
            del protocol

    kinds = (Exchange, RequestResponseCycle)
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(item, kinds) for item in gc.get_objects())
        house.run(leave())
        assert sum(isinstance(item, kinds) for item in gc.get_objects()) < before + 5
    finally:
        gc.enable()


def test_an_exchange_goes_with_its_answer_and_not_with_the_garbage(house: House) -> None:
    gc.collect()
    gc.disable()
    try:
        house.run(house.talk(house.lane, [ONE] * 50))
        assert sum(type(item) is Exchange for item in gc.get_objects()) < 10
    finally:
        gc.enable()
