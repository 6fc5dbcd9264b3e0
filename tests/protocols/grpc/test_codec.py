from __future__ import annotations

import json
import math
from typing import Any

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import BadRequest
from driftline.protocols.grpc.codec import GrpcCodec, as_rest_request, end_within
from driftline.protocols.grpc.messages import ModelInferRequest, ModelInferResponse
from driftline.protocols.grpc.wire import Received, read
from driftline.protocols.v2 import V2Codec
from driftline.tensors import DATATYPES, Signature, TensorSpec

TYPED = {
    "BOOL": ("bool_contents", [True, False, True]),
    "INT8": ("int_contents", [-128, 0, 127]),
    "INT16": ("int_contents", [-(2**15), 0, 2**15 - 1]),
    "INT32": ("int_contents", [-(2**31), 0, 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 0, 2**63 - 1]),
    "UINT8": ("uint_contents", [0, 1, 255]),
    "UINT16": ("uint_contents", [0, 1, 2**16 - 1]),
    "UINT32": ("uint_contents", [0, 1, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 1, 2**64 - 1]),
    "FP32": ("fp32_contents", [0.5, math.inf, math.nan]),
    "FP64": ("fp64_contents", [0.1, -math.inf, math.nan]),
    "BYTES": ("bytes_contents", [b"", "é".encode(), b"a\0b"]),
}


def signature(datatype: str, shape: tuple[int, ...] = (-1,)) -> Signature:
    spec = DATATYPES[datatype]
    return Signature((TensorSpec("x", spec, shape),), (TensorSpec("y", spec, shape),), True)


def codec(datatype: str = "FP32", shape: tuple[int, ...] = (-1,)) -> GrpcCodec:
    return GrpcCodec(signature(datatype, shape), "model", 3)


def request_of(
    datatype: str = "FP32", shape: tuple[int, ...] = (1,), *raw: bytes, **contents: Any
) -> Received:
    message = ModelInferRequest(model_name="model", id="7", raw_input_contents=raw)
    tensor = message.inputs.add(name="x", datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    return read(message.SerializeToString())


@pytest.mark.parametrize("datatype", sorted(TYPED))
def test_typed_contents(datatype: str) -> None:
    field, values = TYPED[datatype]
    decoded = codec(datatype).decode(request_of(datatype, (3,), **{field: values}))
    texts = [value.decode() for value in values] if datatype == "BYTES" else values
    expected = np.array(texts, DATATYPES[datatype].dtype)
    assert decoded.inputs["x"].dtype == expected.dtype
    np.testing.assert_array_equal(decoded.inputs["x"], expected)


@given(st.sampled_from(sorted(DATATYPES)), st.data())
def test_raw_contents_there_and_back(datatype: str, data: st.DataObject) -> None:
    values: Any = {"BYTES": st.text(max_size=5), "BOOL": st.booleans()}.get(datatype)
    if values is None and datatype.startswith("FP"):
        values = st.floats(width=int(datatype[2:]))  # type: ignore[arg-type]
    elif values is None:
        limits = np.iinfo(DATATYPES[datatype].dtype)
        values = st.integers(int(limits.min), int(limits.max))
    shape = (data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3)))
    values_drawn = data.draw(st.lists(values, min_size=math.prod(shape), max_size=math.prod(shape)))
    content = naive.tensor_bytes(datatype, values_drawn)
    echo = codec(datatype, (-1, -1))
    decoded = echo.decode(request_of(datatype, shape, content))
    response = ModelInferResponse.FromString(echo.encode(decoded, {"y": decoded.inputs["x"]})[0])
    assert (response.model_name, response.model_version, response.id) == ("model", "3", "7")
    (output,) = response.outputs
    assert (output.name, output.datatype, tuple(output.shape)) == ("y", datatype, shape)
    assert list(response.raw_output_contents) == [content]
    # And what is logged of it is what would have been asked and answered over REST.
    rest_codec = V2Codec(signature(datatype, (-1, -1)), "model", 3)
    again = rest_codec.decode(*as_rest_request(request_of(datatype, shape, content)))
    np.testing.assert_array_equal(again.inputs["x"], decoded.inputs["x"])
    body, length = echo.as_rest(decoded, {"y": decoded.inputs["x"]})
    assert body[length:] == content
    assert json.loads(body[:length])["outputs"][0]["shape"] == list(shape)


def test_aligned_tensors_are_not_copied() -> None:
    received = request_of("UINT8", (2**16,), bytes(2**16))
    inputs = codec("UINT8").decode(received).inputs
    assert np.shares_memory(inputs["x"], np.frombuffer(received.raw[0], np.uint8))


def test_typed_contents_are_logged_as_json() -> None:
    body, length = as_rest_request(request_of("BYTES", (2,), bytes_contents=[b"a", b"\xff"]))
    assert length == len(body)
    assert json.loads(body)["inputs"][0]["data"] == ["a", "\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize(
    ("received", "message"),
    [
        (request_of("FP32", (2,), b"1234"), r"input 'x': expected 8 bytes for FP32 \[2\], got 4"),
        (request_of("FP32", (1, 1), b"1234"), r"input 'x': expected shape \[-1\], got \[1, 1\]"),
        (request_of("FP32", (-1,), b"1234"), r"input 'x': expected shape \[-1\], got \[-1\]; -1 stands for"),
        (request_of("FP64", (1,), b"12345678"), "input 'x': expected datatype FP32, got 'FP64'"),
        (request_of("FP32", (1,), b"", b""), "'raw_input_contents': expected 1, one for each input, got 2"),
        (
            request_of("FP32", (1,), b"1234", fp32_contents=[1]),
            "input 'x': expected raw_input_contents alone, got fp32_contents too",
        ),
        (
            request_of("FP32", (1,), fp64_contents=[1]),
            "input 'x': expected fp32_contents for FP32, got fp64_contents",
        ),
        (
            request_of("FP32", (2,), fp32_contents=[1]),
            r"input 'x': expected 2 elements for shape \[2\], got 1",
        ),
        (request_of("FP32", (1,)), r"input 'x': expected 1 elements for shape \[1\], got 0"),
        (request_of("FP16", (1,)), "input 'x': expected FP16 in raw_input_contents, got contents"),
        (request_of("FP8", (1,)), "input 'x': expected datatype FP32, got 'FP8'"),
        (read(b""), "'inputs': expected a list of tensors, got \\[\\]"),
    ],
)
def test_refusals(received: Received, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        codec().decode(received)


def test_integers_beyond_their_datatype_are_refused() -> None:
    with pytest.raises(BadRequest, match="input 'x': expected INT8 values from -128 to 127, got 128"):
        codec("INT8").decode(request_of("INT8", (1,), int_contents=[128]))


def test_parameters_are_those_of_rest() -> None:
    received = request_of("FP32", (1,), b"1234")
    parameters = received.message.parameters
    parameters["timeout"].int64_param = 5
    parameters["priority"].uint64_param = 1
    parameters["binary_data_output"].string_param = "of REST only"
    parameters["empty"].SetInParent()
    received.message.inputs[0].parameters["binary_data_size"].int64_param = 3
    assert codec().decode(received).timeout_us == 5
    parameters["timeout"].string_param = "5"
    with pytest.raises(BadRequest, match="parameter 'timeout': expected a whole number from 0, got '5'"):
        codec().decode(received)
    del parameters["timeout"]
    received.message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    with pytest.raises(BadRequest, match="input 'x': shared memory is not supported"):
        codec().decode(received)


def test_what_is_made_pythons_one_by_one_has_an_end() -> None:
    message = "expected at most 16384 tensors and parameters, got 20001"
    received = request_of("FP32", (1,), b"1234")
    for _ in range(20_000):
        received.message.inputs.add()
    with pytest.raises(BadRequest, match=message):
        codec().decode(received)
    received = request_of("FP32", (1,), b"1234")
    for number in range(20_000):
        received.message.inputs[0].parameters[f"p{number}"].bool_param = True
    with pytest.raises(BadRequest, match=message):
        codec().decode(received)
    received = request_of("FP32", (1,) * 10**6, b"1234")
    with pytest.raises(BadRequest, match="input 'x': expected shape"):
        codec().decode(received)


def test_outputs_that_are_asked_for() -> None:
    received = request_of("FP32", (1,), b"1234")
    received.message.outputs.add(name="z")
    with pytest.raises(BadRequest, match="output 'z': the model has no such output; it has: y"):
        codec().decode(received)
    received.message.outputs[0].name = "y"
    assert codec().decode(received).outputs == ("y",)
    received.message.outputs[0].parameters["classification"].int64_param = 2
    assert codec().decode(received).classes == {"y": 2}


@pytest.mark.parametrize(
    ("timeout_us", "seconds", "expected"),
    [(None, 1.5, 1_500_000), (0, 1.5, 1_500_000), (7, 1.5, 7), (9_000_000, 1.5, 1_500_000), (None, 0.0, 1)],
)
def test_a_request_waits_no_longer_than_its_client(
    timeout_us: int | None, seconds: float, expected: int
) -> None:
    received = request_of("FP32", (1,), b"1234")
    if timeout_us is not None:
        received.message.parameters["timeout"].int64_param = timeout_us
    end_within(received.message, seconds)
    assert codec().decode(received).timeout_us == expected


def test_a_wrong_timeout_stays_wrong() -> None:
    for field, value in (("int64_param", -1), ("string_param", "1")):
        received = request_of("FP32", (1,), b"1234")
        setattr(received.message.parameters["timeout"], field, value)
        end_within(received.message, 1.0)
        with pytest.raises(BadRequest, match="parameter 'timeout': expected a whole number from 0"):
            codec().decode(received)
