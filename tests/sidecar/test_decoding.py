"""What is read out of bodies of every protocol, without a signature."""

from __future__ import annotations

import gzip
import io
import struct
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftline.columns import columns_of
from driftline.errors import BadRequest
from driftline.monitor.reference.profile import Profile
from driftline.sidecar.decoding import Decoder
from driftline.sidecar.exchange import Body, Exchange

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((200, 3)).astype(np.float32)
MATRIX = Profile.fit({"x": X, "total": X.sum(axis=1)}, names={"x": ["age", "rooms", "floor"]})
TABLE = Profile.fit(
    {
        "age": RANDOM.standard_normal(200),
        "city": RANDOM.choice(["EWR", "JFK", "7"], 200),
        "hour": RANDOM.integers(0, 9, 200),
        "label": RANDOM.integers(0, 2, 200),
        "probabilities": RANDOM.random((200, 2)),
    }
)
ROWS = [[1.5, "EWR", 3], [None, "LGA", 4]]
NAMES = ["age", "city", "hour"]
ANSWER = {
    "predictions": [{"label": 0, "probabilities": [0.9, 0.1]}, {"label": 1, "probabilities": [0.2, 0.8]}]
}


def body(document: object, **more: Any) -> Body:
    return Body(orjson.dumps(document), **more)


def read(profile: Profile, request: Body, answer: Body | None) -> dict[str, list[Any]]:
    """The columns by name, as lists; one that is missing is None."""
    found = columns_of(Decoder(profile).columns(Exchange("", request, answer)))
    lists = {
        name: (one.tolist() if isinstance(one, np.ndarray) else one.to_pylist())
        for name, one in found.items()
    }
    return {name: [None if one != one else one for one in values] for name, values in lists.items()}


def entry(name: str, datatype: str, shape: list[int], data: object = None, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": datatype,
        "shape": shape,
        **({"data": data} if data is not None else {}),
        **more,
    }


MATRIX_COLUMNS = {"x_0": [1, 4], "x_1": [2, 5], "x_2": [3, 6], "total": [6, 15]}
TABLE_COLUMNS = {
    "age": [1.5, None],
    "city": ["EWR", "LGA"],
    "hour": [3, 4],
    "label": [0, 1],
    "probabilities_0": [0.9, 0.2],
    "probabilities_1": [0.1, 0.8],
}


def test_the_open_inference_protocol_in_json() -> None:
    image = entry("image", "FP32", [2, 2, 2], [[["not even numbers"]]])
    request = body({"id": "7", "inputs": [image, entry("x", "FP32", [2, 3], [1, 2, 3, 4, 5, 6])]})
    answer = body({"model_name": "m", "outputs": [entry("total", "FP64", [2], [6, 15])]})
    assert read(MATRIX, request, answer) == MATRIX_COLUMNS


def test_the_open_inference_protocol_in_bytes() -> None:
    def binary(*tensors: tuple[str, str, list[int], bytes], key: str) -> Body:
        entries = [
            entry(name, datatype, shape, parameters={"binary_data_size": len(data)})
            for name, datatype, shape, data in tensors
        ]
        text = orjson.dumps({key: entries})
        content = text + b"".join(data for *_, data in tensors)
        return Body(content, b"application/octet-stream", json_length=len(text))

    matrix = np.arange(1, 7, dtype="<f4").tobytes()
    request = binary(("other", "BYTES", [1], b"???"), ("x", "FP32", [2, 3], matrix), key="inputs")
    answer = binary(("total", "INT64", [2, 1], struct.pack("<qq", 6, 15)), key="outputs")
    assert read(MATRIX, request, answer) == MATRIX_COLUMNS
    with pytest.raises(BadRequest, match="binary_data_size"):
        read(MATRIX, Body(request.content[:-1], json_length=request.json_length), None)


def test_a_raw_request_is_a_row_of_the_one_input() -> None:
    def raw(values: list[float], datatype: str) -> Body:
        return Body(np.array(values, datatype).tobytes(), b"application/octet-stream", json_length=0)

    answer = body({"outputs": [entry("total", "FP32", [1, 1], [6])]})
    columns = {"x_0": [1], "x_1": [2], "x_2": [3], "total": [6]}
    for datatype in ("<f4", "<f8"):
        assert read(MATRIX, raw([1, 2, 3], datatype), answer) == columns
    alone = Profile.fit({"x": X[:, 0]})
    assert read(alone, raw([0.5], "<f4"), body({"outputs": []})) == {"x": [0.5]}
    wrong = {
        "expected the profile of one input": (MATRIX, raw([1, 2, 3], "<f4"), body({"outputs": []})),
        "expected 3 floats, got 8 bytes": (MATRIX, raw([1, 2], "<f4"), answer),
        "expected floats, got what may be integers": (MATRIX, raw([1, 2, 3], "<i4"), answer),
    }
    with pytest.raises(BadRequest, match=r"one input, got \[\]"):
        read(alone, raw([0.5], "<f4"), body({"outputs": [entry("x", "FP32", [1], [1])]}))
    for message, (profile, request, answered) in wrong.items():
        with pytest.raises(BadRequest, match=message):
            read(profile, request, answered)


def test_kserve_v1() -> None:
    answer = body({"predictions": [6, 15]})
    assert read(MATRIX, body({"instances": [[1, 2, 3], [4, 5, 6]]}), answer) == MATRIX_COLUMNS
    assert read(MATRIX, body({"inputs": [[1, 2, 3], [4, 5, 6]]}), answer) == MATRIX_COLUMNS
    rows = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
    assert read(TABLE, body({"instances": rows}), body(ANSWER)) == TABLE_COLUMNS
    columns = {name: [row[name] for row in rows] for name in NAMES}
    assert read(TABLE, body({"inputs": columns}), body(ANSWER)) == TABLE_COLUMNS


def test_kserve_v1_of_inputs_of_one_column() -> None:
    columns = {name: [[row[index]] for row in ROWS] for index, name in enumerate(NAMES)}
    rows = [dict(zip(NAMES, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    assert read(TABLE, body({"instances": rows}), body(ANSWER)) == TABLE_COLUMNS
    assert read(TABLE, body({"inputs": columns}), body(ANSWER)) == TABLE_COLUMNS
    found = Decoder(TABLE).columns(Exchange("", body({"inputs": columns}), body(ANSWER)))
    assert found["hour"].dtype.kind == "i"


def test_mlflow() -> None:
    split = {"columns": ["more", *NAMES], "data": [[0, *row] for row in ROWS]}
    assert read(TABLE, body({"dataframe_split": split}), body(ANSWER)) == TABLE_COLUMNS
    assert read(TABLE, body({"dataframe_split": {"data": ROWS}}), body(ANSWER)) == TABLE_COLUMNS
    records = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
    assert read(TABLE, body({"dataframe_records": records}), body(ANSWER)) == TABLE_COLUMNS
    nan = Body(b'{"dataframe_records":[{"age":1.5,"city":"EWR","hour":3},{"age":NaN,"city":"LGA","hour":4}]}')
    assert read(TABLE, nan, body(ANSWER)) == TABLE_COLUMNS
    outputs = {"label": [0, 1], "probabilities": [[0.9, 0.1], [0.2, 0.8]]}
    assert read(TABLE, body({"dataframe_records": records}), body({"predictions": outputs})) == TABLE_COLUMNS


def test_tables() -> None:
    csv = Body(b"age,city,hour\n1.5,EWR,3\n,LGA,4\n", b"text/csv; charset=utf-8")
    assert read(TABLE, csv, body(ANSWER)) == TABLE_COLUMNS
    digits = Body(b"age,city,hour\n1.5,7,3\n1,7,4\n", b"text/csv")
    assert read(TABLE, digits, body(ANSWER))["city"] == ["7", "7"]
    sink = io.BytesIO()
    pq.write_table(pa.table({"age": [1.5, None], "city": ["EWR", "LGA"], "hour": [3, 4]}), sink)
    assert (
        read(TABLE, Body(sink.getvalue(), b"application/vnd.apache.parquet"), body(ANSWER)) == TABLE_COLUMNS
    )


def test_tables_of_the_columns_that_a_matrix_was_fitted_on() -> None:
    answer = body({"predictions": [{"total": 6}, {"total": 15}]})
    names, rows = ["more", "floor", "age", "rooms"], [[0, 3, 1, 2], [0, 6, 4, 5]]
    records = [dict(zip(names, row, strict=True)) for row in rows]
    columns = {name: list(column) for name, *column in zip(names, *rows, strict=True)}
    csv = "\n".join(",".join(map(str, row)) for row in [names, *rows]).encode()
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    for request in (
        body({"dataframe_split": {"columns": names, "data": rows}}),
        body({"dataframe_records": records}),
        body({"instances": records}),
        body({"inputs": columns}),
        body({"dataframe_split": {"columns": ["x_2", "x_0", "x_1"], "data": [[3, 1, 2], [6, 4, 5]]}}),
        Body(csv, b"text/csv"),
        Body(sink.getvalue(), b"application/vnd.apache.parquet"),
    ):
        assert read(MATRIX, request, answer) == MATRIX_COLUMNS


def test_a_name_that_is_the_tensors_too_is_the_tensors() -> None:
    profile = Profile.fit({"x": X}, names={"x": ["x", "y", "z"]})
    assert read(profile, body({"inputs": {"x": [[1, 2, 3]]}}), None) == {"x_0": [1], "x_1": [2], "x_2": [3]}


def test_text_in_csv_by_a_name_of_its_own() -> None:
    texts = RANDOM.choice(["02139", "10001"], (200, 2)).astype(object)
    profile = Profile.fit({"x": texts}, names={"x": ["zip", "other"]})
    csv = Body(b"zip,other\n02139,10001\n", b"text/csv")
    assert read(profile, csv, None) == {"x_0": ["02139"], "x_1": ["10001"]}


def test_what_is_compressed_is_read() -> None:
    plain = body({"instances": [[1, 2, 3], [4, 5, 6]]})
    request = Body(gzip.compress(plain.content), encoding=b"gzip")
    assert read(MATRIX, request, body({"predictions": [6, 15]})) == MATRIX_COLUMNS
    with pytest.raises(BadRequest, match="br"):
        read(MATRIX, Body(plain.content, encoding=b"br"), None)


def test_an_answer_is_not_read_if_the_profile_has_inputs_only() -> None:
    profile = Profile.fit({"x": X})
    request = body({"instances": [[1, 2, 3]]})
    assert read(profile, request, Body(b"whatever")) == {"x_0": [1], "x_1": [2], "x_2": [3]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"[1]", "expected an object"),
        (b"{}", "expected inputs, instances or a dataframe"),
        (b'{"instances":[]}', "expected at least one row"),
        (b'{"instances":null}', "a list of rows, got null"),
        (b'{"instances":[[1,2],[3]]}', "rows of one length"),
        (b'{"instances":[[1,2,3,4,5]]}', "5 columns without names"),
        (b'{"instances":[[1,"a",3],[1,2,[4]]]}', "expected numbers or text"),
        (b'{"instances":[{"x":[1,2,3]},{"x":[1,2]}]}', "expected lists of one length"),
        (b'{"inputs":[{"name":"x","datatype":"FP99","shape":[1,3],"data":[1,2,3]}]}', "expected a datatype"),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,-3],"data":[1,2,3]}]}', "expected a shape"),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[9,3],"data":[1,2,3]}]}', "expected 27 elements"),
    ],
)
def test_what_can_not_be_read_is_named(content: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        read(MATRIX, Body(content), None)


@pytest.mark.parametrize("name", [["x"], {"x": 1}, 1, None])
def test_a_tensor_whose_name_is_none_is_nobodys(name: object) -> None:
    entries = [entry(name, "FP32", [1], [1.0]), entry("total", "FP32", [1], [2.0])]  # type: ignore[arg-type]
    assert read(MATRIX, body({"inputs": entries}), None) == {"total": [2]}
