from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import BadRequest
from driftline.protocols.codec import InferRequest
from driftline.protocols.v1 import V1Codec
from driftline.tensors import DATATYPES, Signature, TensorSpec

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "FP16": [0.5, None],
    "FP32": [1.5, None],
    "FP64": [0.1, None],
    "BYTES": ["", "é\0"],
} | {
    name: [int(np.iinfo(datatype.dtype).min), int(np.iinfo(datatype.dtype).max)]
    for name, datatype in DATATYPES.items()
    if "INT" in name
}


def tensor(name: str, datatype: str = "FP32", shape: tuple[int, ...] = (-1,)) -> TensorSpec:
    return TensorSpec(name, DATATYPES[datatype], shape)


def codec(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], batched: bool = True) -> V1Codec:
    return V1Codec(Signature(inputs, outputs, batched))


def decode(codec: V1Codec, document: Any) -> InferRequest:
    return codec.decode(json.dumps(document).encode())


NUMBERS = codec((tensor("x", shape=(-1, 2)),), (tensor("y"),))
ONE_KEY = "the request: expected one of 'instances' and 'inputs', got"
TWO = codec((tensor("a", shape=(-1, 2)), tensor("b", "BYTES")), (tensor("y"), tensor("z", "BYTES")))


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("form", ["instances", "rows by name", "inputs", "inputs by name"])
def test_every_datatype_comes_back(datatype: str, form: str) -> None:
    one = codec((tensor("x", datatype, (-1, 1)),), (tensor("y", datatype, (-1, 1)),))
    rows = [[value] for value in VALUES[datatype]]
    document: dict[str, Any] = {
        "instances": {"instances": rows},
        "rows by name": {"instances": [{"x": row} for row in rows]},
        "inputs": {"inputs": rows},
        "inputs by name": {"inputs": {"x": rows}},
    }[form]
    request = decode(one, document)
    assert request.inputs["x"].dtype == DATATYPES[datatype].dtype
    body, length = one.encode(request, {"y": request.inputs["x"]})
    assert length is None
    assert json.loads(body) == {"predictions": rows}


def test_several_outputs_are_an_object_a_row() -> None:
    document = {"instances": [{"a": [1, 2], "b": "u"}, {"b": "v", "a": [3, 4]}]}
    request = decode(TWO, document)
    assert list(request.inputs) == ["a", "b"]
    assert request.inputs["a"].tolist() == [[1, 2], [3, 4]]
    assert request.inputs["b"].tolist() == ["u", "v"]
    outputs = {"y": np.array([0.5, math.inf], np.float32), "z": np.array(["é", ""], dtype=object)}
    body, _ = TWO.encode(request, outputs)
    assert json.loads(body) == {"predictions": [{"y": 0.5, "z": "é"}, {"y": None, "z": ""}]}
    assert request.outputs == ("y", "z")


def test_of_an_input_of_one_column_a_row_by_name_has_the_value_or_a_list_of_it() -> None:
    inputs = (tensor("a", "INT64", (-1, 1)), tensor("b", "BYTES", (-1, 1)), tensor("c", shape=(-1, 2)))
    model = codec(inputs, (tensor("y"),))
    for a, b in ((60, "rome"), ([60], "rome"), ([60], ["rome"])):
        request = decode(model, {"instances": [{"a": a, "b": b, "c": [1, 2]}] * 2})
        assert {name: array.tolist() for name, array in request.inputs.items()} == {
            "a": [[60]] * 2,
            "b": [["rome"]] * 2,
            "c": [[1, 2]] * 2,
        }
    with pytest.raises(BadRequest, match=re.escape("input 'c': expected shape [-1, 2], got [1]")):
        decode(model, {"instances": [{"a": 1, "b": "rome", "c": 1}]})
    with pytest.raises(BadRequest, match=r"input 'b': expected BYTES .*, got nothing"):
        decode(model, {"instances": [{"a": 1, "c": [1, 2]}]})
    with pytest.raises(BadRequest, match="input 'a': expected a regular array"):
        decode(model, {"instances": [{"a": [1], "b": "", "c": [1, 2]}, {"a": 1, "b": "", "c": [1, 2]}]})


def test_a_model_without_rows_answers_whole_tensors() -> None:
    unbatched = codec((tensor("x"),), (tensor("y"), tensor("z")), batched=False)
    request = decode(unbatched, {"instances": [1, 2]})
    body, _ = unbatched.encode(request, {"y": np.float32([3]), "z": np.float32([4, 5])})
    assert json.loads(body) == {"predictions": {"y": [3], "z": [4, 5]}}


@pytest.mark.parametrize(
    ("codec", "document", "message"),
    [
        (NUMBERS, [], f"{ONE_KEY} []"),
        (NUMBERS, {}, f"{ONE_KEY} {{}}"),
        (NUMBERS, {"instances": [], "inputs": []}, f"{ONE_KEY} {{'inputs'"),
        (NUMBERS, {"instances": []}, "'instances': expected at least one row, got none"),
        (NUMBERS, {"instances": {"x": 1}}, "'instances': expected a list of rows, got {'x': 1}"),
        (NUMBERS, {"instances": None}, "'instances': expected a list of rows, got null"),
        (NUMBERS, {"instances": [[1, 2, 3]]}, "input 'x': expected shape [-1, 2], got [1, 3]"),
        (
            NUMBERS,
            {"instances": [[1, 2], [3]]},
            "input 'x': expected a regular array, got nested lists th",
        ),
        (NUMBERS, {"instances": [[1, True]]}, "input 'x': expected FP32 values, got true at position 1"),
        (
            NUMBERS,
            {"instances": [["1", 2]]},
            "input 'x': expected FP32 values, got '1' (string) at position 0",
        ),
        (NUMBERS, {"instances": [{"u": 1}]}, "input 'u': the model has no such input; it has: x"),
        (NUMBERS, {"instances": [{}]}, "input 'x': expected FP32 [-1, 2], got nothing"),
        (NUMBERS, {"inputs": 5}, "input 'x': expected shape [-1, 2], got []"),
        (TWO, {"instances": [[1, 2]]}, "expected values by input name (a, b), got [[1, 2]]"),
        (TWO, {"inputs": {"a": [[1, 2]]}}, "input 'b': expected BYTES [-1], got nothing"),
        (
            TWO,
            {"instances": [{"a": [1, 2], "b": "u"}, {"a": [1, 2]}]},
            "instance 1: expected the keys a, b of the first one, got {'a': [1, 2]}",
        ),
        (
            TWO,
            {"instances": [{"a": [1, 2], "b": "u"}, 5]},
            "instance 1: expected the keys a, b of the first one, got 5",
        ),
    ],
)
def test_a_request_that_does_not_fit_is_refused(codec: V1Codec, document: Any, message: str) -> None:
    with pytest.raises(BadRequest, match="^" + re.escape(message)):
        decode(codec, document)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 2000, b'{"instances": NaN'])
def test_text_that_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(BadRequest, match=r"^the request is not valid JSON: "):
        NUMBERS.decode(text)


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    ),
)


@given(st.sampled_from(["instances", "inputs"]), JSON | st.lists(JSON))
def test_whatever_comes_is_read_or_refused(key: str, value: Any) -> None:
    try:
        request = decode(TWO, {key: value})
    except BadRequest as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 400
    else:
        assert [array.ndim for array in request.inputs.values()] == [2, 1]


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        NUMBERS.decode(body)


def test_deep_nesting_is_refused_without_a_crash() -> None:
    for key in (b"instances", b"inputs", b"neither"):
        with pytest.raises(BadRequest, match="expected"):
            NUMBERS.decode(b'{"%s": %s}' % (key, b"[" * 1000 + b"]" * 1000))


@pytest.mark.parametrize("raw", [False, True])
def test_strings_in_base64(raw: bool) -> None:
    text = replace(tensor("b", "BYTES"), raw=raw)
    one, two = codec((text,), (tensor("y"),)), codec((tensor("a"), text), (tensor("y"),))
    encoded = {"b64": b64encode("é\0".encode()).decode()}
    for document in (
        {"instances": [encoded, "u"]},
        {"instances": [{"b": encoded}, {"b": "u"}]},
        {"inputs": [encoded, "u"]},
        {"inputs": {"b": [encoded, "u"]}},
    ):
        assert decode(one, document).inputs["b"].tolist() == ["é\0", "u"]
    assert decode(two, {"instances": [{"a": 1, "b": encoded}]}).inputs["b"].tolist() == ["é\0"]


def test_a_name_is_no_base64() -> None:
    one = codec((tensor("b64", "BYTES"),), (tensor("y"),))
    assert decode(one, {"instances": [{"b64": "eA=="}]}).inputs["b64"].tolist() == ["eA=="]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"b64": "é"}, "'b64': expected base64, got 'é'"),
        ({"b64": "eA="}, "'b64': expected base64, got 'eA='"),
        ({"b64": "/w=="}, "input 'b': expected UTF-8"),
        ({"b64": 1}, "input 'b': expected BYTES values"),
        ({"b64": "eA==", "b": "eA=="}, "expected"),
    ],
)
def test_what_is_no_base64_or_no_string(value: object, message: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(message)):
        decode(codec((tensor("b", "BYTES"),), (tensor("y"),)), {"inputs": [value]})


def test_lists_in_lists_without_end() -> None:
    body = b'{"inputs": ' + b"[" * 900 + b'{"b64": "eA=="}' + b"]" * 900 + b"}"
    with pytest.raises(BadRequest):
        codec((tensor("b", "BYTES"),), (tensor("y"),)).decode(body)
