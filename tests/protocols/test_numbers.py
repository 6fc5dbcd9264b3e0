"""With the kernel a request is read as without it, or refused in the same words; it reads what it should."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from driftline.errors import BadRequest
from driftline.protocols import numbers
from driftline.protocols import v1 as v1_module
from driftline.protocols import v2 as v2_module
from driftline.protocols.v1 import V1Codec
from driftline.protocols.v2 import V2Codec
from driftline.tensors import DATATYPES, Signature, TensorSpec

NUMERIC = [name for name in DATATYPES if name not in ("BYTES", "FP16")]
SETTINGS = settings(max_examples=200)


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> Iterator[None]:
    """The kernel is there, and short texts go the way of long ones."""
    numbers.load()
    with pytest.MonkeyPatch.context() as patch:
        for module in (v1_module, v2_module):
            patch.setattr(module, "_SHORT", 0)
        yield
    numbers._kernel = None


def outcome(codec: V1Codec | V2Codec, body: bytes) -> Any:
    """What a body is read as, to the bit, or the words it is refused with."""
    try:
        request = codec.decode(body)
    except BadRequest as error:
        return str(error)
    tensors = {name: (a.dtype, a.shape, a.tobytes()) for name, a in request.inputs.items()}
    return tensors, request.outputs, request.binary, request.id, request.timeout_us


class Counting:
    """The kernel; counts what it reads."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.arrays = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernel, name)

    def read(self, *arguments: Any) -> int:
        answer = int(self.kernel.read(*arguments))
        self.arrays += answer != self.kernel.UNKNOWN
        return answer


def both(codec: V1Codec | V2Codec, body: bytes, must_read: bool = False) -> Any:
    """The outcome, which is the same with and without the kernel, and the second time that a body comes."""
    kernel = numbers._kernel
    numbers._kernel = counting = Counting(kernel)
    try:
        first, second = outcome(codec, body), outcome(codec, body)
        numbers._kernel = None
        without = outcome(codec, body)
    finally:
        numbers._kernel = kernel
    assert first == second == without
    assert counting.arrays or not must_read
    return without


def one(datatype: str, *shape: int) -> TensorSpec:
    return TensorSpec("x", DATATYPES[datatype], shape)


def v2(*specs: TensorSpec) -> V2Codec:
    return V2Codec(Signature(specs, (TensorSpec("data", DATATYPES["FP32"], (-1,)),), True), "m", 1)


def v1(*specs: TensorSpec) -> V1Codec:
    return V1Codec(Signature(specs, (TensorSpec("y", DATATYPES["FP32"], (-1,)),), True))


def values_of(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BOOL":
        return st.booleans()
    if datatype.startswith("FP"):
        return st.floats() | st.none() | st.integers(-(10**25), 10**25)
    limits = np.iinfo(DATATYPES[datatype].dtype)
    return st.integers(int(limits.min), min(int(limits.max), 10**19 - 1))


def nest(values: list[Any], shape: list[int]) -> Any:
    return np.array(values, object).reshape(shape).tolist()


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[TensorSpec], dict[str, Any]]:
    """Some inputs, and a request that fits them."""
    specs, entries = [], []
    for name in draw(st.sampled_from([["x"], ["x"], ["data", "y"]])):
        datatype = draw(st.sampled_from(NUMERIC))
        shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
        count = math.prod(shape)
        values = draw(st.lists(values_of(datatype), min_size=count, max_size=count))
        data = nest(values, shape) if draw(st.booleans()) else values
        specs.append(TensorSpec(name, DATATYPES[datatype], (-1,) * len(shape)))
        entry = {"name": name, "shape": shape, "datatype": datatype, "data": data}
        entries.append({key: entry[key] for key in draw(st.permutations(list(entry)))})
    extra = draw(st.sampled_from([{}, {"id": "data"}, {"outputs": [{"name": "data"}]}]))
    return specs, {**extra, "inputs": entries}


WAYS = st.sampled_from([{"separators": (",", ":")}, {}, {"indent": 1}])


@SETTINGS
@given(requests(), WAYS)
def test_requests_are_read_by_the_kernel_as_they_were_without(request: Any, way: Any) -> None:
    specs, document = request
    assert not isinstance(both(v2(*specs), json.dumps(document, **way).encode(), must_read=True), str)


PIECES = st.sampled_from(
    ['"data"', '"data":[', ',"data":[1,2]', "[", "]", "{", "}", ",", ":", '"', "\\", "null", "[]", "[[]]",
     "1", "-", "+1", "01", ".5", "1.", "1e400", "-0", "1e-400", "true", "false", "NaN", "Infinity",
     '"data": null,', " ", "\n", "\v", '"\\u0064ata":[1],', '"parameters":{},', '"x"',
     '"parameters":{"binary_data_size":0},',
     '"id":"\\"data\\":[1]",', '"data":[1]}', '{"data":[1,2]},', '"more":{"data":[3]},', "é", "1" * 25, "2.5"]
)  # fmt: skip


@SETTINGS
@given(
    requests(),
    WAYS,
    st.lists(st.tuples(st.integers(0), st.integers(0, 3), PIECES | st.just("")), min_size=1, max_size=3),
)
def test_mutilated_requests_are_read_or_refused_in_the_same_words(
    request: Any, way: Any, changes: list[tuple[int, int, str]]
) -> None:
    specs, document = request
    text = json.dumps(document, **way)
    for start, length, piece in changes:
        start %= len(text) + 1
        text = text[:start] + piece + text[start + length :]
    codec = v2(*specs)
    codec.decode(json.dumps(document, **way).encode())  # from which it knows the form
    both(codec, text.encode())


ENTRY = b'{"name":"x","datatype":"FP32","shape":[2],"data":'


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[%b[1,2],"data":[3,4]}]}' % ENTRY,
        b'{"inputs":[%bnull,"data":[3,4]}]}' % ENTRY,
        b'{"inputs":[%b[3,4],"data":null}]}' % ENTRY,
        b'{"inputs":[%b[1,2],"\\u0064ata":[3,4]}]}' % ENTRY,
        b'{"inputs":[%bnull}],"outputs":[{"data":[1,2]}]}' % ENTRY,
        b'{"inputs":[%b[1,2]}],"more":{"data":[1,2]}}' % ENTRY,
        b'{"inputs":[%b[1,2]}],"inputs":[%b[3,4]}]}' % (ENTRY, ENTRY),
        b'{"data":[1,2],"inputs":[%bnull}]}' % ENTRY,
        b'{"inputs":[%b[1,2]}],"id":"\\"data\\":[1]"}' % ENTRY,
        b'{"inputs":[%b[1,2]}],"id":"a\\\\"data":[1]"}' % ENTRY,
        b'{"inputs":[%b[1,2]}],"id":"data"}' % ENTRY,
        b'{"inputs":[%b[1,2]}],"id":"x"data":[1]}' % ENTRY,
        b'{"inputs":[%b"data":[1,2]}]}' % ENTRY,
        b'{"inputs":[%b[1,2],"parameters":{"binary_data_size":0}}]}' % ENTRY,
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[0],"data":[oops],"parameters":'
        b'{"binary_data_size":0}}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[0],"data":[]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[9223372036854775807],"data":[1]}]}',
        b'{"inputs":[%b[1,[2]]}]}' % ENTRY,
        b'{"inputs":[%b[[1,2]]}]}' % ENTRY,
        b'{"inputs":[%b[[1],[2]]}]}' % ENTRY,
        b'{"inputs":[%b[1,2]]}]}' % ENTRY,
        b'{"inputs":[%b[1,2}]}' % ENTRY,
        b'{"inputs":[%b[1,2]' % ENTRY,
        b'{"inputs":[%b[1,2]}]}}' % ENTRY,
        b'{"inputs":[%b[1,2]}]}\xff' % ENTRY,
        b'\xef\xbb\xbf{"inputs":[%b[1,2]}]}' % ENTRY,
        b'{"inputs":[%b[1,2]}],"a":[%b[]}]}' % (ENTRY, ENTRY),
        b'["data",[1,2]]',
        b'{"data":[1,2]}',
        b'"data":[1,2]',
        b"",
        b'"data"',
    ],
)
def test_what_looks_like_data_and_is_not(body: bytes) -> None:
    both(v2(one("FP32", -1)), body)


@pytest.mark.parametrize("datatype", NUMERIC)
@pytest.mark.parametrize(
    "number",
    ["1", "1.0", "300", "-1", "70000", "5000000000", "1" * 19, "18446744073709551615", "18446744073709551616",
     "-9223372036854775808", "-9223372036854775809", "true", "false", "null", "NaN", "Infinity", "-Infinity",
     "1e400", "-1e400", "1e-400", "3e38", "4e38", "-0", "-0.0", "0.0", "1" * 400, '"1"', "+1", "01", "{}",
     "[]",
     "1.00000000000000011102230246251565404236316680908203126", "1.7976931348623158e308", "1e2", "nul", "tru",
     "1.00000000000000011102230246251565404236316680908203125e308", "179769313486231580793e289",
     *("1.00000000000000011102230246251565404236316680908203125" + end for end in ("-3", ".", "e", "0.1"))],
)  # fmt: skip
def test_numbers_are_taken_or_refused_as_ever(datatype: str, number: str) -> None:
    text = f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[2],"data":[%s]}}]}}'
    for data in (f"{number},1", f"0,{number}", f"true,{number}", f"[{number}],[0]"):
        both(v2(one(datatype, -1)), (text % data).encode())
        both(v1(one(datatype, -1)), b'{"instances":[%b]}' % data.encode())


def test_numbers_that_only_python_can_round_are_among_the_others() -> None:
    half = "1.00000000000000011102230246251565404236316680908203125"
    data = f"[[{half}, 1.5],[2.5, -{half}1]]"
    body = '{"inputs":[{"name":"x","datatype":"%s","shape":[2,2],"data":%s}]}'
    for datatype in ("FP32", "FP64"):
        spec = one(datatype, -1, 2)
        for text in (data, data.replace("],[", ",")[1:-1]):
            tensors = both(v2(spec), (body % (datatype, text)).encode(), must_read=True)[0]
            values = [[1.0, 1.5], [2.5, -1.0000000000000002]]
            assert tensors["x"][2] == np.array(values, DATATYPES[datatype].dtype).tobytes()


def test_a_large_array_is_read_as_it_was() -> None:
    rows = np.random.default_rng(0).standard_normal((20, 300)) * 10.0 ** np.arange(-150, 150)
    for data in (rows.tolist(), rows.ravel().tolist()):
        document = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [20, 300], "data": data}]}
        tensors = both(v2(one("FP64", -1, 300)), orjson.dumps(document), must_read=True)[0]
        assert tensors["x"] == (rows.dtype, rows.shape, rows.tobytes())


# -- v1 -----------------------------------------------------------------------------------------


@st.composite
def instances(draw: st.DrawFn) -> tuple[TensorSpec, dict[str, Any]]:
    datatype = draw(st.sampled_from(NUMERIC))
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    count = math.prod(shape)
    values = draw(st.lists(values_of(datatype), min_size=count, max_size=count))
    key = draw(st.sampled_from(["instances", "inputs"]))
    return TensorSpec("x", DATATYPES[datatype], (-1, *shape[1:])), {key: nest(values, shape)}


@SETTINGS
@given(instances(), WAYS)
def test_instances_are_read_by_the_kernel_as_they_were_without(request: Any, way: Any) -> None:
    spec, document = request
    assert not isinstance(both(v1(spec), json.dumps(document, **way).encode(), must_read=True), str)


@SETTINGS
@given(
    instances(),
    WAYS,
    st.lists(st.tuples(st.integers(0), st.integers(0, 3), PIECES | st.just("")), min_size=1, max_size=3),
)
def test_mutilated_instances_are_read_or_refused_in_the_same_words(
    request: Any, way: Any, changes: list[tuple[int, int, str]]
) -> None:
    spec, document = request
    text = json.dumps(document, **way)
    for start, length, piece in changes:
        start %= len(text) + 1
        piece = piece.replace("data", "instances")
        text = text[:start] + piece + text[start + length :]
    both(v1(spec), text.encode())


@example(b'{"instances":[1],"inputs":[2]}', (-1,))
@example(b'{"instances":[1],"instances":[2]}', (-1,))
@example(b'{"instances":[{"x":1}]}', (-1,))
@example(b'{"inputs":{"x":[1]}}', (-1,))
@example(b'{"instances":[]}', (-1, 0))
@example(b'{"instances":[[],[]]}', (-1, 0))
@example(b'{"instances":[[1],[2]]}', (-1, -1))
@example(b'{"instances":[1,2,3]}', (-1, 1))
@example(b'{"instances":[1,2,3]}', (2,))
@example(b'{"instances":[[1,2],[3]]}', (-1, 2))
@example(b'{"instances":[[1,2]]}', (2, 1))
@given(st.sampled_from([b"{}", b'{"instances":[1,[2]]}']), st.sampled_from([(-1,), (-1, 2)]))
def test_shapes_of_instances(body: bytes, shape: tuple[int, ...]) -> None:
    both(v1(one("FP32", *shape)), body)


# -- forms --------------------------------------------------------------------------------------


def test_only_a_model_of_one_input_of_numbers_has_them_in_a_list() -> None:
    pair = [TensorSpec(name, DATATYPES["FP32"], (-1,)) for name in "ab"]
    for codec in (v1(*pair), v1(one("BYTES"))):
        assert "expected" in both(codec, b'{"instances": [1, 2]}')


def body_of(data: str, extra: str = "", shape: int = 2) -> bytes:
    entry = f'{{"name":"x","datatype":"FP32","shape":[{shape}],"data":{data}}}'
    return f'{{"inputs":[{entry}]{extra}}}'.encode()


def test_requests_that_differ_in_numbers_only_have_one_form(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = v2(one("FP32", -1))
    extra = ',"outputs":[{"name":"data","parameters":{"binary_data":true}}],"parameters":{"timeout":7}'
    expected = (("data",), frozenset(["data"]), None, 7)
    assert both(codec, body_of("[1,2]", extra))[1:] == expected
    monkeypatch.setattr(numbers, "cut", None)  # what it knows it does not take to pieces
    for data in ("[3,4]", "[ 5 , 6.5 ]", "[null,1e5]"):
        tensors, *rest = outcome(codec, body_of(data, extra))
        assert tuple(rest) == expected
        want = np.array(json.loads(data), np.float32)
        assert tensors["x"] == (want.dtype, want.shape, want.tobytes())


@pytest.mark.parametrize(
    "data", ["[1]", "[1,2,3]", "[]", "", "[", "]", "1,2", "[1,2", "[1,2]]", "[[1,2]]", "[1,2],", "[1,2]}",
             '[1,2],"data":[3,4]', '[1,2],"shape":[1]',
             '[1,2]}],"inputs":[{"data":[1,2]', "null", '"1,2"', "{}"]
)  # fmt: skip
def test_what_only_begins_and_ends_like_a_form(data: str) -> None:
    codec = v2(one("FP32", -1))
    codec.decode(body_of("[1,2]"))
    both(codec, body_of(data))


def test_a_text_that_is_shorter_than_its_form_has_none() -> None:
    codec = v2(one("FP32", -1))
    body = body_of("[1,2]")
    codec.decode(body)
    head = body[: body.index(b"[1,2]")]
    for size in range(len(body)):
        both(codec, body[:size])
        both(codec, head + body[len(body) - size :])


def test_forms_are_let_go_when_there_are_too_many() -> None:
    codec = v2(one("FP32", -1))
    for shape in range(1, 200):
        assert both(codec, body_of(json.dumps([1.5] * shape), shape=shape))[0]["x"][1] == (shape,)
    assert len(codec._forms) <= v2_module._MAX_FORMS


def test_forms_are_short() -> None:
    codec = v2(one("FP32", -1))
    both(codec, body_of("[1,2]", f',"more":"{"x" * 1_000}"'), must_read=True)
    assert codec._forms == {}


def test_requests_with_an_id_have_no_form() -> None:
    codec = v2(one("FP32", -1))
    for name in "ab":
        assert both(codec, body_of("[1,2]", f',"id":"{name}"'))[3] == name
    assert codec._forms == {}


def test_short_texts_without_a_form_are_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v2_module, "_SHORT", 2_000)
    codec = v2(one("FP32", -1))
    both(codec, body_of("[1,2]"), must_read=True)
    monkeypatch.setattr(numbers, "cut", None)
    for body in (body_of("[1,2]", ',"id":"7"'), body_of("[1,2]", ',"more":1')):
        both(codec, body)


# -- before the kernel is there -----------------------------------------------------------------


def test_numba_is_not_imported_before_the_kernel_is_loaded() -> None:
    code = "import sys, driftline.protocols.v1, driftline.protocols.v2; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_nothing_is_cut_before_the_kernel_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "_kernel", None)
    monkeypatch.setattr(numbers, "cut", None)
    assert not isinstance(outcome(v2(one("FP32", -1)), body_of("[1,2]")), str)
