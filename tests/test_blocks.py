"""Columns that lie together are what they are alone: whatever is read, joined or cut."""

import json
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.blocks import Blocks, Tensors, allocate, arrays_of, join, put, slice_rows
from driftline.errors import BadRequest
from driftline.protocols.v1 import inputs_of_rows
from driftline.protocols.v2 import V2Codec
from driftline.tensors import DATATYPES, Signature, TensorSpec

KINDS = {"a": "FP64", "b": "BYTES", "c": "FP64", "d": "INT64", "e": "BYTES"}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "FP64": st.one_of(st.floats(), st.integers(-(2**70), 2**70), st.none(), st.booleans()),
    "BYTES": st.one_of(st.text(max_size=3), st.none()),
    "INT64": st.integers(-(2**63), 2**63 - 1),
}
WRONG = st.sampled_from([[], [1], {}, "1", 1.5, 2**64, None, True])


def signature(*names: str) -> Signature:
    specs = tuple(TensorSpec(name, DATATYPES[KINDS[name]], (-1,), raw=True) for name in names)
    return Signature(specs, specs, True)


def apart(of: Signature) -> Signature:
    """The same, with each column read for itself."""
    other = Signature(of.inputs, of.outputs, True)
    other.__dict__["_groups"] = ()
    return other


def alone(of: Signature, columns: dict[str, list[Any]]) -> Tensors:
    return apart(of).inputs_of(columns)


def same(actual: Tensors, expected: Tensors) -> None:
    assert {*actual} == {*expected}
    assert len(actual) == len(expected)
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype
        assert actual[name].shape == array.shape
        if array.dtype == object:
            assert actual[name].tolist() == array.tolist()
        else:
            np.testing.assert_array_equal(actual[name], array)


@st.composite
def tables(draw: st.DrawFn, names: Sequence[str] = tuple(KINDS)) -> dict[str, list[Any]]:
    rows = draw(st.integers(1, 5))
    return {name: draw(st.lists(VALUES[KINDS[name]], min_size=rows, max_size=rows)) for name in names}


@given(tables())
def test_columns_and_rows_are_read_together_as_alone(columns: dict[str, list[Any]]) -> None:
    of = signature(*columns)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    expected = alone(of, columns)
    for actual in (of.blocks(columns), of.blocks_of_rows(rows)):
        assert actual is not None
        assert [block.dtype for block in arrays_of(actual)] == [np.float64, object, np.int64]
        same(actual, expected)


@given(tables(), st.sampled_from(list(KINDS)), st.integers(0, 4), WRONG)
def test_what_is_wrong_is_refused_as_it_is_alone(
    columns: dict[str, list[Any]], name: str, place: int, wrong: object
) -> None:
    of = signature(*columns)
    columns[name][place % len(columns[name])] = wrong
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    outcomes = []
    for read in (
        lambda: alone(of, columns),
        lambda: of.inputs_of(columns),
        lambda: inputs_of_rows(of, rows),
    ):
        try:
            outcomes.append(read())
        except (BadRequest, TypeError) as error:
            outcomes.append(str(error))
    expected, *actual = outcomes
    for outcome in actual:
        if isinstance(expected, str):
            assert outcome == expected
        else:
            same(outcome, expected)


def test_only_raw_columns_that_are_all_there_lie_together() -> None:
    of = signature("a", "c")
    assert of.blocks({"a": [1], "c": [2]}) is not None
    for columns in (
        {"a": [1]},
        {"a": [1], "b": ["x"]},
        {"a": [1], "c": [2], "d": [3]},
        {"a": [1], "c": [2, 3]},
        {"a": [], "c": []},
        {"a": [1], "c": np.array([2])},
        {"a": [[1]], "c": [[2]]},
    ):
        assert of.blocks(columns) is None, columns
    assert of.blocks_of_rows([]) is None
    assert of.blocks_of_rows([{"a": 1, "c": 2}, {"a": 1}]) is None
    assert of.blocks_of_rows([[1, 2]]) is None
    matrix = TensorSpec("x", DATATYPES["FP32"], (-1, 2))
    assert Signature((matrix,), (matrix,), True).blocks({"x": [[1, 2]]}) is None


def test_a_column_alone_has_a_block() -> None:
    blocks = signature("b").blocks_of_rows([{"b": "x"}, {"b": "y"}])
    assert blocks is not None
    same(blocks, {"b": np.array(["x", "y"], object)})


@given(st.lists(tables(("a", "b", "c")), min_size=1, max_size=4), st.data())
def test_parts_are_joined_and_cut_as_columns_are(
    parts: list[dict[str, list[Any]]], data: st.DataObject
) -> None:
    of = signature("a", "b", "c")
    together = [of.inputs_of(part) for part in parts]
    named = [alone(of, part) for part in parts]
    expected = {name: np.concatenate([part[name] for part in named]) for name in named[0]}
    rows = len(expected["a"])
    mixed = [data.draw(st.sampled_from(pair)) for pair in zip(together, named, strict=True)]
    same(join(mixed), expected)
    same(join(together), expected)
    assert type(join(together)) is Blocks
    whole, columns = allocate(together[0], rows), allocate(named[0], rows)
    assert type(whole) is Blocks
    assert type(columns) is dict
    start = 0
    for blocks, either in zip(together, mixed, strict=True):
        stop = start + of.rows(blocks)
        assert put(blocks, whole, start, stop)
        assert put(either, columns, start, stop)
        start = stop
    assert of.rows(whole) == rows
    same(whole, expected)
    same(columns, expected)
    start = data.draw(st.integers(0, rows))
    stop = data.draw(st.integers(start, rows))
    for tensors in (whole, expected):
        same(slice_rows(tensors, start, stop), {name: array[start:stop] for name, array in expected.items()})


def test_another_form_has_no_room() -> None:
    of = {"x": np.zeros((1, 3), np.float32), "y": np.zeros(1, object)}
    room = allocate(of, 2)
    assert put(of, room, 1, 2)
    for other in (
        {"x": of["x"]},
        {**of, "z": of["y"]},
        {"x": of["x"], "z": of["y"]},
        {**of, "x": np.zeros((1, 1), np.float32)},
        {**of, "x": np.zeros((1, 3))},
        {**of, "x": np.zeros(1, np.float32)},
        {**of, "y": np.zeros(1)},
        {**of, "y": np.zeros(2, object)},
    ):
        assert not put(other, room, 0, 1)
    numbers, texts = (
        signature(name).inputs_of({name: values}) for name, values in (("a", [1]), ("b", ["x"]))
    )
    blocks = allocate(numbers, 1)
    assert type(blocks) is Blocks
    assert put(numbers, blocks, 0, 1)
    assert put({"a": np.full(1, 7.0)}, blocks, 0, 1)
    assert blocks.blocks[0].tolist() == [[7]]
    for other in (
        texts,
        {"a": np.zeros(1, np.float32)},
        {"a": np.zeros(2)},
        Blocks(("a",), [np.zeros((1, 1), np.float32)]),
        Blocks(("a",), [np.zeros((1, 2))]),
    ):
        assert not put(other, blocks, 0, 1)


ENTRIES = [
    {"name": "a", "datatype": "FP64", "shape": [2], "data": [1, None]},
    {"name": "b", "datatype": "BYTES", "shape": [2, 1], "data": ["x", ""]},
    {"name": "c", "datatype": "FP64", "shape": [2], "data": [2.5, True]},
]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"shape": [2, 1]},
        {"shape": [True, 1]},
        {"shape": [2.0]},
        {"shape": [1, 2]},
        {"shape": [3]},
        {"shape": None},
        {"datatype": "INT32"},
        {"datatype": "BYTES"},
        {"datatype": None},
        {"parameters": {}},
        {"parameters": {"binary_data_size": 8}},
        {"name": "b"},
        {"name": "d"},
        {"name": ["a"]},
        {"data": [1]},
        {"data": [1, "2"]},
        {"data": [[1], [2]]},
        {"data": None},
        {"data": [], "shape": [0]},
        {"data": [2**1100, 1]},
    ],
    ids=str,
)
def test_tensors_of_raw_columns_are_read_together_as_alone(change: dict[str, Any]) -> None:
    of = signature("a", "b", "c")
    body = json.dumps({"inputs": [{**ENTRIES[0], **change}, *ENTRIES[1:]]}).encode()
    outcomes: list[Any] = []
    for one in (apart(of), of):
        try:
            outcomes.append(V2Codec(one, "m", 1).decode(body).inputs)
        except BadRequest as error:
            outcomes.append(str(error))
    expected, actual = outcomes
    if isinstance(expected, str):
        assert actual == expected
    else:
        same(actual, expected)
        assert (type(actual) is Blocks) == (change in ({}, {"shape": [2, 1]}, {"data": [2**1100, 1]}))


@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("a", "b", "c", "d", "e")], ids=str)
def test_a_signature_that_was_used_goes_to_another_process(names: tuple[str, ...]) -> None:
    of = signature(*names)
    rows = [{name: "x" if KINDS[name] == "BYTES" else 1 for name in names}] * 2
    expected = of.blocks_of_rows(rows)
    assert expected is not None
    gone = pickle.loads(pickle.dumps(of))
    assert gone == of
    same(gone.blocks_of_rows(rows), expected)
