"""Every way to the same tensors; the answers of MLflow itself are in tests/integration."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from arrow_memory import counted
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import BadRequest, DriftlineError, SignatureViolation, TooLarge, UnsupportedMedia
from driftline.mlmodel import Column, ColumnType, MlflowSignature, Parameter, Tensor
from driftline.protocols import numbers
from driftline.protocols.codec import InferRequest
from driftline.protocols.mlflow import casting
from driftline.protocols.mlflow.scoring import MlflowCodec, protocol_of
from driftline.protocols.mlflow.tabular import CsvCodec, ParquetCodec
from driftline.tensors import DATATYPES, Signature, TensorSpec


@pytest.fixture(scope="module", autouse=True)
def kernel() -> Iterator[None]:
    numbers.load()
    yield
    numbers._kernel = None


def spec(name: str, datatype: str = "FP32", shape: tuple[int, ...] = (-1,), raw: bool = False) -> TensorSpec:
    return TensorSpec(name, DATATYPES[datatype], shape, raw)


def declared(**types: str) -> MlflowSignature:
    """Columns by name; an optional one ends in a question mark."""
    return MlflowSignature(
        tuple(Column(name, ColumnType(kind.rstrip("?")), kind[-1] != "?") for name, kind in types.items())
    )


def tensor(name: str | None, *shape: int) -> MlflowSignature:
    return MlflowSignature((Tensor(name, np.dtype(np.float32), shape),))


OUTPUTS = (spec("y"),)
MATRIX = Signature((spec("x", shape=(-1, 3)),), OUTPUTS, True)
PAIR = Signature((spec("a", shape=(-1, 1)), spec("b", "BYTES")), OUTPUTS, True)
RAW = Signature(
    tuple(spec(n, k, raw=True) for n, k in (("t", "FP64"), ("c", "BYTES"), ("d", "BYTES"))), OUTPUTS, True
)
ABC = declared(a="double", b="long", c="float")


def decode(codec: MlflowCodec, document: Any) -> InferRequest:
    return codec.decode(document if isinstance(document, bytes) else json.dumps(document).encode())


def split(rows: list[Any], names: str | None = "abc", **others: Any) -> dict[str, Any]:
    return {
        "dataframe_split": {**others, **({} if names is None else {"columns": list(names)}), "data": rows}
    }


def refused(codec: MlflowCodec, document: Any, kind: type[DriftlineError] = BadRequest) -> str:
    with pytest.raises(kind) as error:
        decode(codec, document)
    assert type(error.value) is kind
    return str(error.value)


ROWS = [[1.5, 2, -3.25], [0.5, 4, 7]]


@pytest.mark.parametrize("signature", [None, ABC], ids=["undeclared", "declared"])
def test_every_form_of_a_table_is_the_same_matrix(signature: MlflowSignature | None) -> None:
    codec = MlflowCodec(MATRIX, signature)
    forms = [
        split(ROWS), split(ROWS, index=[3, 4]),
        {"dataframe_records": [dict(zip("abc", row)) for row in ROWS]},  # noqa: B905
    ]  # fmt: skip
    if signature is not None:  # else columns have no names
        forms += [
            split([[c, a, 0, b] for a, b, c in ROWS], "cazb"),
            {"inputs": {"b": [2, 4], "a": [1.5, 0.5], "c": [-3.25, 7]}},
            {"instances": [dict(zip("abc", row)) for row in ROWS]},  # noqa: B905
        ]
    for form in forms:
        for _ in range(3):  # by its form from the second time on
            request = decode(codec, form)
            assert request.by_row
            assert request.inputs["x"].dtype == np.float32
            assert request.inputs["x"].tolist() == ROWS


NAMED = Signature((replace(spec("x", shape=(-1, 3)), column_names=("a", "b", "c")),), OUTPUTS, True)
TURNED = [[c, 9, b, a] for a, b, c in ROWS]


@pytest.mark.parametrize(
    "signature", [None, ABC, tensor(None, -1, 3)], ids=["undeclared", "columns", "tensor"]
)
def test_a_table_is_taken_by_the_names_that_the_model_knows(signature: MlflowSignature | None) -> None:
    codec = MlflowCodec(NAMED, signature)
    forms = [
        split(TURNED, "czba"), {"dataframe_records": [dict(zip("czba", row, strict=True)) for row in TURNED]},
        split(ROWS), {"dataframe_records": [dict(zip("abc", row, strict=True)) for row in ROWS]},
    ]  # fmt: skip
    if signature is not ABC:
        forms += [split(ROWS, None), {"dataframe_split": {"columns": [0, 1, 2], "data": ROWS}}]
    if signature is None:
        forms += [{"inputs": ROWS}, {"instances": ROWS}]
    for form in forms * 3:  # by its form from the second time on
        assert decode(codec, form).inputs["x"].tolist() == ROWS


def test_names_in_csv_and_parquet_are_those_that_the_model_knows() -> None:
    frame = pd.DataFrame(TURNED, columns=list("czba"))
    for kind, body in ((CsvCodec, frame.to_csv(index=False).encode()), (ParquetCodec, frame.to_parquet())):
        assert decode(kind(NAMED), body).inputs["x"].tolist() == ROWS
    assert "a, b, c; the data has 3: 1.5, 2, -3.25" in refused(CsvCodec(NAMED), b"1.5,2,-3.25\n1,2,3\n")


def test_text_in_csv_stays_as_it_is_where_the_model_takes_text() -> None:
    request = decode(CsvCodec(RAW), b"t,c,d\n007,02139,True\n8,1e3,2020-01-01T00:00\n")
    assert request.inputs["t"].tolist() == [7, 8]
    assert request.inputs["c"].tolist() == ["02139", "1e3"]
    assert request.inputs["d"].tolist() == ["True", "2020-01-01T00:00"]


@pytest.mark.parametrize("word", ["", "NA", "null", "NaN", "None", "<NA>", "n/a"])
@pytest.mark.parametrize("signature", [None, declared(t="double", c="string", d="string")])
def test_words_for_missing_values_in_csv_are_those_of_pandas(
    word: str, signature: MlflowSignature | None
) -> None:
    body = f"t,c,d\n1.5,x,y\n{word},{word},{word}\n"
    assert pd.read_csv(io.StringIO(body)).isna().to_numpy().tolist() == [[False] * 3, [True] * 3]
    inputs = decode(CsvCodec(RAW, signature), body.encode()).inputs
    assert math.isnan(inputs["t"][1])
    assert [inputs["c"][1], inputs["d"][1]] == [None, None]


def test_text_in_csv_may_be_named_after_its_place() -> None:
    texts = Signature((replace(spec("x", "BYTES", (-1, 2)), column_names=("a", "b")),), OUTPUTS, True)
    for names in ("a,b", "x_0,x_1"):
        assert decode(CsvCodec(texts), f"{names}\n02139,True\n".encode()).inputs["x"].tolist() == [
            ["02139", "True"]
        ]


def test_columns_that_are_declared_by_number_are_those_without_names() -> None:
    inputs = json.dumps([{"type": "double", "name": number} for number in range(3)])  # as of a DataFrame(X)
    codec = MlflowCodec(MATRIX, MlflowSignature.parse({"inputs": inputs}, "MLmodel"))
    turned = {"columns": [2, 0, 1], "data": [[c, a, b] for a, b, c in ROWS]}
    records = [dict(zip("012", row, strict=True)) for row in ROWS]
    for form in (split(ROWS, None), {"dataframe_split": turned}, {"dataframe_records": records}):
        assert decode(codec, form).inputs["x"].tolist() == ROWS
    assert "missing columns: '2'" in refused(codec, split([[1, 2]], None), SignatureViolation)


def test_a_table_without_names_that_the_model_knows_is_refused() -> None:
    codec = MlflowCodec(NAMED)
    assert "missing columns: b; the data has 2: a, c" in refused(codec, split([[1, 2]], "ac"))
    assert "missing columns: a, b, c; the data has 3: d, e, f" in refused(codec, split(ROWS, "def"))
    assert "column 'a': expected once, got 2 times" in refused(codec, split([[1, 2, 3, 4]], "abca"))


def test_a_matrix_in_another_order_than_is_declared_is_taken_by_name() -> None:
    reordered = Signature((replace(NAMED.inputs[0], column_names=("c", "b", "a")),), OUTPUTS, True)
    assert decode(MlflowCodec(reordered, ABC), split(ROWS)).inputs["x"].tolist() == [r[::-1] for r in ROWS]


@pytest.mark.parametrize("datatype", ["INT64", "INT32", "UINT8"])
@pytest.mark.parametrize("value", [1.5, None, -1e19, 2**63 + 1, 3.0])
def test_no_format_makes_whole_numbers_of_others(datatype: str, value: float | None) -> None:
    integer_input = replace(NAMED.inputs[0], datatype=DATATYPES[datatype])
    codec = MlflowCodec(Signature((integer_input,), OUTPUTS, True))
    rows = [[1, 2, 3], [4, 5, 6]]
    forms = [
        lambda rows: split(rows),
        lambda rows: split([[c, b, 9, a] for a, b, c in rows], "cbza"),
        lambda rows: {"dataframe_records": [dict(zip("abc", row, strict=True)) for row in rows]},
        lambda rows: {"inputs": rows},
    ]
    for form in forms * 2:  # by its form from the second time on
        assert decode(codec, form(rows)).inputs["x"].tolist() == rows
        assert f"expected {datatype} values" in refused(codec, form([[1, value, 3]]))
    one = json.dumps({"dataframe_records": [{"a": 2**53 + 1, "b": 0, "c": 0}]}).encode()
    if datatype == "INT64":
        assert decode(codec, one).inputs["x"][0, 0] == 2**53 + 1


@pytest.mark.parametrize("signature", [None, declared(a="boolean", b="double", c="long")])
def test_columns_of_booleans_are_numbers_where_the_model_takes_those(
    signature: MlflowSignature | None,
) -> None:
    rows = [[True, 1.5, 2], [False, 0.5, 4]]
    numbers = [[1, 1.5, 2], [0, 0.5, 4]]
    frame = pd.DataFrame(rows, columns=list("abc"))
    columns = Signature(tuple(spec(name, shape=(-1, 1)) for name in "abc"), OUTPUTS, True)
    for model in (NAMED, columns):
        for kind, body in (
            (MlflowCodec, split(rows)),
            (MlflowCodec, {"dataframe_records": frame.to_dict("records")}),
            (CsvCodec, frame.to_csv(index=False).encode()),
            (ParquetCodec, frame.to_parquet()),
        ):
            inputs = decode(kind(model, signature), body).inputs
            assert np.concatenate(list(inputs.values()), axis=1).tolist() == numbers
    integers = Signature((spec("a", "INT64"),), OUTPUTS, True)
    assert decode(MlflowCodec(integers), split([[True], [False]], "a")).inputs["a"].tolist() == [1, 0]
    assert "INT64 values, got null" in refused(MlflowCodec(integers), split([[True], [None]], "a"))
    assert "got true at position 0" in refused(MlflowCodec(integers), split([[True], [2]], "a"))
    gaps = decode(CsvCodec(MATRIX), b"a,b,c\nTrue,1.5,2\n,1,2\n").inputs["x"]
    np.testing.assert_array_equal(gaps, [[1, 1.5, 2], [np.nan, 1, 2]])


def test_tensors_are_answered_by_output() -> None:
    codec = MlflowCodec(MATRIX)
    for form in (
        {"inputs": ROWS},
        {"instances": ROWS},
        {"inputs": {"x": ROWS}},
        {"instances": [{"x": r} for r in ROWS]},
    ):
        for _ in range(2):
            request = decode(codec, form)
            assert not request.by_row
            assert request.inputs["x"].tolist() == ROWS
    text, length = codec.encode(request, {"y": np.array([[0.1, math.nan]], np.float32)})
    assert length is None
    assert text == b'{"predictions": {"y": [[0.10000000149011612, NaN]]}}'


finite = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-(2**40), 2**40), st.none()
)
values = st.one_of(st.floats(width=32), st.integers(-(2**40), 2**40), st.none())


@given(
    st.lists(st.lists(values, min_size=3, max_size=3), min_size=1, max_size=5),
    st.sampled_from(["split", "inputs"]),
)
def test_numbers_read_by_the_kernel_are_those_of_json(rows: list[list[Any]], key: str) -> None:
    document = split(rows) if key == "split" else {"inputs": rows}
    fresh, used = MlflowCodec(MATRIX), MlflowCodec(MATRIX)
    decode(used, split(ROWS) if key == "split" else {"inputs": ROWS})
    np.testing.assert_array_equal(decode(fresh, document).inputs["x"], decode(used, document).inputs["x"])


@given(st.data())
def test_a_form_changes_no_answer(data: st.DataObject) -> None:
    codec = MlflowCodec(
        MATRIX, data.draw(st.sampled_from([None, declared(a="double", b="double", c="float")]))
    )
    first = orjson.dumps(split(ROWS, "abc", index=[0, 1]))
    decode(codec, first)
    text = bytearray(first)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text) - 1))
        text[start : start + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    fresh = MlflowCodec(MATRIX, codec._declared if codec._declared.inputs else None)

    def outcome(codec: MlflowCodec) -> object:
        try:
            return repr(codec.decode(bytes(text)))
        except BadRequest as error:
            return str(error)

    assert outcome(codec) == outcome(fresh)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from([None, 1, 2, 3]), st.booleans()), max_size=6),
    st.sampled_from([None, declared(a="double", b="double", c="float")]),
)
def test_an_index_has_as_many_as_there_are_rows(
    several: list[tuple[int, int | None, bool]], signature: MlflowSignature | None
) -> None:
    codec = MlflowCodec(MATRIX, signature)
    for rows, index, index_last in several:
        where: dict[str, Any] = {} if index is None else {"index": list(range(index))}
        table = {"columns": list("abc"), "data": ROWS[:1] * rows}
        document = {"dataframe_split": {**table, **where} if index_last else {**where, **table}}
        body = json.dumps(document).encode()
        try:
            form = codec.form(body, None)
            read = None if form is None else form.read(body)
        except numbers.Unread:
            read = None
        if index in (None, rows):
            for request in (read, decode(codec, body)):
                assert request is None or request.inputs["x"].tolist() == ROWS[:1] * rows
        else:
            assert read is None
            assert f"expected 'index' as a list of {rows}" in refused(codec, body)


def test_tables_with_an_index_are_remembered() -> None:
    codec = MlflowCodec(MATRIX)
    body = json.dumps({"dataframe_split": {"index": [0, 1], "columns": list("abc"), "data": ROWS}}).encode()
    decode(codec, body)
    form = codec.form(body, None)
    assert form is not None
    assert form.fits(body.replace(b"0.5", b"7.5"))
    assert not form.fits(body.replace(b"]]", b"], [1, 2, 3]]"))


def test_forms_are_few() -> None:
    codec = MlflowCodec(MATRIX)
    for number in range(200):
        decode(codec, split(ROWS, index=[number, 0]))
    assert 0 < len(codec._forms) <= 64


def test_columns_by_name_are_reshaped_as_the_model_has_them() -> None:
    request = decode(MlflowCodec(PAIR), split([["x", 1, 0], ["é", 2.5, 0]], "baz"))
    assert request.inputs["a"].tolist() == [[1], [2.5]]
    assert request.inputs["b"].tolist() == ["x", "é"]
    message = refused(MlflowCodec(PAIR), split([[1]], "a"))
    assert message == "column 'b': expected BYTES, got nothing; the data has: a"
    assert "column 'a': expected once, got 2 times" in refused(MlflowCodec(PAIR), split([[1, 2, "x"]], "aab"))


def test_raw_columns_may_lack_values() -> None:
    kinds = declared(t="double", c="string", d="datetime?")
    rows = [[1, None, "2024-01-05"], [None, 5, "NaT"], [math.nan, math.nan, None]]
    inputs = decode(MlflowCodec(RAW, kinds), split(rows, "tcd")).inputs
    np.testing.assert_array_equal(inputs["t"], [1, np.nan, np.nan])
    assert inputs["c"].tolist() == [None, "5.0", None]  # whole numbers beside gaps are fractions in pandas
    assert inputs["d"].tolist() == ["2024-01-05 00:00:00", None, None]
    assert decode(MlflowCodec(RAW, kinds), split([[1, "x"]], "tc")).inputs["d"].tolist() == [None]


scalars = st.one_of(
    st.integers(-(2**62), 2**62),
    st.floats(-1e15, 1e15),
    st.booleans(),
    st.none(),
    st.just(math.nan),
    st.text(),
)


@given(st.lists(scalars, min_size=1))
def test_texts_of_numbers_in_a_data_frame_are_those_of_pandas(values: list[Any]) -> None:
    document = {"dataframe_records": [{"c": value} for value in values]}
    column = pd.DataFrame(document["dataframe_records"])["c"].tolist()
    expected = [None if value is None or value != value else str(value) for value in column]
    codec = MlflowCodec(Signature((spec("c", "BYTES", raw=True),), OUTPUTS, True), declared(c="string"))
    assert decode(codec, document).inputs["c"].tolist() == expected


def test_numbers_for_texts_are_written_as_they_came_or_refused() -> None:
    codec = MlflowCodec(Signature((spec("c", "BYTES"),), OUTPUTS, True), declared(c="string"))
    for values, texts in (([5.5, 1], ["5.5", "1"]), ([2**64 - 1, -(2**63)], [str(2**64 - 1), str(-(2**63))])):
        assert decode(codec, {"inputs": {"c": values}}).inputs["c"].tolist() == texts
    assert decode(codec, split([[math.inf], [10**400]], "c")).inputs["c"].tolist() == ["inf", str(10**400)]
    for wide in (2**64, -(2**63) - 1, 1234567890123456789012345, 1e300):
        assert "column 'c': expected string, got " in refused(codec, split([[wide]], "c"))


days = st.builds(
    "{}{}{:0{}}{}{:0{}}{}".format,
    st.integers(1670, 2270), st.sampled_from("-/."), st.integers(1, 12), st.sampled_from([1, 2]),
    st.sampled_from("-/."), st.integers(1, 31), st.sampled_from([1, 2]),
    st.sampled_from(["", "T07:08", " 07:08:09.123456", "t07", "_07:08"]),
)  # fmt: skip


@given(days)
def test_days_are_those_of_pandas_or_none(day: str) -> None:
    try:
        expected = [str(pd.to_datetime(pd.Series([day])).astype("datetime64[ns]")[0])]
    except ValueError:
        expected = []
    codec = MlflowCodec(Signature((spec("d", "BYTES", raw=True),), OUTPUTS, True), declared(d="datetime"))
    if expected and day[:10].count(day[4]) == 2:
        assert decode(codec, split([[day]], "d")).inputs["d"].tolist() == expected
    else:
        refused(codec, split([[day]], "d"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2024-W01-5", "column 'd': expected datetime, got '2024-W01-5' (string)"),
        ("01/05/2024", "column 'd': expected datetime, got '01/05/2024' (string)"),
        (1704412800000, "column 'd': expected datetime, got 1704412800000"),
        ([], "column 'd': expected datetime, got []"),
        (
            "9999-12-31",
            "column 'd': expected datetime from 1677-09-21 00:12:43.145225 to 2262-04-11 23:47:16",
        ),
    ],
)
def test_what_is_no_day_is_named(value: object, message: str) -> None:
    assert message in refused(MlflowCodec(PAIR, declared(d="datetime")), split([[value]], "d"))


def test_nothing_but_numbers_is_a_boolean_in_a_tensor() -> None:
    flags = MlflowSignature((Tensor(None, np.dtype(np.bool_), (-1, 2)),))
    codec = MlflowCodec(Signature((spec("x", "BOOL", (-1, 2)),), OUTPUTS, True), flags)
    assert decode(codec, {"inputs": [[True, 0], [0.5, False]]}).inputs["x"].tolist() == [
        [True, False],
        [True, False],
    ]
    for value in (None, "x", "", {}):
        for form in (
            {"inputs": [[True, value]]},
            {"instances": [[True, value]]},
            split([[True, value]], "ab"),
        ):
            assert "input 'x': expected BOOL values, got " in refused(codec, form)


def test_a_table_of_other_columns_is_none_of_optional_ones() -> None:
    codec = MlflowCodec(MATRIX, declared(a="double?", b="double?", c="double?"))
    message = "expected any of a: double (optional); b: double (optional); c: double (optional); got "
    for form in (split(ROWS, None), split(ROWS, "xyz"), {"dataframe_records": []}, {"inputs": {"z": [1]}}):
        assert message in refused(codec, form)
    np.testing.assert_array_equal(decode(codec, split([[7]], "b")).inputs["x"], [[np.nan, 7, np.nan]])


def test_numbers_that_are_cut_off_and_bytes_in_base64() -> None:
    assert decode(MlflowCodec(MATRIX, ABC), split([[1, 2.75, 3]])).inputs["x"].tolist() == [[1, 2, 3]]
    pair = MlflowCodec(PAIR, declared(a="float", b="binary"))
    assert decode(pair, split([["1.5", "w6k="]], "ab")).inputs["b"].tolist() == ["é"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (split([[1, "x", 3]]), "column 'b': expected long, got 'x' (string)"),
        (split([[1, None, 3]]), "column 'b': expected long, got null"),
        (split([[1, 2, 3], [1, 2**70, 3]]), "column 'b': expected long, got 1.1805916207174113e+21"),
        (split([[1, 2, [3]]]), "column 'c': expected float, got [3]"),
        (split(ROWS, "ab"), "'dataframe_split': expected 2 values a row, got 3"),
        (split(ROWS, index=[1]), "'dataframe_split': expected 'index' as a list of 2"),
        ({"dataframe_split": {"columns": "ab", "data": ROWS}}, "expected 'columns' as a list of names"),
        ({"dataframe_split": {"data": 5}}, "'dataframe_split': expected 'data' as a list of rows, got 5"),
        ({"dataframe_records": 5}, "'dataframe_records': expected a list of objects"),
        ({"inputs": ROWS, "instances": ROWS}, "expected an object with exactly one of dataframe_split"),
        (b"{", "the request is not valid JSON: Expecting property name"),
        (b"[" * 100_000, "the request is not valid JSON: maximum recursion depth"),
        (b"\xff", "the request is not valid JSON: 'utf-8' codec"),
        (rb'{"inputs": [["\ud83d"]]}', r"not valid JSON: 'utf-8' codec can't encode character '\ud83d'"),
        (rb'{"inputs": [[NaN]], "\uDE00": 1}', "not valid JSON: 'utf-8' codec can't encode character"),
        (b'{"inputs": [["\xed\xa0\xbd"]]}', "the request is not valid JSON: 'utf-8' codec can't decode"),
        ('{"inputs": [["\ud83d"]]}'.encode("utf-16-le", "surrogatepass"), "not valid JSON: 'utf-16-le'"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_named(document: Any, message: str) -> None:
    assert message in refused(MlflowCodec(MATRIX, ABC), document)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-be"])
def test_texts_as_python_reads_them(encoding: str) -> None:
    codec = MlflowCodec(Signature((spec("x", "BYTES"),), OUTPUTS, True))
    body = r'{"inputs": ["é", "\u00e9", "\ud83d\ude00", "\\ud83d"], "params": NaN}'.encode(encoding)
    assert decode(codec, body).inputs["x"].tolist() == ["é", "é", "😀", r"\ud83d"]


@pytest.mark.parametrize(
    ("signature", "document", "message"),
    [
        (ABC, split([[1, 2]], "ac"), "missing columns: 'b'; expected a: double; b: long; c: float; got"),
        (ABC, {"inputs": ROWS}, "expected values by column name: a: double; b: long; c: float"),
        (ABC, {"inputs": {"a": [1], "b": [1, 2], "c": 1}}, "expected columns of one length, got {"),
        (ABC, {"instances": [{"a": [1], "b": 2, "c": 3}]}, "column 'a': expected double, got lists"),
        (declared(a="datetime"), split([["2024-01-05T00:00:00Z"]], "a"), "expected datetime without a time"),
        (tensor("x", -1, 3), {"inputs": {"z": ROWS}}, "missing inputs: 'x'"),
        (tensor(None, 2, 3), {"inputs": ROWS[:1]}, "expected shape [2, 3]"),
        (
            MlflowSignature(params=(Parameter("k", ColumnType("long"), 1),)),
            {"inputs": ROWS, "params": {"k": True}},
            "parameter 'k': expected long, got true",
        ),
    ],
)  # fmt: skip
def test_what_violates_a_signature_is_named(signature: MlflowSignature, document: Any, message: str) -> None:
    assert message in refused(MlflowCodec(MATRIX, signature), document, SignatureViolation)


def encode(outputs: dict[str, np.ndarray], classes: dict[str, Any] | None = None) -> Any:
    specs = tuple(spec(name) for name in outputs)
    codec = MlflowCodec(Signature(MATRIX.inputs, specs, True), None, classes)
    text, _ = codec.encode(InferRequest({}, tuple(outputs), by_row=True), outputs)
    return json.loads(text)["predictions"]


def test_rows_of_outputs() -> None:
    label, scores = np.array([1, 0]), np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    assert encode({"y": scores[:, :1]}) == [{"y": 0.25}, {"y": 0.5}]
    assert encode({"y": scores}) == [{"y": 0.25}, {"y": 0.75}, {"y": 0.5}, {"y": 0.5}]
    assert encode({"label": label, "p": scores}) == [
        {"label": 1, "p": [0.25, 0.75]},
        {"label": 0, "p": [0.5, 0.5]},
    ]
    assert encode({"label": label, "p": scores}, {"p": (0, "b")}) == [
        {"label": 1, "p": {"0": 0.25, "b": 0.75}}, {"label": 0, "p": {"0": 0.5, "b": 0.5}},
    ]  # fmt: skip
    assert encode({"y": np.array(["null", "é"], object)}) == [{"y": "null"}, {"y": "é"}]
    assert repr(encode({"y": np.array([np.inf, -np.inf])})) == "[{'y': inf}, {'y': -inf}]"


def test_csv() -> None:
    codec = CsvCodec(RAW, declared(t="double", c="string", d="datetime?"))
    inputs = codec.decode(b"d,t,c,z\n2024-01-05,1,007,x\n,,,\n").inputs
    np.testing.assert_array_equal(inputs["t"], [1, np.nan])
    assert inputs["c"].tolist() == ["007", None]
    assert inputs["d"].tolist() == ["2024-01-05 00:00:00", None]
    undeclared = CsvCodec(RAW).decode(b"d,t,c\n2024-01-05,1,x\n").inputs
    assert undeclared["d"].tolist() == ["2024-01-05"]
    with pytest.raises(BadRequest, match=r"not valid CSV: .*'x'"):
        CsvCodec(MATRIX, ABC).decode(b"a,b,c\n1,x,3\n")
    with pytest.raises(BadRequest, match="not valid CSV"):
        codec.decode(b"")
    with pytest.raises(BadRequest, match="the table: 'utf-8' codec can't decode byte 0xff"):
        codec.decode(b"t,c\xff\n1,x\n")


def test_a_table_of_too_many_rows_is_not_read() -> None:
    body = parquet(dict.fromkeys("abc", np.zeros(70_000)))
    assert len(body) < 5_000
    with pytest.raises(TooLarge, match="expected at most 65536 rows, got 70000"):
        ParquetCodec(MATRIX).decode(body)
    assert len(ParquetCodec(MATRIX, max_rows=70_000).decode(body).inputs["x"]) == 70_000


def test_columns_that_are_not_taken_are_not_read() -> None:
    junk = pa.array(["a" * 10**7], pa.large_string())
    rows = parquet({"t": [1.0], "c": ["x"], "d": ["y"], "junk": junk}, compression="zstd")
    matrix = parquet({"a": [1.0], "b": [2], "c": np.float32([3]), "junk": junk}, compression="zstd")
    raw = declared(t="double", c="string", d="string")
    for codec, body in ((ParquetCodec(RAW), rows), (ParquetCodec(RAW, raw), rows)):
        with counted() as pool:
            assert codec.decode(body).inputs["c"].tolist() == ["x"]
        assert pool.max_memory() < 10**6
    for signature, known in ((MATRIX, ABC), (NAMED, None), (NAMED, tensor(None, -1, 3))):
        with counted() as pool:
            assert ParquetCodec(signature, known).decode(matrix).inputs["x"].tolist() == [[1, 2, 3]]
        assert pool.max_memory() < 10**6
    message = "column 'd': expected BYTES, got nothing; the data has: t, c, junk"
    with pytest.raises(BadRequest, match=message):
        ParquetCodec(RAW).decode(parquet({"t": [1.0], "c": ["x"], "junk": junk}))


@pytest.mark.parametrize(
    "metadata", ["[]", "{}", '{"index_columns": 1}', '{"index_columns": [{}]}', "[" * 100_000]
)
def test_odd_words_of_pandas_in_a_file_are_no_fault_of_ours(metadata: str) -> None:
    table = pa.table({"a": [1.0], "b": [2.0], "c": [3.0]}).replace_schema_metadata({"pandas": metadata})
    sink = io.BytesIO()
    pa.parquet.write_table(table, sink)
    codec = ParquetCodec(MATRIX)
    if metadata.startswith("[["):
        assert "not a valid Parquet file" in refused(codec, sink.getvalue())
    else:
        assert decode(codec, sink.getvalue()).inputs["x"].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("listed", [False, True])
def test_values_that_are_small_in_a_file_only_are_refused(listed: bool) -> None:
    texts = pa.array(["a" * 100_000] * 4_000, pa.large_string())
    column = pa.ListArray.from_arrays(pa.array([0, 4_000], pa.int32()), texts) if listed else texts
    one = Signature((spec("c", "BYTES", raw=True),), OUTPUTS, True)
    body = parquet({"c": column}, compression="none")
    assert len(body) < 410_000
    with (
        counted() as pool,
        pytest.raises(TooLarge, match="at most 268435456 bytes of values, got 400000000"),
    ):
        ParquetCodec(one).decode(body)
    assert pool.max_memory() < 10**7


def test_a_file_that_says_it_is_large_is_not_read() -> None:
    one = Signature((spec("c", "BYTES", raw=True),), OUTPUTS, True)
    body = parquet({"c": ["a" * 10**6]}, compression="zstd", use_dictionary=False)
    with pytest.raises(TooLarge, match="expected at most 999999 bytes when decompressed, got 10000"):
        ParquetCodec(one, max_bytes=999_999).decode(body)
    body = parquet({"c": ["ab", "ac"]}, use_dictionary=False, column_encoding="DELTA_BYTE_ARRAY")
    with pytest.raises(BadRequest, match=r"column 'c': expected encodings .* got DELTA_BYTE_ARRAY"):
        ParquetCodec(one).decode(body)


def test_lists_in_one_row_that_are_many_values_are_refused() -> None:
    numbers = pa.array([[0.0] * 10**6])
    body = parquet({"a": numbers})
    assert len(body) < 10_000
    with pytest.raises(TooLarge, match="expected at most 1000000 bytes when decompressed, got 8000000"):
        ParquetCodec(MATRIX, max_bytes=10**6).decode(body)


def test_a_time_zone_that_there_is_not() -> None:
    with pytest.raises(BadRequest, match=r"the table: .*Nowhere/Bad"):
        ParquetCodec(RAW).decode(parquet({"t": pa.array([1], pa.timestamp("us", "Nowhere/Bad"))}))


whole = st.sampled_from(["1.0", "-0.0", "1e3", "2.5e1", "7", "-12", "+3", " 4", "007", "9007199254740993"])
written = st.one_of(
    st.lists(whole, min_size=1),
    st.lists(
        whole | st.sampled_from(["", "NaN", "inf", "1.7", "3e9", "1e19", "x", "1_0", "-1e-3"]), min_size=1
    ),
    st.lists(st.sampled_from(["True", "false", "TRUE"]), min_size=1),
    st.lists(st.sampled_from(["True", "false", "", "1.0", "x"]), min_size=1),
)


@given(written, st.sampled_from(["integer", "long", "float", "double"]))
def test_numbers_in_csv_are_those_that_pandas_reads(texts: list[str], kind: str) -> None:
    dtype = casting.DTYPES[kind]
    body = "".join(f"{text},1\n" for text in ["c", *texts])
    try:
        with np.errstate(invalid="ignore"):
            expected = pd.read_csv(io.StringIO(body), dtype={"c": dtype})["c"].to_numpy()
    except (ValueError, TypeError):
        expected = None
    if kind == "integer" and expected is not None and "9007199254740993" in texts:
        expected = None  # pandas has 1 for it
    single = Signature(
        (spec("c", {"integer": "INT32", "long": "INT64", "float": "FP32"}.get(kind, "FP64")),), OUTPUTS, True
    )
    codec = CsvCodec(single, declared(c=kind))
    if expected is None:
        with pytest.raises(BadRequest):
            codec.decode(body.encode())
    else:
        np.testing.assert_array_equal(codec.decode(body.encode()).inputs["c"], expected)


def test_numbers_in_csv_that_are_none_are_named() -> None:
    for text, message in (
        ("1,1.0,2\n1,1.7,2", "column 'b': Float value 1.7"),
        ("1,1e19,2", "column 'b': Float value 1"),
        ("1,2.0,2\n1,2,y", "column 'c': Failed to parse string: 'y'"),
        ("True,2.0,2\n1,2,2", "column 'a': Failed to parse string: 'True'"),
    ):
        with pytest.raises(BadRequest, match=f"the request is not valid CSV: {message}"):
            CsvCodec(MATRIX, ABC).decode(f"a,b,c\n{text}\n".encode())


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), sink, **options)
    return sink.getvalue()


def test_parquet_keeps_to_types() -> None:
    moments = pa.array([1_704_412_800, None], pa.timestamp("s"))
    body = parquet(
        {"t": pa.array([1, None], pa.int32()), "c": pa.array(["x", None]).dictionary_encode(), "d": moments}
    )
    inputs = ParquetCodec(RAW, declared(t="double", c="string", d="datetime")).decode(body).inputs
    np.testing.assert_array_equal(inputs["t"], [1, np.nan])
    assert inputs["c"].tolist() == ["x", None]
    assert inputs["d"].tolist() == ["2024-01-05 00:00:00", None]
    for columns, message in (
        ({"a": pa.array([2**40])}, "column 'a': expected double, got int64"),
        ({"b": pa.array([1.5])}, "column 'b': expected long, got float64"),
        ({"c": pa.array(["x"])}, "column 'c': expected float, got string"),
    ):
        good = {"a": pa.array([1.0]), "b": pa.array([1], pa.int32()), "c": pa.array([1.0], pa.float32())}
        with pytest.raises(SignatureViolation, match=re.escape(message)):
            ParquetCodec(MATRIX, ABC).decode(parquet(good | columns))
    assert ParquetCodec(MATRIX, ABC).decode(parquet(good)).inputs["x"].tolist() == [[1, 1, 1]]
    with pytest.raises(BadRequest, match="not a valid Parquet file"):
        ParquetCodec(MATRIX).decode(b"PAR1")


@pytest.mark.parametrize(
    ("content_type", "protocol"),
    [
        (b"application/json", "mlflow"),
        (b"application/json; charset=UTF-8", "mlflow"),
        (b"text/csv;charset=utf-8", "mlflow-csv"),
        (b"application/vnd.apache.parquet", "mlflow-parquet"),
    ],
)
def test_content_types(content_type: bytes, protocol: str) -> None:
    assert protocol_of(content_type) == protocol


@pytest.mark.parametrize(
    "content_type", [b"", b"text/plain", b"text/csv; charset=latin1", b"application/json; a=b"]
)
def test_other_content_types(content_type: bytes) -> None:
    with pytest.raises(UnsupportedMedia, match="Content-Type: expected"):
        protocol_of(content_type)


DOUBLES = declared(a="double", b="float", c="double")
RECORD = st.one_of(
    st.permutations("abc").flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, values))),
    st.dictionaries(st.sampled_from("abcd"), values | st.sampled_from([True, "1", [], {}]), max_size=4),
)


STYLES = st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")])


def records(rows: list[dict[str, Any]], style: tuple[str, str]) -> bytes:
    return json.dumps({"dataframe_records": rows}, separators=style).encode()


def read_records(codec: MlflowCodec, body: bytes) -> Any:
    """What is read, or the error."""
    try:
        request = codec.decode(body)
    except DriftlineError as error:
        return type(error), str(error)
    assert request.by_row
    assert request.inputs["x"].dtype == np.float32
    return request.inputs["x"]


def without_kernel() -> MlflowCodec:
    codec = MlflowCodec(MATRIX, DOUBLES)
    assert codec._objects is not None
    codec._objects = None
    return codec


@given(st.lists(st.lists(RECORD, min_size=1, max_size=3), min_size=2, max_size=5), STYLES)
def test_records_are_read_alike_by_the_kernel_and_without_it(
    requests: list[list[dict[str, Any]]], style: tuple[str, str]
) -> None:
    fast, plain = MlflowCodec(MATRIX, DOUBLES), without_kernel()
    for body in (records(rows, style) for rows in requests):
        np.testing.assert_array_equal(read_records(fast, body), read_records(plain, body))


@given(
    st.permutations("abc"),
    st.lists(st.tuples(*[finite] * 3), min_size=2, max_size=5),
    st.sampled_from([(",", ":"), (", ", ": ")]),
)
def test_requests_of_a_record_each_are_read_together_as_alone(
    names: list[str], rows: list[tuple[float | None, ...]], style: tuple[str, str]
) -> None:
    requests = [dict(zip(names, row, strict=True)) for row in rows]
    fast, plain = MlflowCodec(MATRIX, DOUBLES), without_kernel()
    bodies = [records([row], style) for row in requests]
    form = fast.form(bodies[0], None)
    assert form is not None
    assert all(map(form.fits, bodies))
    together = form.read_all(bodies)
    assert together.by_row
    separate = [read_records(plain, body) for body in bodies]
    np.testing.assert_array_equal(together.inputs["x"], np.concatenate(separate))


@given(st.lists(RECORD, min_size=2, max_size=5), STYLES)
def test_requests_of_odd_records_are_read_together_as_alone_or_not_at_all(
    requests: list[dict[str, Any]], style: tuple[str, str]
) -> None:
    fast, plain = MlflowCodec(MATRIX, DOUBLES), without_kernel()
    bodies = [records([row], style) for row in requests]
    form = fast.form(bodies[0], None)
    if form is None or not all(map(form.fits, bodies)):
        return
    try:
        together = form.read_all(bodies).inputs["x"]
    except numbers.Unread:
        return
    np.testing.assert_array_equal(together, np.concatenate([read_records(plain, body) for body in bodies]))


def test_records_that_come_together_are_read_together() -> None:
    codec = MlflowCodec(MATRIX, DOUBLES)
    bodies = [json.dumps({"dataframe_records": [{"a": n, "b": 0.5, "c": None}]}).encode() for n in range(3)]
    form = codec.form(bodies[0], None)
    assert form is not None
    assert all(map(form.fits, bodies))
    assert form.read_all(bodies).inputs["x"][:, 0].tolist() == [0, 1, 2]
    for body in (b'{"dataframe_records":[{"a":1},{"a":2}]}', b'{"dataframe_records":[1]}', b"{}"):
        assert codec.form(body, None) is None
    assert MlflowCodec(MATRIX).form(bodies[0], None) is None, "without names, a column is told by its place"
