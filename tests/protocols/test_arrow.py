"""Arrow streams as requests and answers."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.config import Batching
from driftline.errors import BadRequest, TooLarge
from driftline.protocols import sizes
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


NAMED = replace(spec("x", "FP32", -1, 2), column_names=("a", "b"))


@pytest.mark.parametrize(
    "columns",
    [
        {"b": [2.0], "id": [9], "a": [1.0]},
        {"b": [2], "x_0": [8], "x_1": [9], "a": [1]},
        {"0": [1], "1": [2]},
        {"x_1": [2], "x_0": [1]},
        {"id": [9], "x": [[1.0, 2.0]]},
    ],
    ids=["by name", "names first", "positions", "numbered", "lists"],
)
def test_columns_that_the_model_knows_are_taken_by_name(columns: dict[str, Any]) -> None:
    assert codec(NAMED).decode(stream(pa.table(columns))).inputs["x"].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1], "id": [2]}, "b; the data has 2: a, id"),
        ({"c": [1], "d": [2]}, "a, b; the data has 2: c, d"),
        ({"1": [1], "0": [2]}, "a, b; the data has 2: 1, 0"),
        ({"0": [1], "1": [2], "2": [3]}, "a, b; the data has 3: 0, 1, 2"),
    ],
)
def test_a_table_without_columns_that_the_model_knows_is_refused(
    columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadRequest, match=f"^input 'x': missing columns: {message}$"):
        codec(NAMED).decode(stream(pa.table(columns)))


@pytest.mark.parametrize("names", ["aab", "abb", "bbaa"])
def test_a_column_of_a_matrix_that_comes_twice_is_refused(names: str) -> None:
    table = pa.table([[1.0]] * len(names), [*names])
    with pytest.raises(BadRequest, match=r"^column '[ab]': expected it once, got 2 times$"):
        codec(NAMED).decode(stream(table))


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
    response = pa.ipc.open_stream(body).read_all()
    assert response.schema.metadata == {b"model_name": b"m", b"model_version": b"3"}
    assert response.column_names == ["label", "scores_0", "scores_1", "word"]
    assert response["word"].to_pylist() == ["a", "ü"]
    assert response["scores_1"].to_pylist()[1] == 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the request is not a valid Arrow stream"),
        (b"garbage" * 10, "the request is not a valid Arrow stream"),
        (stream(pa.table({"n": np.zeros(9, np.float32)}))[:-90], "the request is not a valid Arrow stream"),
        (stream(pa.table({"n": pa.array([], pa.float32())})), "expected rows in the Arrow stream, got none"),
        (stream(pa.table({"m": [1.0], "o": [1.0]})), "input 'n': expected a column of this name"),
        (stream(pa.table({"n": ["a"]})), "column 'n': expected FP32, got string"),
        (stream(pa.table({"n": [[1.0, 2.0]]})), "column 'n': expected FP32, got list"),
        (stream(pa.table([[1.0], [2.0]], ["n", "n"])), "column 'n': expected it once, got 2 times"),
        (stream(pa.table({"n": pa.array([1], pa.time64("us"))})), "column 'n': expected FP32, got time64"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        codec(spec("n", "FP32", -1)).decode(body)
    assert message in str(caught.value)


LISTS = [pa.list_, pa.large_list, pa.list_view, pa.large_list_view]


def lists(rows: list[Any], kind: Any) -> pa.ChunkedArray:
    """A column in three chunks, each a part of something longer."""
    whole = pa.array([rows[0], *rows, rows[-1]], kind)
    return pa.chunked_array([whole.slice(1, 1), whole.slice(2, 0), whole.slice(2, len(rows) - 1)])


@pytest.mark.parametrize(
    "kind", [*(kind(pa.float32()) for kind in LISTS), pa.list_(pa.float32(), 4)], ids=str
)
def test_lists_are_rows(kind: Any) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    body = stream(pa.table({"x": lists(rows.tolist(), kind)}))
    for shape in ((4,), (-1,), (2, 2), (2, -1), (-1, 2)):
        result = codec(spec("x", "FP32", -1, *shape)).decode(body).inputs["x"]
        np.testing.assert_array_equal(result.reshape(3, 4), rows)
        assert len(result.shape) == 1 + len(shape)


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_lists_are_rows_of_more_dimensions(kind: Any) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    body = stream(pa.table({"x": lists(rows.tolist(), kind(kind(pa.float32())))}))
    for shape in ((2, 2), (-1, -1)):
        np.testing.assert_array_equal(codec(spec("x", "FP32", -1, *shape)).decode(body).inputs["x"], rows)


@given(st.lists(st.none() | st.integers(0, 4), min_size=1, max_size=5), st.sampled_from(LISTS))
def test_no_value_gets_into_another_row(lengths: list[int | None], kind: Any) -> None:
    values = [None if length is None else [1.0] * length for length in lengths]
    body = stream(pa.table({"x": pa.array(values, kind(pa.float32()))}))
    reader = codec(spec("x", "FP32", -1, 2))
    wrong = [row for row, length in enumerate(lengths) if length != 2]
    if not wrong:
        assert reader.decode(body).inputs["x"].shape == (len(lengths), 2)
        return
    actual = "null" if lengths[wrong[0]] is None else lengths[wrong[0]]
    with pytest.raises(BadRequest, match=f"^input 'x', row {wrong[0]}: expected 2 values, got {actual}$"):
        reader.decode(body)


@pytest.mark.parametrize(
    ("shape", "rows", "kind", "message"),
    [
        ((16,), [[0.0] * 15, [0.0] * 17], pa.list_(pa.float32()), "row 0: expected 16 values, got 15"),
        ((16,), [None, [0.0] * 32], pa.list_(pa.float32()), "row 0: expected 16 values, got null"),
        ((16,), [[0.0] * 3, [0.0] * 3], pa.list_(pa.float32(), 3), "row 0: expected 16 values, got 3"),
        ((2,), [[0.0] * 2, None], pa.list_(pa.float32(), 2), "row 1: expected 2 values, got null"),
        ((-1,), [[0.0], [0.0] * 2], pa.list_(pa.float32()), "row 1: expected 1 values as in row 0, got 2"),
        ((-1,), [None, [0.0] * 2], pa.list_(pa.float32()), "row 0: expected a list, got null"),
        ((2, 2), [[0.0] * 3], pa.list_(pa.float32()), "row 0: expected 4 values, got 3"),
        (
            (2, -1),
            [[0.0] * 3],
            pa.list_(pa.float32()),
            "expected lists that make shape [-1, 2, -1], got list",
        ),
        ((-1, -1), [[0.0]], pa.list_(pa.float32()), "expected lists that make shape [-1, -1, -1], got list"),
        (
            (2,),
            [[[0.0]]],
            pa.list_(pa.list_(pa.float32())),
            "expected lists that make shape [-1, 2], got list",
        ),
        (
            (2, 2),
            [[[0.0] * 2] * 2, [[0.0] * 3, [0.0]]],
            pa.list_(pa.list_(pa.float32())),
            "row 1: expected 2 values, got 3",
        ),
        (
            (-1, -1),
            [[[0.0] * 2] * 2, [[0.0] * 2, None]],
            pa.list_(pa.list_(pa.float32())),
            "row 1: expected 2 values as in row 0, got null",
        ),
    ],
)
def test_lists_that_make_no_rows_are_refused(shape: Any, rows: list[Any], kind: Any, message: str) -> None:
    body = stream(pa.table({"x": pa.array(rows, kind)}))
    with pytest.raises(BadRequest) as caught:
        codec(spec("x", "FP32", -1, *shape)).decode(body)
    assert str(caught.value).startswith(f"input 'x'{', ' if message.startswith('row') else ': '}{message}")


def test_one_list_column_does_not_stand_for_several_columns() -> None:
    body = stream(pa.table({"x_0": [[1.0, 2.0]], "x_1": [3.0]}))
    with pytest.raises(BadRequest, match="column 'x_0': expected FP32, got list"):
        codec(spec("x", "FP32", -1, 2)).decode(body)


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array(["a", "ü"]).dictionary_encode(), ["a", "ü"]),
        (pa.array(["a", "ü"], pa.string_view()), ["a", "ü"]),
        (pa.DictionaryArray.from_arrays([0, 1], pa.array(["a", "ü"], pa.string_view())), ["a", "ü"]),
        (pa.array([b"a", "ü".encode()]), ["a", "ü"]),
        (pa.array([b"a", "ü".encode()], pa.large_binary()), ["a", "ü"]),
        (pa.array([b"a", b"\xff"]), "column 's': expected UTF-8 strings, got other bytes"),
        (pa.array(["a", None]), "column 's': expected BYTES, got string with 1 nulls"),
        (pa.array([["a"], ["b", "c"]]), "column 's': expected BYTES, got list"),
        (pa.array([{"a": 1}, {"a": 2}]), "column 's': expected BYTES, got struct"),
        (pa.nulls(2), "column 's': expected BYTES, got null with 2 nulls"),
    ],
)
def test_strings_are_text(column: Any, texts: list[str] | str) -> None:
    body = stream(pa.table({"s": column}))
    if isinstance(texts, list):
        assert codec(spec("s", "BYTES", -1)).decode(body).inputs["s"].tolist() == texts
    else:
        with pytest.raises(BadRequest, match=texts):
            codec(spec("s", "BYTES", -1)).decode(body)


def test_numbers_too_large_for_an_integer_are_refused() -> None:
    reader = codec(spec("n", "INT8", -1))
    fits = stream(pa.table({"n": pa.array([127, -128])}))
    assert reader.decode(fits).inputs["n"].tolist() == [127, -128]
    body = stream(pa.table({"n": pa.array([1, 300])}))
    with pytest.raises(BadRequest, match="input 'n': expected INT8 values from -128 to 127, got 300"):
        reader.decode(body)


@given(st.binary(max_size=300), st.integers(0, 500))
def test_broken_streams_are_refused_or_read(noise: bytes, position: int) -> None:
    body = bytearray(stream(pa.table({"n": np.arange(20, dtype=np.float32)})))
    body[position : position + len(noise)] = noise
    with suppress(BadRequest):  # and nothing else
        codec(spec("n", "FP32", -1)).decode(bytes(body))


def any_arrays() -> dict[str, Any]:
    """Two rows of every type that is no number, one of them null where it can be."""
    one = {
        "text": pa.string(), "bytes": pa.binary(), "bytes of two": pa.binary(2), "date": pa.date32(),
        "time": pa.time64("ns"), "duration": pa.duration("s"), "zone": pa.timestamp("us", "Nowhere/Bad"),
        "interval": pa.month_day_nano_interval(), "list": pa.list_(pa.float64()),
        "decimal": pa.decimal128(4, 2), "object": pa.struct({"a": pa.int8()}),
        "map": pa.map_(pa.string(), pa.int8()),
    }  # fmt: skip
    values = {
        "text": "a", "bytes": b"\xff", "bytes of two": b"ab", "date": 1, "time": 1, "duration": 1, "zone": 1,
        "interval": (1, 2, 3), "list": [1.0], "decimal": 1, "object": {"a": 1}, "map": [("a", 1)],
    }  # fmt: skip
    result = {name: pa.array([values[name], None], kind) for name, kind in one.items()}
    result["union"] = pa.UnionArray.from_sparse(pa.array([0, 0], pa.int8()), [pa.array([1.0, 2.0])])
    result["category"] = pa.DictionaryArray.from_arrays(pa.array([0, 0]), pa.array([["a"]]))
    return result


@pytest.mark.parametrize("name", any_arrays())
@pytest.mark.parametrize("raw", [True, False])
def test_no_type_is_a_fault_of_ours(name: str, raw: bool) -> None:
    body = stream(pa.table({"n": any_arrays()[name]}))
    for datatype in ("FP64", "INT64", "BOOL"):
        with pytest.raises(BadRequest, match=f"^column 'n': expected {datatype}, got "):
            codec(replace(spec("n", datatype, -1), raw=raw)).decode(body)


@pytest.mark.parametrize("nested", [False, True])
def test_a_type_that_pyarrow_has_no_arrays_of(nested: bool) -> None:
    """Another unit of an interval, whichever byte that is: pyarrow itself can't make one."""
    column = pa.array([(1, 2, 3)], pa.month_day_nano_interval())
    column = pa.FixedSizeListArray.from_arrays(column, 1) if nested else column
    body = stream(pa.table({"n": column}))
    messages = set()
    for position in (position for position, byte in enumerate(body) if byte == 2):
        changed = body[:position] + b"\0" + body[position + 1 :]
        try:
            codec(spec("n", "FP32", -1, *[1] * nested)).decode(changed)
        except BadRequest as error:
            messages.add(str(error))
    assert any("month_interval" in one and "of which pyarrow has no arrays" in one for one in messages)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_what_is_small_compressed_only_is_refused_before_it_is_large(compression: str) -> None:
    table = pa.table(
        {"n": np.zeros(100_000, np.float32), "s": pa.array(["a" * 1000] * 100_000).dictionary_encode()}
    )
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    body = bytes(sink.getvalue().to_pybytes())
    plain = 100_000 * (4 + 4) + 1000
    assert plain <= sizes.size_of(body) < plain + 10_000
    assert sizes.size_of(stream(table)) == 0
    inputs = (spec("n", "FP32", -1),)
    one = partial(ArrowCodec, Signature(inputs, inputs, batched=True), "m", 3)
    for limits, message in (
        (Batching(max_queue_bytes=plain - 1), f"expected at most {plain - 1} bytes when decompressed, got "),
        (Batching(max_queue_rows=99_999), "expected at most 99999 rows, got 100000"),
    ):
        with pytest.raises(TooLarge, match=message):
            one(limits).decode(body)
    assert len(one(Batching(max_queue_rows=100_000)).decode(body).inputs["n"]) == 100_000
    whole = ArrowCodec(Signature(inputs, inputs, batched=False), "m", 3)
    assert len(whole.decode(body).inputs["n"]) == 100_000


TEXT = "a" * 100_000
VIEW = pa.array([TEXT], pa.string_view()).buffers()


@pytest.mark.parametrize(
    "column",
    [
        pa.DictionaryArray.from_arrays(pa.array([0] * 4_000, pa.int8()), pa.array([TEXT])),
        pa.Array.from_buffers(
            pa.string_view(), 4_000, [None, pa.py_buffer(bytes(VIEW[1]) * 4_000), *VIEW[2:]]
        ),
        pa.ListViewArray.from_arrays(
            pa.array([0] * 4_000, pa.int32()), pa.array([1] * 4_000, pa.int32()), pa.array([TEXT])
        ),
        pa.FixedSizeListArray.from_arrays(
            pa.DictionaryArray.from_arrays(pa.array([0] * 4_000, pa.int8()), pa.array([TEXT])), 1
        ),
    ],
    ids=lambda column: str(column.type)[:20],
)
def test_one_text_that_is_the_value_of_every_row_is_counted_for_each(column: Any) -> None:
    one = codec(spec("s", "BYTES", *[-1] * (2 if column.type.num_fields else 1)))
    body = stream(pa.table({"s": column}))
    assert len(body) < 500_000
    with pytest.raises(TooLarge, match="expected at most 268435456 bytes of values, got 400000000"):
        one.decode(body)
    few = one.decode(stream(pa.table({"s": column[:2]}))).inputs["s"]
    assert few.ravel().tolist() == [TEXT] * 2
    other = codec(spec("n", "FP32", -1))
    inputs = other.decode(stream(pa.table({"n": np.ones(4_000, np.float32), "s": column}))).inputs
    assert len(inputs["n"]) == 4_000


def _values(kind: Any) -> st.SearchStrategy[Any]:
    texts = st.lists(st.sampled_from(["", "a", "bcd", None]), max_size=6)
    return texts if kind is None else st.lists(st.none() | texts, max_size=6)


@given(data=st.data(), cut=st.integers(0, 3))
@pytest.mark.parametrize("kind", [None, pa.list_, pa.large_list, pa.list_view, pa.large_list_view])
@pytest.mark.parametrize("item", [pa.dictionary(pa.int8(), pa.string()), pa.string_view(), pa.large_string()])
def test_bytes_of_values_are_those_of_the_texts(data: st.DataObject, cut: int, kind: Any, item: Any) -> None:
    values = data.draw(_values(kind))
    column = pa.array(values, kind(item) if kind else item)[cut:]
    texts = values[cut:] if kind is None else [text for texts in values[cut:] for text in texts or ()]
    assert int(sizes._sizes(column).sum()) == sum(len(text or "") for text in texts)
