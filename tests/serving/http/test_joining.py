"""Requests of one turn of the loop: whatever runs together, each has the answer that it has alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lanes import GATHER, SLOW, House, ask, post, quiet, until
from server_process import infer_request

from driftline.protocols import numbers
from driftline.protocols.mlflow.scoring import MlflowCodec
from driftline.protocols.v1 import V1Codec
from driftline.protocols.v2 import V2Codec
from driftline.serving.http import joining
from driftline.serving.http.connection import Connection
from driftline.tensors import Tensors


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> None:
    numbers.load()


async def at_once(house: House, requests: Sequence[bytes]) -> list[bytes]:
    """The answers to requests that come over connections of their own in one turn of the loop."""
    connections = [house.connect(house.lane) for _ in requests]
    for (protocol, _), request in zip(connections, requests, strict=True):
        protocol.data_received(request)
    for protocol, _ in connections:
        await until(partial(quiet, protocol))
        protocol.connection_lost(None)
    return [wire.written for _, wire in connections]


def alone(house: House, request: bytes) -> bytes:
    answer: bytes = house.run(house.talk(Connection, [request]))[0]
    return answer


def index(i: Any, **fields: Any) -> bytes:
    return post(json.dumps(infer_request({"i": ("INT64", [i])}, **fields)), GATHER)


def binary(row: Sequence[float], *answered: bool, cut: int = 0, **fields: Any) -> bytes:
    """A row as bytes; its outputs, `y` and `total`, too, or as JSON."""
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}
    outputs = [
        {"name": name, "parameters": {"binary_data": as_bytes}}
        for name, as_bytes in zip(("y", "total"), answered, strict=False)
    ]
    text = json.dumps({"inputs": [entry], "outputs": outputs, **fields})
    tail = np.array(row, "<f4").tobytes()
    return post(
        text.encode() + tail[: len(tail) - cut],
        "/v2/models/scale/infer",
        f"Inference-Header-Content-Length: {len(text)}",
    )


def rows(*rows: Any, **fields: Any) -> bytes:
    """Rows in KServe's v1, to a model with raw columns."""
    return text_of_rows(json.dumps({"instances": rows, **fields}))


def text_of_rows(text: str) -> bytes:
    return post(text, "/v1/models/raw:predict")


def instances(text: str) -> bytes:
    """Rows of three numbers in KServe's v1, whatever this text is."""
    return post(f'{{"instances": {text}}}', "/v1/models/scale:predict")


def indices(text: str) -> bytes:
    """The same of whole numbers, a row each."""
    return post(f'{{"instances": {text}}}', "/v1/models/gather:predict")


def scored(text: str) -> bytes:
    """A request in MLflow's protocol to the model of three numbers."""
    return post(text, "/models/scale/invocations", "Content-Type: application/json")


def split(text: str) -> bytes:
    """A table in MLflow's protocol, whatever its rows are."""
    return scored(f'{{"dataframe_split": {{"columns": ["a", "b", "c"], "data": {text}}}}}')


def row(a: Any = 1, c: Any = "x") -> dict[str, Any]:
    return {"a": a, "c": c}


numbers_of_a_row = st.lists(st.floats(-1e6, 1e6, width=32) | st.integers(-9, 9), min_size=3, max_size=3)
flat = numbers_of_a_row.map(lambda row: post(ask([[0, 0, 0]]).replace("[[0, 0, 0]]", json.dumps(row))))
requests = st.one_of(
    numbers_of_a_row.map(lambda row: post(ask([row]))),
    st.tuples(numbers_of_a_row, numbers_of_a_row).map(lambda rows: post(ask(list(rows)))),
    flat,
    numbers_of_a_row.map(lambda row: post(ask([row], outputs=[{"name": "total"}]))),
    numbers_of_a_row.map(lambda row: post(ask([row], id="a"))),
    st.integers(0, 12).map(index),
    st.builds(binary, numbers_of_a_row, st.booleans(), st.booleans(), cut=st.sampled_from([0, 0, 0, 1])),
    numbers_of_a_row.map(lambda row: binary(row, True, id="same")),
    st.sampled_from(
        [
            post(ask([["a", 1, 2]])), post(ask([[1, 2]])), post(ask([[[1, 2, 3]]])),
            post(ask([[1, 2, 3]])[:-1]),
            post(ask([[1, 2, 3]], parameters={"timeout": 60_000_000})), post(ask([[1, 2, float("nan")]])),
            post(ask([[1, 2, 3], [4, 5, 6]]).replace("[2, 3]", "[1, 3]")),
            post(ask([[1, 2, 3]]).replace("[[1, 2, 3]]", "[[1, 2, 3]], []")), post(ask([])),
            post(json.dumps(infer_request({"x": ("BYTES", [["ä"]])})), "/v2/models/text/infer"),
        ]
    ),
)  # fmt: skip

raw_rows = st.builds(
    row,
    st.one_of(st.floats(allow_nan=False), st.integers(-9, 9), st.none(), st.booleans()),
    st.sampled_from(["x", "[y]", "y", "]", "", None, 'a"],\n[', 1]),
)
raw_requests = st.one_of(
    raw_rows.map(rows),
    raw_rows.map(rows),
    st.tuples(raw_rows, raw_rows).map(lambda two: rows(*two)),
    st.sampled_from(
        [
            rows(), rows(1), rows([row()]), rows(row([1])), rows(row({})), rows({"a": 1}), rows(row(), a=1),
            rows({**row(), "d": 1}), text_of_rows('{"inputs": {"a": [1], "c": ["x"]}}'),
            text_of_rows('{"inputs": [{"a": 1, "c": "x"}]}'),
            text_of_rows('{"instances": [{"a": 1, "c": "x"}'),
            text_of_rows('{"instances": [{"a": 1, "c": "x]}'), text_of_rows('{"instances": ["}]}'),
            text_of_rows('{"instances": [{"a": 1, "a": 2, "c": "x"}]}'),
            text_of_rows(' { "instances" : [ { "a" : 1e3 , "c" : "x" } ] } '),
        ]
    ),
)  # fmt: skip


v1_requests = st.one_of(
    st.lists(numbers_of_a_row, min_size=1, max_size=1).map(json.dumps).map(instances),
    st.lists(numbers_of_a_row, min_size=1, max_size=3).map(json.dumps).map(instances),
    numbers_of_a_row.map(lambda row: post(json.dumps({"inputs": [row]}), "/v1/models/scale:predict")),
    numbers_of_a_row.map(lambda row: post(json.dumps({"inputs": {"x": [row]}}), "/v1/models/scale:predict")),
    numbers_of_a_row.map(lambda row: instances(json.dumps([{"x": row}]))),
    st.lists(st.integers(0, 12), min_size=1, max_size=3).map(json.dumps).map(indices),
    st.sampled_from([indices(text) for text in ("[[1]]", "[1, [2]]", "[1.5]", "[1], [2]", "[1", "2]")]),
    st.sampled_from(
        [
            instances(text)
            for text in (
                "[1, 2, 3]", "[[1, 2]]", "[[1, 2, 3, 4]]", "[[[1, 2, 3]]]", "[]", "[[]]", "[[1, 2, 3]",
                "[[1, 2, 3]]]", "[[1, 2, null]]", "[[1, 2, true]]", "[[1, 2, NaN]]", "[[1, 2, 1e999]]",
                '[[1, 2, "3"]]', "[[01, 2, 3]]", " [ [ 1 , 2 , 3 ] ] ", "[[1, 2, 3]], [[4, 5, 6]]",
                "[[1, 2, 3], 4, 5, 6]", "[[1, 2], [3]]", '[[1, 2, 3]], "a": 1',
            )
        ]
    ),
)  # fmt: skip


mlflow_requests = st.one_of(
    st.lists(numbers_of_a_row, min_size=1, max_size=1).map(json.dumps).map(split),
    st.lists(numbers_of_a_row, min_size=1, max_size=3).map(json.dumps).map(split),
    numbers_of_a_row.map(lambda row: scored(json.dumps({"inputs": [row]}))),
    numbers_of_a_row.map(lambda row: scored(json.dumps({"instances": [row], "params": {}}))),
    st.fixed_dictionaries({name: st.integers(-9, 9) for name in "abc"}).map(
        lambda row: scored(json.dumps({"dataframe_records": [row]}))
    ),
    st.tuples(numbers_of_a_row, st.sampled_from([1, 1, 2])).map(
        lambda case: scored(
            json.dumps({"dataframe_split": {"index": [0], "columns": None, "data": [case[0]] * case[1]}})
        )
    ),
    st.sampled_from(
        [
            split(text)
            for text in (
                "[1, 2, 3]", "[[1, 2]]", "[[1, 2, 3, 4]]", "[[[1, 2, 3]]]", "[]", "[[]]", "[[1, 2, 3]",
                "[[1, 2, 3]]]", "[[1, 2, null]]", "[[1, 2, true]]", "[[1, 2, NaN]]", "[[1, 2, 1e999]]",
                '[[1, 2, "3"]]', "[[01, 2, 3]]", " [ [ 1 , 2 , 3 ] ] ", "[[1, 2, 3]], [[4, 5, 6]]",
                "[[1, 2, 3], 4, 5, 6]", "[[1, 2], [3]]", '[[1, 2, 3]], "index": [7]', "[[3e38, 3e38, 3e38]]",
            )
        ]
    ),
)  # fmt: skip


@given(st.lists(mlflow_requests, min_size=2, max_size=8))
def test_so_it_is_in_mlflows_protocol(house: House, several: list[bytes]) -> None:
    expected = [alone(house, request) for request in several]
    assert house.run(at_once(house, several)) == expected


@given(st.lists(v1_requests, min_size=2, max_size=8))
def test_so_it_is_with_rows_of_numbers(house: House, several: list[bytes]) -> None:
    expected = [alone(house, request) for request in several]
    assert house.run(at_once(house, several)) == expected


@given(st.lists(raw_requests, min_size=2, max_size=8))
def test_so_it_is_with_rows_of_raw_columns(house: House, several: list[bytes]) -> None:
    expected = [alone(house, request) for request in several]
    assert house.run(at_once(house, several)) == expected


GOOD = post(ask([[1, 2, 3]]))


def data(text: str) -> bytes:
    """A request whose numbers are this text, whatever that is."""
    return post(ask([[1, 2, 3]]).replace("[[1, 2, 3]]", text))


@pytest.mark.parametrize(
    "several",
    [
        [GOOD, data("[[1, 2, 3]], [[4, 5, 6]]"), data("[[7, 8, 9]]"), data("[[10, 11"), data("12]]")],
        [GOOD, data("[[1, 2, 3], [4, 5, 6]]"), data("[[7, 8, 9]]"), data("[[10"), data("11, 12]]")],
        [data("[1, 2, 3], [4, 5, 6]"), data("[7, 8, 9]"), data("[10, 11"), data("12]")],
        [instances("[[1, 2, 3], [4, 5"), instances("[[7, 8, 9]]"), instances("6]]")],
        [instances("[[1, 2, 3]], [[4, 5, 6]]"), *map(instances, ("[[7, 8, 9]]", "[[1, 2", "3]]"))],
        [instances("[[1, 2, 3], [4, 5, 6]]"), *map(instances, ("[[7, 8], [9, 1], [2, 3]]", "[[1, 2, 3]]"))],
        [split("[[1, 2, 3], [4, 5"), split("[[7, 8, 9]]"), split("6]]")],
        [split("[[1, 2, 3]], [[4, 5, 6]]"), *map(split, ("[[7, 8, 9]]", "[[1, 2", "3]]"))],
        [split("[[1, 2, 3], [4, 5, 6]]"), *map(split, ("[[7, 8], [9, 1], [2, 3]]", "[[1, 2, 3]]"))],
        [indices("[1, 2], [3, 4]"), *map(indices, ("[5, 6]", "[7", "8], [9, 1]"))],
        [instances("[[1, 2, 3, 4]]"), instances("[[1, 2, 3, 4]]"), GOOD],  # the first is none of its own form
        [instances("[[1, 2, 3]]"), instances("[[1, 2, 9007199254740993.0000000000000001-3]]"), GOOD],
        [data("[[1, 2, 3]]"), data("[[1, 2, 9007199254740993.0000000000000001-3]]"), GOOD],
        [
            text_of_rows('{"instances": [{"a": [[1]}'), rows(row(7)),
            text_of_rows('{"instances": [2]], "a": 5, "c": "x"}], [{"a": 7, "c": "x"}, {"a": 8, "c": "x"}]}'),
        ],
        [
            text_of_rows('{"instances": [{"a": 1, "c": "x"}], [{"a": 2, "c": "x"}]}'), rows(row(7)),
            text_of_rows('{"instances": [{"a": 1, "c": "}]}'), text_of_rows('{"instances": [x"}]}'),
        ],
    ],
)  # fmt: skip
def test_who_conspires_gets_no_other_clients_answer(house: House, several: list[bytes]) -> None:
    house.run(at_once(house, [GOOD, GOOD, split("[[1, 2, 3]]")]))  # their forms are known
    expected = [alone(house, request) for request in several]
    assert house.run(at_once(house, several)) == expected


@given(st.lists(requests, min_size=2, max_size=8))
def test_each_has_the_answer_that_it_has_alone(house: House, several: list[bytes]) -> None:
    expected = [alone(house, request) for request in several]
    assert house.run(at_once(house, several)) == expected


@pytest.mark.parametrize(
    ("model", "codec", "make"),
    [
        ("scale", V2Codec, lambda value: post(ask([[value, 2, 3]]))),
        ("scale", V2Codec, lambda value: binary([value, 2, 3], True, False)),
        ("raw", V1Codec, lambda value: rows(row(value))),
        ("scale", V1Codec, lambda value: instances(f"[[{value}, 2, 3]]")),
        ("scale", MlflowCodec, lambda value: split(f"[[{value}, 2, 3]]")),
        ("scale", MlflowCodec, lambda value: scored(f'{{"inputs": [[{value}, 2, 3e38]]}}')),  # to Infinity
    ],
)
def test_requests_of_one_form_run_and_count_as_what_they_are(
    model: str,
    codec: type[Any],
    make: Callable[[int], bytes],
    house: House,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = []
    plain = codec.encode_all
    monkeypatch.setattr(
        codec, "encode_all", lambda *arguments: counts.append(arguments[-1]) or plain(*arguments)
    )
    counters = house.host.find(model).batcher.counters
    several = [make(row) for row in range(40)]
    expected = [alone(house, request) for request in several]
    before = counters.requests, counters.inferences, counters.executions
    assert house.run(at_once(house, several)) == expected
    after = counters.requests, counters.inferences, counters.executions
    assert [b - a for a, b in zip(before, after, strict=True)] == [40, 40, 1]
    assert counts == [40]


def test_no_more_rows_run_together_than_some_batches_have(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "MAX_BATCHES", 1)
    counters = house.host.find("scale").batcher.counters
    several = [instances(json.dumps([[value, 2, 3]] * 50)) for value in range(7)]
    expected = [alone(house, request) for request in several]
    before = counters.requests, counters.inferences, counters.executions
    assert house.run(at_once(house, several)) == expected
    after = counters.requests, counters.inferences, counters.executions
    assert [b - a for a, b in zip(before, after, strict=True)] == [7, 350, 4]  # of 128 rows at most


@pytest.mark.parametrize("path", ["/v1/models/whole:predict", "/v2/models/whole/infer"])
def test_a_model_whose_requests_run_whole_has_them_alone(path: str, house: House) -> None:
    texts = (
        json.dumps({"instances": [[value, 2, 3]]}) if "v1" in path else ask([[value, 2, 3]])
        for value in (1, 2, 3)
    )
    several = [*(post(text, path) for text in texts), GOOD]
    expected = [alone(house, request) for request in several]
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in expected)
    assert house.run(at_once(house, several)) == expected


@pytest.mark.parametrize("method", ["form", "read_rows", "encode_all"])
def test_a_fault_in_putting_together_leaves_nobody_without_an_answer(
    method: str, house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("of ours")

    several = [rows(row(1)), rows(row(2)), GOOD]
    expected = [alone(house, request) for request in several]
    monkeypatch.setattr(V1Codec, method, fail)
    assert house.run(at_once(house, several)) == expected
    assert ("of ours" in caplog.text) == (method != "encode_all")


def test_outputs_that_are_not_of_all_rows_are_dealt_to_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = house.host.find("scale")
    several = [instances("[[1, 2, 3]]"), instances("[[4, 5, 6]]")]
    expected = [alone(house, request) for request in several]
    run = served.batcher._run

    def twice(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        results = run(inputs, outputs)
        many = len(next(iter(inputs.values()))) > 1
        return {name: np.concatenate([array, array]) if many else array for name, array in results.items()}

    monkeypatch.setattr(served.batcher, "_run", twice)
    assert house.run(at_once(house, several)) == expected


def test_a_bad_neighbour_fails_alone_and_once(house: House) -> None:
    counters = house.host.find("gather").batcher.counters
    several = [index(3), index(4), index(77), index(5)]
    expected = [alone(house, request) for request in several]
    before = counters.requests, counters.failures.total()
    assert house.run(at_once(house, several)) == expected
    assert (counters.requests, counters.failures.total()) == (before[0] + 3, before[1] + 1)


def test_who_leaves_leaves_the_others(house: House) -> None:
    async def leave() -> list[bytes]:
        connections = [house.connect(house.lane) for _ in range(3)]
        for protocol, _ in connections:
            protocol.data_received(SLOW)
        house.app.joiner.start()
        connections[1][0].connection_lost(ConnectionResetError())
        for protocol, _ in (connections[0], connections[2]):
            await until(partial(quiet, protocol))
            protocol.connection_lost(None)
        return [wire.written for _, wire in connections]

    expected = alone(house, SLOW)
    first, closed, last = house.run(leave())
    assert first == last == expected
    assert closed == b""


def test_who_can_not_be_answered_leaves_the_others(house: House, caplog: pytest.LogCaptureFixture) -> None:
    def fail(data: bytes) -> None:
        raise RuntimeError("the wire is cut")

    async def cut() -> list[bytes]:
        connections = [house.connect(house.lane) for _ in range(3)]
        connections[1][1].write = fail  # type: ignore[method-assign, assignment]
        for protocol, _ in connections:
            protocol.data_received(GOOD)
        for protocol, _ in (connections[0], connections[2]):
            await until(partial(quiet, protocol))
        for protocol, _ in connections:
            protocol.connection_lost(None)
        return [wire.written for _, wire in connections]

    expected = alone(house, GOOD)
    assert house.run(cut()) == [expected, b"", expected]
    assert "the wire is cut" in caplog.text
    assert not house.host.find("scale").batcher.running


def test_what_can_not_be_queued_together_is_queued_alone(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batcher = house.host.find("scale").batcher
    several = [post(ask([[row, 2, 3]])) for row in range(4)]
    expected = [alone(house, request) for request in several]
    monkeypatch.setattr(type(batcher.limits), "max_queue_rows", 3, raising=False)
    answers = house.run(at_once(house, several))
    assert answers[:3] == expected[:3]
    assert answers[3].startswith((b"HTTP/1.1 503", b"HTTP/1.1 429"))


def test_each_of_those_that_run_together_has_the_coding_that_it_wants(house: House) -> None:
    rows = np.arange(300.0).reshape(100, 3)
    requests = [
        post(ask((rows + number).tolist()), "/v2/models/scale/infer", f"accept-encoding: {coding}")
        for number, coding in enumerate(["gzip", "deflate", "gzip, deflate", "gzip"])
    ]
    expected = [alone(house, request) for request in requests]
    assert [b"content-encoding" in answer for answer in expected] == [True, True, False, True]
    for _ in range(2):  # the second time, by their heads
        assert house.run(at_once(house, requests)) == expected
