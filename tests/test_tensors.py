from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive import FORMATS

from driftline.errors import BadRequest
from driftline.tensors import BY_ONNX, DATATYPES, Signature, TensorSpec, coerce, shorten

INTEGERS = [name for name in DATATYPES if "INT" in name]
FLOATS = ["FP16", "FP32", "FP64"]
NESTED = [[[[[1.0]]]], [[1.0, 2.0], [3.0, 4.0]], [[]], [[], []], [1.0], []]


def spec(datatype: str, shape: tuple[int, ...] = (-1,), name: str = "x") -> TensorSpec:
    return TensorSpec(name, DATATYPES[datatype], shape)


def refuses(message: str) -> Any:
    return pytest.raises(BadRequest, match="^" + re.escape(message))


def test_every_datatype_is_known_under_all_its_names() -> None:
    assert set(DATATYPES) == {*FORMATS, "BYTES"}
    assert len(BY_ONNX) == len(DATATYPES)
    assert all(np.dtype(f"<{letter}") == DATATYPES[name].dtype for name, letter in FORMATS.items())
    assert DATATYPES["FP32"].triton == "TYPE_FP32"
    assert DATATYPES["BYTES"].triton == "TYPE_STRING"


# -- coerce -----------------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("data", NESTED)
def test_lists_keep_their_shape(datatype: str, data: list[Any]) -> None:
    values = {"b": bool, "f": float, "O": str}.get(DATATYPES[datatype].dtype.kind, int)

    def converted(item: Any) -> Any:
        return [converted(entry) for entry in item] if isinstance(item, list) else values(item)

    array = coerce(spec(datatype), converted(data))
    assert array.dtype == DATATYPES[datatype].dtype
    assert array.shape == np.shape(data)
    assert array.tolist() == converted(data)


@pytest.mark.parametrize("datatype", INTEGERS)
def test_integers_fit_or_are_refused(datatype: str) -> None:
    limits = np.iinfo(DATATYPES[datatype].dtype)
    assert coerce(spec(datatype), [limits.min, limits.max]).tolist() == [limits.min, limits.max]
    for value in (limits.min - 1, limits.max + 1, 10**30):
        for data in ([0, value], np.array([0, value], dtype=object), np.array([value])):
            with refuses(
                f"input 'x': expected {datatype} values from {limits.min} to {limits.max}, got {value}"
            ):
                coerce(spec(datatype), data)


@pytest.mark.parametrize("datatype", FLOATS)
def test_none_is_nan_and_what_is_too_large_infinite(datatype: str) -> None:
    for data in ([None, 1, 2.5, -0.0], np.array([None, 1, 2.5, -0.0], dtype=object)):
        array = coerce(spec(datatype), data)
        assert math.isnan(array[0])
        assert array[1:].tolist() == [1, 2.5, 0]
        assert math.copysign(1, array[3]) == -1
    wide = coerce(spec(datatype), [1e300, -1e300, 2**64])
    assert wide.tolist()[:2] == ([1e300, -1e300] if datatype == "FP64" else [math.inf, -math.inf])
    assert np.array_equal(coerce(spec(datatype), np.array([1e300, -1e300, 2.0**64])), wide)
    with refuses(f"input 'x': expected {datatype} values from -"):
        coerce(spec(datatype), [1.5, 10**400, None])


@pytest.mark.parametrize(
    ("datatype", "data", "shown"),
    [
        ("FP32", ["1.5"], "'1.5' (string) at position 0"),
        ("FP32", [1.5, True], "true at position 1"),
        ("FP32", [[1, 2], [3, False]], "false at position 3"),
        ("FP32", [{"b": 1}], "{'b': 1} at position 0"),
        ("FP32", np.array([True]), "true at position 0"),
        ("FP32", np.array(["1"]), "'1' (string) at position 0"),
        ("FP32", True, "true at position 0"),
        ("FP32", "1", "'1' (string) at position 0"),
        ("FP32", np.array([1j]), "1j at position 0"),
        ("INT64", [1, 2.0], "2.0 at position 1"),
        ("INT64", [1, True], "true at position 1"),
        ("INT64", [1, None], "null at position 1"),
        ("INT64", ["1"], "'1' (string) at position 0"),
        ("INT64", np.array([1.0, 2.0]), "1.0 at position 0"),
        ("UINT8", np.array([True]), "true at position 0"),
        ("BOOL", [True, 1], "1 at position 1"),
        ("BOOL", [True, None], "null at position 1"),
        ("BOOL", ["true"], "'true' (string) at position 0"),
        ("BOOL", np.array([1, 0]), "1 at position 0"),
        ("BYTES", ["a", 1], "1 at position 1"),
        ("BYTES", ["a", None], "null at position 1"),
        ("BYTES", np.array([1.5]), "1.5 at position 0"),
    ],
)
def test_other_values_are_refused_by_position(datatype: str, data: object, shown: str) -> None:
    with refuses(f"input 'x': expected {datatype} values, got {shown}"):
        coerce(spec(datatype), data)


@pytest.mark.parametrize("datatype", ["FP32", "INT64", "BYTES", "BOOL"])
@pytest.mark.parametrize(
    "data", [[[1, 2], [3]], [[1], 2], [1, [2]], [[1], "ab"], [[1], {}], [[[1]], [[]]], ((1, 2), (3,))]
)
def test_ragged_lists_are_refused(datatype: str, data: object) -> None:
    values = {"BYTES": "s", "BOOL": True}

    def converted(item: Any) -> Any:
        if isinstance(item, (list, tuple)):
            return type(item)(converted(entry) for entry in item)
        return values.get(datatype, item) if isinstance(item, int) else item

    with refuses("input 'x': expected "):
        coerce(spec(datatype), converted(data))
    if not isinstance(data, tuple) and not isinstance(data[1], (str, dict)):
        with refuses("input 'x': expected a regular array, got nested lists that differ"):
            coerce(spec(datatype), converted(data))


@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_a_deep_nest_is_refused(datatype: str) -> None:
    data: list[Any] = []
    for _ in range(1000):
        data = [data]
    with refuses("input 'x': expected shape [-1], got lists nested too deep"):
        coerce(spec(datatype), data)


def test_a_long_text_among_numbers_is_not_multiplied() -> None:
    with refuses("input 'x': expected FP32 values, got 'zzz"):
        coerce(spec("FP32"), [0.5] * 100_000 + ["z" * 10_000_000])


def test_strings_are_text_or_utf_8() -> None:
    texts = ["", "é\0ü\0", "𝄞" * 10_000]
    encoded = [text.encode() for text in texts]
    for data in (texts, encoded, tuple(texts), tuple(encoded), np.array(texts, dtype=object)):
        array = coerce(spec("BYTES"), data)
        assert array.dtype == object
        assert array.tolist() == texts
    assert coerce(spec("BYTES"), np.array([["a", "ü"]])).tolist() == [["a", "ü"]]
    with refuses(r"input 'x': expected UTF-8 strings, got b'\xff': invalid start byte"):
        coerce(spec("BYTES"), [b"\xff"])


def test_what_is_masked_is_nan_or_refused() -> None:
    masked = np.ma.masked_array([[1, 2], [3, 4]], [[False, True], [False, False]])
    assert coerce(spec("FP32"), masked.astype("f4")).ravel().tolist() == pytest.approx(
        [1, np.nan, 3, 4], nan_ok=True
    )
    with refuses("input 'x': expected INT64 values, got null at position 1"):
        coerce(spec("INT64"), masked)


def test_arrays_of_the_right_datatype_are_not_copied() -> None:
    array = np.ones((2, 3), np.float32)
    assert coerce(spec("FP32"), array) is array


@pytest.mark.parametrize("datatype", [*INTEGERS, *FLOATS])
def test_arrays_of_other_number_types_are_converted(datatype: str) -> None:
    for given_dtype in (">i8", np.uint8, np.int16, object):
        array = coerce(spec(datatype), np.array([[1, 2]], given_dtype))
        assert array.dtype == DATATYPES[datatype].dtype
        assert array.tolist() == [[1, 2]]


def test_numpy_values_in_lists_and_objects_are_numbers() -> None:
    assert coerce(spec("INT64"), [[np.int32(1), np.uint8(2)]]).tolist() == [[1, 2]]
    assert coerce(spec("FP32"), [np.array([1.5, 2]), np.array([3, 4])]).tolist() == [[1.5, 2], [3, 4]]
    assert coerce(spec("FP32"), np.array([np.float64(1.5), np.int8(2)], dtype=object)).tolist() == [1.5, 2]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
)


@given(st.sampled_from(sorted(DATATYPES)), JSON)
def test_whatever_comes_is_taken_or_refused(datatype: str, data: object) -> None:
    try:
        array = coerce(spec(datatype), data)
    except BadRequest as error:
        refused = str(error)
        assert refused.startswith("input 'x': expected ")
    else:
        assert array.dtype == DATATYPES[datatype].dtype


# -- specs and signatures -----------------------------------------------------------------------


def test_a_spec_accepts_what_fits() -> None:
    tensor = spec("FP32", (-1, 3))
    assert tensor.accepts((0, 3))
    assert tensor.accepts((7, 3))
    assert not any(map(tensor.accepts, [(), (3,), (7, 2), (7, -1), (7, 3, 1)]))
    assert tensor.as_json() == {"name": "x", "datatype": "FP32", "shape": [-1, 3]}


ONE = Signature((spec("FP32", (-1, 2)),), (), True)
TWO = Signature((spec("FP32", (-1, 2), "a"), spec("BYTES", (-1,), "b")), (), True)


def test_columns_become_inputs_in_the_order_of_the_signature() -> None:
    inputs = TWO.inputs_of({"b": ["u", "v"], "a": [[1, 2], [3, 4]]})
    assert list(inputs) == ["a", "b"]
    assert inputs["a"].dtype == np.float32
    assert inputs["b"].tolist() == ["u", "v"]
    assert ONE.inputs_of([[1, 2]])["x"].tolist() == ONE.inputs_of({"x": [[1, 2]]})["x"].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("signature", "columns", "message"),
    [
        (TWO, [[1, 2]], "expected values by input name (a, b), got [[1, 2]]"),
        (TWO, {"a": [[1, 2]]}, "input 'b': expected BYTES [-1], got nothing"),
        (TWO, {"a": [[1, 2]], "b": ["u"], "c": 1}, "input 'c': the model has no such input; it has: a, b"),
        (ONE, {1: []}, "input 1: the model has no such input; it has: x"),
        (ONE, [[1, 2, 3]], "input 'x': expected shape [-1, 2], got [1, 3]"),
        (ONE, [], "input 'x': expected shape [-1, 2], got [0]"),
        (ONE, 5, "input 'x': expected shape [-1, 2], got []"),
        (ONE, None, "input 'x': expected shape [-1, 2], got []"),
        (ONE, "abc", "input 'x': expected FP32 values, got 'abc' (string) at position 0"),
    ],
)
def test_columns_that_do_not_fit_are_refused(signature: Signature, columns: object, message: str) -> None:
    with refuses(message):
        signature.inputs_of(columns)


def test_rows_are_counted_and_must_agree() -> None:
    inputs = TWO.inputs_of({"a": np.zeros((3, 2)), "b": ["u", "v", "w"]})
    assert TWO.rows(inputs) == 3
    assert Signature(TWO.inputs, (), False).rows(inputs) == 1
    with refuses("input 'b': expected 3 rows as in input 'a', got 1"):
        TWO.rows(TWO.inputs_of({"a": np.zeros((3, 2)), "b": ["u"]}))


# -- messages -----------------------------------------------------------------------------------


def test_values_in_messages_are_short() -> None:
    assert shorten([1, "a", None, {"k": [True]}]) == "[1, 'a', None, {'k': [True]}]"
    assert len(shorten("z" * 10_000_000)) == 60
    assert len(shorten(list(range(1000)))) <= 60
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert shorten(deep) == "[[[[[...]]]]]"
    while deep:  # freed from the outside, one list at a time
        deep = deep[0]
