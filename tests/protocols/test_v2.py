from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import naive
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from driftline.errors import BadRequest
from driftline.protocols.codec import InferRequest
from driftline.protocols.v2 import V2Codec
from driftline.tensors import DATATYPES, Signature, TensorSpec

# -- round trips --------------------------------------------------------------------------------


def values_of(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.just("é\0" * 3000)
    if datatype.startswith("FP"):
        return st.floats(width=int(datatype[2:]))  # type: ignore[arg-type]
    limits = np.iinfo(DATATYPES[datatype].dtype)
    return st.integers(int(limits.min), int(limits.max)) | st.sampled_from([int(limits.min), int(limits.max)])


@dataclass
class Tensor:
    datatype: str
    shape: list[int]
    values: list[Any]
    binary_in: bool
    binary_out: bool
    nested: bool

    def entry(self, name: str) -> tuple[dict[str, Any], bytes]:
        entry: dict[str, Any] = {"name": name, "datatype": self.datatype, "shape": self.shape}
        if self.binary_in:
            data = naive.tensor_bytes(self.datatype, self.values)
            return {**entry, "parameters": {"binary_data_size": len(data)}}, data
        data = naive.as_json(self.values)
        return {**entry, "data": naive.nested(data, self.shape) if self.nested else data}, b""

    def expected(self) -> list[Any]:
        values = self.values if self.binary_in else naive.as_json(self.values)
        values = [math.nan if value is None else value for value in values]
        return values if self.binary_out else naive.as_json(values)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(sorted(DATATYPES)))
    shape = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    count = math.prod(shape)
    values = draw(st.lists(values_of(datatype), min_size=count, max_size=count))
    return Tensor(datatype, shape, values, draw(st.booleans()), draw(st.booleans()), draw(st.booleans()))


def codec_for(tensors: list[Tensor]) -> V2Codec:
    def specs(prefix: str) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(f"{prefix}{i}", DATATYPES[tensor.datatype], (-1,) * len(tensor.shape))
            for i, tensor in enumerate(tensors)
        )

    return V2Codec(Signature(specs("in"), specs("out"), True), "model", 3)


def echo(codec: V2Codec, document: dict[str, Any], tail: bytes) -> tuple[bytes, int | None]:
    """Decode a request, call its inputs the outputs, encode the answer."""
    text = json.dumps(document).encode()
    request = codec.decode(text + tail, len(text) if tail else None)
    outputs = {name.replace("in", "out"): array for name, array in request.inputs.items()}
    return codec.encode(request, outputs)


@given(st.lists(tensors(), min_size=1, max_size=3), st.permutations(range(3)))
def test_every_datatype_comes_back_by_every_way(tensors: list[Tensor], order: list[int]) -> None:
    order = [i for i in order if i < len(tensors)]
    entries = [tensors[i].entry(f"in{i}") for i in order]
    outputs_requested = [
        {"name": f"out{i}", "parameters": {"binary_data": tensor.binary_out}}
        for i, tensor in enumerate(tensors)
    ]
    document = {"inputs": [entry for entry, _ in entries], "outputs": outputs_requested}
    body, length = echo(codec_for(tensors), document, b"".join(data for _, data in entries))
    assert (length is not None) == any(tensor.binary_out for tensor in tensors)
    response = naive.read_answer(body, length)
    assert list(response) == [f"out{i}" for i in range(len(tensors))]
    for i, tensor in enumerate(tensors):
        datatype, shape, values = response[f"out{i}"]
        assert (datatype, shape) == (tensor.datatype, tensor.shape)
        # By repr: NaN is itself, and -0.0 is not 0.0. FP16 and FP32 have shorter decimals than doubles.
        assert repr([narrow(datatype, value) for value in values]) == repr(tensor.expected())


def narrow(datatype: str, value: Any) -> Any:
    if value is None or datatype not in ("FP16", "FP32"):
        return value
    return float(DATATYPES[datatype].dtype.type(value))


@given(st.lists(tensors(), min_size=1, max_size=3))
def test_all_outputs_are_binary_if_asked_so_at_once(tensors: list[Tensor]) -> None:
    entries = [tensor.entry(f"in{i}") for i, tensor in enumerate(tensors)]
    document = {
        "inputs": [entry for entry, _ in entries],
        "parameters": {"binary_data_output": True},
    }
    body, length = echo(codec_for(tensors), document, b"".join(data for _, data in entries))
    assert length is not None
    assert all("data" not in entry for entry in json.loads(body[:length])["outputs"])
    assert len(naive.read_answer(body, length)) == len(tensors)


# -- requests that are taken --------------------------------------------------------------------

SIGNATURE = Signature(
    (
        TensorSpec("x", DATATYPES["FP32"], (-1, 2)),
        TensorSpec("i", DATATYPES["INT64"], (-1,)),
        TensorSpec("s", DATATYPES["BYTES"], (-1, 1)),
    ),
    (TensorSpec("y", DATATYPES["FP32"], (-1,)), TensorSpec("z", DATATYPES["BYTES"], (-1,))),
    True,
)
CODEC = V2Codec(SIGNATURE, "model", 3)
VALID: dict[str, Any] = {
    "id": "7",
    "parameters": {"timeout": 5000, "priority": 1, "sequence_id": 0},
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2.5], [None, -4]], "more": 1},
        {"name": "i", "datatype": "INT64", "shape": [2], "data": [1, 2], "parameters": {}},
        {"name": "s", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "b"], "parameters": None},
    ],
    "outputs": [{"name": "z"}, {"name": "y", "parameters": {"binary_data": True, "classification": 0}}],
}


def decode(document: Any, tail: bytes | None = None, codec: V2Codec = CODEC) -> InferRequest:
    text = json.dumps(document).encode()
    return codec.decode(text + (tail or b""), None if tail is None else len(text))


def test_a_request_is_read() -> None:
    request = decode({**VALID, "inputs": VALID["inputs"][::-1]})
    assert list(request.inputs) == ["x", "i", "s"]
    assert repr(request.inputs["x"].tolist()) == "[[1.0, 2.5], [nan, -4.0]]"
    assert request.outputs == ("z", "y")
    assert request.binary == {"y"}
    assert (request.id, request.timeout_us) == ("7", 5000)


@pytest.mark.parametrize("outputs", [None, []])
def test_all_outputs_come_if_none_is_named(outputs: Any) -> None:
    request = decode({"inputs": VALID["inputs"], "outputs": outputs})
    assert (request.outputs, request.binary) == (("y", "z"), frozenset())
    assert (request.id, request.timeout_us) == (None, 0)


def test_an_output_says_better_than_the_request_whether_it_is_binary() -> None:
    outputs = [{"name": "y"}, {"name": "z", "parameters": {"binary_data": False}}]
    request = decode({**VALID, "outputs": outputs, "parameters": {"binary_data_output": True}})
    assert request.binary == {"y"}


def test_an_answer_names_model_version_and_id() -> None:
    request = decode(VALID)
    outputs = {"y": np.array([0.1, np.nan], np.float32), "z": np.array(["é", ""], dtype=object)}
    body, length = CODEC.encode(request, outputs)
    assert json.loads(body[:length]) == {
        "model_name": "model",
        "model_version": "3",
        "id": "7",
        "outputs": [
            {"name": "z", "datatype": "BYTES", "shape": [2], "data": ["é", ""]},
            {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}},
        ],
    }
    assert body[length:] == naive.tensor_bytes("FP32", [0.1, math.nan])
    body, length = CODEC.encode(decode({"inputs": VALID["inputs"]}), outputs)
    assert length is None
    assert "id" not in json.loads(body)
    assert b"[0.1,null]" in body


def test_arrays_of_any_layout_are_written() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    codec = V2Codec(
        Signature(SIGNATURE.inputs, (TensorSpec("y", DATATYPES["FP32"], (-1, -1)),), True), "m", 1
    )
    request = InferRequest({}, ("y",))
    for array in (matrix.T, matrix[:, ::2], matrix[:0], np.float32(3).reshape(())):
        (_, shape, values) = naive.read_answer(*codec.encode(request, {"y": array}))["y"]
        assert (tuple(shape), values) == (array.shape, array.ravel().tolist())


@pytest.mark.parametrize("data", ["abc", {"a": 1, "b": 2, "c": 3}, 3])
def test_a_raw_columns_data_is_a_list_and_nothing_like_it(data: object) -> None:
    column = TensorSpec("s", DATATYPES["BYTES"], (-1,), raw=True)
    codec = V2Codec(Signature((column,), (column,), True), "m", "1")
    entry = {"name": "s", "datatype": "BYTES", "shape": [3], "data": data}
    with pytest.raises(BadRequest, match="input 's'"):
        decode({"inputs": [entry]}, codec=codec)


# -- raw bodies ---------------------------------------------------------------------------------


def raw_codec(datatype: str, shape: tuple[int, ...], batched: bool = True) -> V2Codec:
    return V2Codec(
        Signature((TensorSpec("x", DATATYPES[datatype], shape),), SIGNATURE.outputs, batched), "m", 1
    )


@pytest.mark.parametrize(
    ("datatype", "shape", "batched", "body", "expected"),
    [
        ("FP32", (-1, 2), True, naive.tensor_bytes("FP32", [1, 2]), [[1, 2]]),
        ("FP32", (-1, -1), True, naive.tensor_bytes("FP32", [1, 2, 3]), [[1, 2, 3]]),
        ("FP32", (-1, -1, 2), True, naive.tensor_bytes("FP32", [1, 2, 3, 4]), [[[1, 2], [3, 4]]]),
        ("INT8", (2, -1), False, bytes([1, 2, 3, 4]), [[1, 2], [3, 4]]),
        ("INT8", (-1,), False, b"", []),
        ("BYTES", (-1, 1), True, "é\0".encode(), [["é\0"]]),
        ("BYTES", (-1, -1), True, b"", [[""]]),
    ],
)
def test_a_raw_body_is_one_row(
    datatype: str, shape: tuple[int, ...], batched: bool, body: bytes, expected: list[Any]
) -> None:
    request = raw_codec(datatype, shape, batched).decode(body, 0)
    assert request.inputs["x"].tolist() == expected
    assert request.binary == {"y", "z"}


@pytest.mark.parametrize(
    ("codec", "body", "message"),
    [
        (CODEC, b"", "a raw body: expected a model of one input, it has: x, i, s"),
        (raw_codec("FP32", (-1, 2)), bytes(7), "input 'x': expected 8 bytes for FP32 [1, 2], got 7"),
        (raw_codec("FP32", (-1, 2)), bytes(16), "input 'x': expected 8 bytes for FP32 [1, 2], got 16"),
        (raw_codec("FP32", (-1, -1, 2)), bytes(9), "input 'x': expected 8 bytes for FP32 [1, 1, 2], got 9"),
        (raw_codec("FP32", (-1, -1, -1)), b"", "input 'x': its shape [1, -1, -1] can't be inferred"),
        (raw_codec("BYTES", (-1, 2)), b"a", "input 'x': expected 2 BYTES elements, got 1"),
        (raw_codec("BYTES", (-1, 1)), b"\xff", "input 'x': expected UTF-8 strings"),
    ],
)
def test_a_raw_body_that_does_not_fit_is_refused(codec: V2Codec, body: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match="^" + re.escape(message)):
        codec.decode(body, 0)


# -- requests that are refused ------------------------------------------------------------------


def refused(document: Any, tail: bytes | None = None) -> str:
    with pytest.raises(BadRequest) as caught:
        decode(document, tail)
    return str(caught.value)


def with_x(**changes: Any) -> dict[str, Any]:
    entry = {**VALID["inputs"][0], **changes}
    return {**VALID, "inputs": [{k: v for k, v in entry.items() if v is not ...}, *VALID["inputs"][1:]]}


X_SHAPE = "input 'x': expected shape [-1, 2], got "


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "the request: expected an object with 'inputs', got []"),
        ({}, "'inputs': expected a list of tensors, got null"),
        ({"inputs": []}, "'inputs': expected a list of tensors, got []"),
        ({"inputs": {"x": 1}}, "'inputs': expected a list of tensors, got {'x': 1}"),
        ({"inputs": [5]}, "input 5: the model has no such input; it has: x, i, s"),
        ({"inputs": [{"name": "u"}]}, "input 'u': the model has no such input; it has: x, i, s"),
        ({"inputs": [{"name": ["x"]}]}, "input ['x']: the model has no such input"),
        ({"inputs": VALID["inputs"][:2]}, "input 's': expected BYTES [-1, 1], got nothing"),
        ({"inputs": [*VALID["inputs"], VALID["inputs"][1]]}, "input 'i': expected once, got twice"),
        ({**VALID, "id": 7}, "'id': expected a string, got 7"),
        ({**VALID, "parameters": [1]}, "the request: expected 'parameters' as an object, got [1]"),
        ({**VALID, "parameters": ""}, "the request: expected 'parameters' as an object, got ''"),
        (
            {**VALID, "parameters": {"timeout": -1}},
            "the request: parameter 'timeout': expected a whole number from 0, got -1",
        ),
        (
            {**VALID, "parameters": {"timeout": True}},
            "the request: parameter 'timeout': expected a whole number from 0, got true",
        ),
        (
            {**VALID, "parameters": {"binary_data_output": 1}},
            "the request: parameter 'binary_data_output': expected true or false, got 1",
        ),
        # datatype
        (with_x(datatype="FP64"), "input 'x': expected datatype FP32, got 'FP64'"),
        (with_x(datatype=...), "input 'x': expected datatype FP32, got null"),
        (with_x(datatype=["FP32"]), "input 'x': expected datatype FP32, got ['FP32']"),
        # shape
        (with_x(shape=...), X_SHAPE + "null"),
        (with_x(shape=4), X_SHAPE + "4"),
        (with_x(shape=[4]), X_SHAPE + "[4]"),
        (with_x(shape=[2, 2, 1]), X_SHAPE + "[2, 2, 1]"),
        (with_x(shape=[2, 3]), X_SHAPE + "[2, 3]"),
        (
            with_x(shape=[-1, 2]),
            X_SHAPE + "[-1, 2]; -1 stands for any size, which a request has to state",
        ),
        (with_x(shape=[-2, 2]), X_SHAPE + "[-2, 2]; -1 stands for any size"),
        (with_x(shape=[True, 2]), X_SHAPE + "[true, 2]"),
        (with_x(shape=[2.0, 2]), X_SHAPE + "[2.0, 2]"),
        (with_x(shape=["2", 2]), X_SHAPE + "['2', 2]"),
        (with_x(shape=[None, 2]), X_SHAPE + "[null, 2]"),
        (with_x(shape=[2**80, 2]), X_SHAPE + "[1.2089258196146292e+24, 2]"),
        (with_x(shape=[2**63, 2]), f"input 'x': expected {2**64} elements for shape [{2**63}, 2], got 4"),
        (with_x(shape=[3, 2]), "input 'x': expected 6 elements for shape [3, 2], got 4"),
        (with_x(shape=[0, 2]), "input 'x': expected 0 elements for shape [0, 2], got 4"),
        # data
        (with_x(data=...), "input 'x': expected 'data' as a list, got null"),
        (with_x(data=1.5), "input 'x': expected 'data' as a list, got 1.5"),
        (with_x(data={"0": 1}), "input 'x': expected 'data' as a list, got {'0': 1}"),
        (with_x(data=[]), "input 'x': expected 4 elements for shape [2, 2], got 0"),
        (with_x(data=["1", 2, 3, 4]), "input 'x': expected FP32 values, got '1' (string) at position 0"),
        (with_x(data=[1, 2.5, True, 4]), "input 'x': expected FP32 values, got true at position 2"),
        (with_x(data=[[1, 2], [3]]), "input 'x': expected a regular array, got nested lists that differ"),
        # outputs
        ({**VALID, "outputs": "y"}, "'outputs': expected a list, got 'y'"),
        ({**VALID, "outputs": {}}, "'outputs': expected a list, got {}"),
        ({**VALID, "outputs": ["y"]}, "output 'y': the model has no such output; it has: y, z"),
        ({**VALID, "outputs": [{"name": "u"}]}, "output 'u': the model has no such output; it has: y, z"),
        ({**VALID, "outputs": [{"name": "y"}, {"name": "y"}]}, "output 'y': expected once, got twice"),
        (
            {**VALID, "outputs": [{"name": "z", "parameters": {"classification": 3}}]},
            "output 'z': parameter 'classification': expected an output of numbers, it is BYTES",
        ),
        (
            {**VALID, "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]},
            "output 'y': parameter 'binary_data': expected true or false, got 'yes'",
        ),
        (
            {**VALID, "outputs": [{"name": "y", "parameters": 1}]},
            "output 'y': expected 'parameters' as an object, got 1",
        ),
    ],
)
def test_a_request_that_does_not_fit_is_refused(document: Any, message: str) -> None:
    assert refused(document).startswith(message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1, 2.0], "expected INT64 values, got 2.0 at position 1"),
        ([1, 0.5], "expected INT64 values, got 0.5 at position 1"),
        ([1, 2**63], f"expected INT64 values from {-(2**63)} to {2**63 - 1}, got {2**63}"),
        ([1, "2"], "expected INT64 values, got '2' (string) at position 1"),
        ([True, False], "expected INT64 values, got true at position 0"),
        ([1, None], "expected INT64 values, got null at position 1"),
    ],
)
def test_integers_must_be_integers(data: list[Any], message: str) -> None:
    entry = {**VALID["inputs"][1], "data": data}
    assert refused({"inputs": [VALID["inputs"][0], entry, VALID["inputs"][2]]}) == f"input 'i': {message}"


@pytest.mark.parametrize("shape", [[0, 2**62], [0, 2**63], [2**62, 0, 2**62], [2**48 + 1, 0]])
@pytest.mark.parametrize("binary", [False, True])
def test_an_overflowing_shape_of_no_elements_is_refused(shape: list[int], binary: bool) -> None:
    codec = raw_codec("FP32", (-1,) * len(shape))
    entry: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": shape, "data": []}
    if binary:
        entry["parameters"] = {"binary_data_size": 0}
    with pytest.raises(BadRequest, match=r"^input 'x': expected dimensions of at most \d+ in all, got \["):
        decode({"inputs": [entry]}, b"", codec)
    assert decode({"inputs": [{**entry, "shape": [0] * len(shape)}]}, b"", codec).inputs["x"].size == 0


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b"null",
        b"NaN",
        b'{"inputs": NaN}',
        b'{"inputs": 1e999}',
        b'{"id": "\\ud800"}',
        b"[" * 100_000,
        b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"inputs": {"a":' + b"[" * 1000 + b"]" * 1000 + b"}}",
        b'{"inputs":[{"name":' + b"[" * 1000 + b"]" * 1000 + b"}]}",
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":' + b"[" * 900 + b"]" * 900 + b"}]}",
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":' + b"[" * 900 + b"]" * 900 + b',"data":[]}]}',
    ],
)
def test_text_that_is_no_request_is_refused(text: bytes) -> None:
    for length in (None, len(text)) if text else (None,):
        with pytest.raises(BadRequest, match=r"not valid JSON|expected|no such input"):
            CODEC.decode(text, length)


# -- binary requests that are refused -----------------------------------------------------------


SIZE = "input 'x': parameter 'binary_data_size': expected a whole number from 0, got"


@pytest.mark.parametrize(
    ("size", "tail", "message"),
    [
        (-1, bytes(16), f"{SIZE} -1"),
        ("16", bytes(16), f"{SIZE} '16'"),
        (True, bytes(16), f"{SIZE} true"),
        (None, bytes(16), f"{SIZE} null"),
        (2**70, bytes(16), f"{SIZE} 1."),
        (16, bytes(15), "input 'x': expected 16 bytes of binary data after the JSON, got 15"),
        (
            2**70,
            bytes(16),
            "input 'x': parameter 'binary_data_size': expected a whole number from 0, got 1.",
        ),
        (2**60, bytes(16), f"input 'x': expected {2**60} bytes of binary data after the JSON, got 16"),
        (15, bytes(16), "input 'x': expected 16 bytes for FP32 [2, 2], got 15"),
        (17, bytes(17), "input 'x': expected 16 bytes for FP32 [2, 2], got 17"),
        (0, bytes(16), "input 'x': expected 16 bytes for FP32 [2, 2], got 0"),
        (16, bytes(17), "the body has 1 bytes more than its inputs account for"),
        (
            "16",
            bytes(16),
            "input 'x': parameter 'binary_data_size': expected a whole number from 0, got '16'",
        ),
        (
            True,
            bytes(16),
            "input 'x': parameter 'binary_data_size': expected a whole number from 0, got true",
        ),
        (
            None,
            bytes(16),
            "input 'x': parameter 'binary_data_size': expected a whole number from 0, got null",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(size: Any, tail: bytes, message: str) -> None:
    document = with_x(data=..., parameters={"binary_data_size": size})
    assert refused(document, tail).startswith(message)


def test_binary_data_needs_the_header() -> None:
    document = with_x(data=..., parameters={"binary_data_size": 16})
    assert refused(document) == "input 'x': expected 16 bytes of binary data after the JSON, got 0"
    with pytest.raises(BadRequest, match="not valid JSON"):
        CODEC.decode(json.dumps(document).encode() + bytes(16))


def test_nan_and_infinity_are_what_they_are_in_floating_point_inputs_and_refused_elsewhere() -> None:
    """As Triton's JSON has them; tritonclient and Python write them so."""
    values = [math.nan, 1, math.inf, -math.inf]
    request = CODEC.decode(json.dumps(with_x(data=values)).encode())
    np.testing.assert_array_equal(request.inputs["x"].ravel(), np.array(values, np.float32))
    for document, words in (
        ({"inputs": [{**VALID["inputs"][1], "data": [math.nan, 1]}]}, "'i': expected INT64 values, got nan"),
        (with_x(shape=[math.inf, 2]), "input 'x': expected shape [-1, 2], got [inf, 2]"),
        ({**VALID, "id": math.nan}, "'id': expected a string, got nan"),
        ({**with_x(data=values), "parameters": {"timeout": 10**400}}, "'timeout': expected a whole number"),
    ):
        with pytest.raises(BadRequest, match=re.escape(words)):
            CODEC.decode(json.dumps(document).encode())
    for wrong in (b"-NaN", b"+Infinity", b"nan", b"Inf", b"NaNs", b"-null"):
        text = json.dumps(with_x(data=values)).encode().replace(b"NaN", wrong)
        with pytest.raises(BadRequest, match="the request is not valid JSON"):
            CODEC.decode(text)


@pytest.mark.parametrize("length", [-1, 11, 2**70])
def test_a_header_past_the_body_is_refused(length: int) -> None:
    message = f"Inference-Header-Content-Length: expected 0 to the body's length of 10, got {length}"
    with pytest.raises(BadRequest, match=re.escape(message)):
        CODEC.decode(b"0123456789", length)


# -- fuzz ---------------------------------------------------------------------------------------


def attempt(body: bytes, length: int | None) -> None:
    """Decode: either it fits the signature, or it is refused in one short line."""
    try:
        request = CODEC.decode(body, length)
    except BadRequest as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 400
        return
    assert list(request.inputs) == ["x", "i", "s"]
    for spec in SIGNATURE.inputs:
        array = request.inputs[spec.name]
        assert array.dtype == spec.datatype.dtype
        assert spec.accepts(array.shape)
    assert set(request.outputs) <= {"y", "z"}
    assert request.outputs
    assert request.binary <= set(request.outputs)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    | st.sampled_from(["x", "i", "s", "y", "FP32", "INT64", "BYTES", 0, 1, 2, -1])
)
KEYS = st.sampled_from(
    ["inputs", "outputs", "parameters", "id", "name", "shape", "datatype", "data", "binary_data_size", "a"]
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4)
)


@given(st.binary(max_size=200), st.none() | st.integers(-3, 220))
def test_arbitrary_bytes_are_refused(body: bytes, length: int | None) -> None:
    with pytest.raises(BadRequest):
        CODEC.decode(body, length)


@given(JSON, st.none() | st.binary(max_size=20))
def test_arbitrary_documents_are_refused(document: Any, tail: bytes | None) -> None:
    text = json.dumps(document).encode()
    attempt(text + (tail or b""), None if tail is None else len(text))


BINARY_VALID = with_x(data=..., parameters={"binary_data_size": 16})


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    matches = []
    for key in document if isinstance(document, dict) else range(len(document)):
        matches.append((document, key))
        if isinstance(document[key], (dict, list)):
            matches += places(document[key])
    return matches


def delete(container: Any, key: Any, value: Any) -> None:
    del container[key]


def replace(container: Any, key: Any, value: Any) -> None:
    container[key] = value


def wrap(container: Any, key: Any, value: Any) -> None:
    container[key] = [container[key]]


def repeat(container: Any, key: Any, value: Any) -> None:
    if isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))


@example(0, [], b"\0" * 16, 0)
@given(
    st.sampled_from([0, 1]),
    st.lists(
        st.tuples(st.integers(0), st.sampled_from([delete, replace, wrap, repeat]), JSON),
        min_size=1,
        max_size=3,
    ),
    st.binary(min_size=14, max_size=18),
    st.integers(-2, 2),
)
def test_mutated_requests_are_read_or_refused(
    which: int, mutations: list[tuple[int, Callable[..., None], Any]], tail: bytes, shift: int
) -> None:
    document = copy.deepcopy((VALID, BINARY_VALID)[which])
    for index, mutate, value in mutations:
        where = places(document)
        if where:
            mutate(*where[index % len(where)], value)
    text = json.dumps(document).encode()
    attempt(text + tail, len(text) + shift)
    attempt(text, None)
