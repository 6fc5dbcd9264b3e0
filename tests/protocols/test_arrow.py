"""Arrow streams as requests and answers."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import BadRequest
from driftline.protocols.arrow import ArrowCodec
from driftline.tensors import DATATYPES, Signature, TensorSpec


def spec(name: str, datatype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, DATATYPES[datatype], shape)


def codec(*inputs: TensorSpec) -> ArrowCodec:
    outputs = (spec("label", "INT64", -1), spec("scores", "FP32", -1, 2), spec("word", "BYTES", -1))
    return ArrowCodec(Signature(inputs, outputs, batched=True), "m", 3)


def stream(table: pa.Table, rows: int | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return bytes(sink.getvalue().to_pybytes())


@given(st.integers(1, 30), st.integers(1, 30))
def test_columns_become_tensors_in_whatever_batches_they_come(rows: int, chunk: int) -> None:
    x = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    words = [f"w{i}" for i in range(rows)]
    table = pa.table(
        {"s": words, "x_0": x[:, 0], "x_1": x[:, 1].astype(np.int32), "n": pa.array(range(rows))}
    )
    request = codec(spec("x", "FP32", -1, 2), spec("s", "BYTES", -1), spec("n", "FP32", -1)).decode(
        stream(table, chunk)
    )
    np.testing.assert_array_equal(request.inputs["x"], x)
    assert request.inputs["s"].tolist() == words
    assert request.inputs["n"].dtype == np.float32
    assert request.outputs == ("label", "scores", "word")


def test_one_column_of_the_right_type_is_not_copied() -> None:
    body = stream(pa.table({"n": np.arange(1000.0, dtype=np.float32)}))
    array = codec(spec("n", "FP32", -1)).decode(body).inputs["n"]
    assert not array.flags.owndata
    assert array.tolist() == list(range(1000))


def test_the_answer_has_the_outputs_columns_and_names_the_version() -> None:
    one = codec(spec("n", "FP32", -1))
    request = one.decode(stream(pa.table({"n": np.zeros(2, np.float32)})))
    outputs: dict[str, Any] = {
        "label": np.array([1, 2]),
        "scores": np.array([[0.5, np.nan], [1, 2]], np.float32),
        "word": np.array(["a", "ü"], object),
    }
    body, length = one.encode(request, outputs)
    assert length is None
    answer = pa.ipc.open_stream(body).read_all()
    assert answer.schema.metadata == {b"model_name": b"m", b"model_version": b"3"}
    assert answer.column_names == ["label", "scores_0", "scores_1", "word"]
    assert answer["word"].to_pylist() == ["a", "ü"]
    assert answer["scores_1"].to_pylist()[1] == 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the request is no valid Arrow stream"),
        (b"garbage" * 10, "the request is no valid Arrow stream"),
        (stream(pa.table({"n": np.zeros(9, np.float32)}))[:-90], "the request is no valid Arrow stream"),
        (stream(pa.table({"n": pa.array([], pa.float32())})), "expected rows in the Arrow stream, came none"),
        (stream(pa.table({"m": [1.0], "o": [1.0]})), "input 'n': expected a column of this name"),
        (stream(pa.table({"n": ["a"]})), "column 'n': expected FP32, came string"),
        (stream(pa.table({"n": [[1.0, 2.0]]})), "column 'n': expected FP32, came list"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        codec(spec("n", "FP32", -1)).decode(body)
    assert message in str(caught.value)


@given(st.binary(max_size=300), st.integers(0, 500))
def test_broken_streams_are_refused_or_read(noise: bytes, place: int) -> None:
    body = bytearray(stream(pa.table({"n": np.arange(20, dtype=np.float32)})))
    body[place : place + len(noise)] = noise
    with suppress(BadRequest):  # and nothing else
        codec(spec("n", "FP32", -1)).decode(bytes(body))
