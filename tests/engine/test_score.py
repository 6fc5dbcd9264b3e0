"""Offline scoring: files in, files out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from onnx_models import identity, scale

from driftline.engine.bundle import Bundle
from driftline.engine.score import score
from driftline.errors import BadRequest
from driftline.tables import BATCH_ROWS

READ = {
    ".parquet": pa.parquet.read_table,
    ".csv": pa.csv.read_csv,
    ".arrow": lambda path: pa.ipc.open_file(path).read_all(),
    ".feather": pa.feather.read_table,
}


def write(table: Any, path: Path) -> Path:
    if path.suffix == ".parquet":
        pa.parquet.write_table(table, path, row_group_size=1000)
    elif path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        pa.feather.write_feather(table, path, compression="uncompressed")
    return path


def columns(rows: int) -> Any:
    random = np.random.default_rng(rows)
    values = {name: random.standard_normal(rows).astype(np.float32) for name in "abc"}
    return pa.table({"id": np.arange(rows), **values})


@pytest.fixture
def double(tmp_path: Path) -> Bundle:
    return Bundle.open(scale(tmp_path / "double.onnx", 2.0))


@pytest.mark.parametrize("source", READ)
@pytest.mark.parametrize("target", READ)
def test_every_format_to_every_format(tmp_path: Path, double: Bundle, source: str, target: str) -> None:
    table = columns(2500)
    data, output = write(table, tmp_path / f"data{source}"), tmp_path / f"output{target}"
    seen: list[int] = []
    assert score(double, data, output, keep=["id"], progress=seen.append) == 2500
    assert sum(seen) == 2500
    scored = READ[target](output)
    assert scored.column_names == ["id", "y_0", "y_1", "y_2", "total"]
    np.testing.assert_array_equal(scored["id"], table["id"])
    matrix = np.stack([table[name].to_numpy() for name in "abc"], axis=1)
    np.testing.assert_allclose(
        np.stack([scored[f"y_{i}"].to_numpy() for i in range(3)], axis=1), 2 * matrix, rtol=1e-6
    )
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_many_chunks_stay_in_order(tmp_path: Path, double: Bundle) -> None:
    rows = 3 * BATCH_ROWS + 17
    ramp = np.arange(rows, dtype=np.float32)
    data = write(pa.table(dict.fromkeys("abc", ramp)), tmp_path / "data.parquet")
    score(double, data, tmp_path / "output.parquet")
    np.testing.assert_array_equal(READ[".parquet"](tmp_path / "output.parquet")["y_0"], 2 * ramp)


def test_inputs_are_kept_and_stay_inputs(tmp_path: Path, double: Bundle) -> None:
    table = columns(10)
    score(double, write(table.drop_columns("id"), tmp_path / "data.parquet"), tmp_path / "out.csv", ["b"])
    scored = READ[".csv"](tmp_path / "out.csv")
    assert scored.column_names == ["b", "y_0", "y_1", "y_2", "total"]
    np.testing.assert_allclose(scored["y_1"], 2 * table["b"].to_numpy(), rtol=1e-6)
    with pytest.raises(BadRequest, match="a column of this name, or 3 columns; the data has 4: id, a"):
        score(double, write(table, tmp_path / "data.parquet"), tmp_path / "out.csv")


def test_a_folder_of_files_is_one_set_of_rows(tmp_path: Path, double: Bundle) -> None:
    (tmp_path / "data").mkdir()
    for part in range(3):
        write(columns(100).drop_columns("id"), tmp_path / f"data/{part}.parquet")
    assert score(double, tmp_path / "data", tmp_path / "output.csv") == 300


def test_strings_and_list_columns_by_name(tmp_path: Path) -> None:
    words = Bundle.open(identity(tmp_path / "words.onnx", "BYTES", ("N",)))
    write(pa.table({"x": ["EWR", "", "É"], "other": [1, 2, 3]}), tmp_path / "words.parquet")
    score(words, tmp_path / "words.parquet", tmp_path / "output.parquet")
    assert READ[".parquet"](tmp_path / "output.parquet")["y"].to_pylist() == ["EWR", "", "É"]
    lists = Bundle.open(identity(tmp_path / "lists.onnx", "FP32", ("N", 2)))
    write(pa.table({"x": pa.array([[1, 2], [3, 4]], pa.list_(pa.float32(), 2))}), tmp_path / "lists.parquet")
    score(lists, tmp_path / "lists.parquet", tmp_path / "output.parquet")
    assert READ[".parquet"](tmp_path / "output.parquet")["y_1"].to_pylist() == [2, 4]


def test_a_list_of_another_length_is_named_by_its_row_in_the_file(tmp_path: Path) -> None:
    lists = Bundle.open(identity(tmp_path / "lists.onnx", "FP32", ("N", 2)))
    rows = [[1.0, 2.0]] * BATCH_ROWS + [[3.0], [4.0, 5.0, 6.0]]
    data = write(pa.table({"x": pa.array(rows, pa.list_(pa.float32()))}), tmp_path / "lists.parquet")
    with pytest.raises(BadRequest, match=f"input 'x', row {BATCH_ROWS}: expected 2 values, got 1"):
        score(lists, data, tmp_path / "output.parquet")


def test_nulls_are_nan(tmp_path: Path) -> None:
    model = Bundle.open(identity(tmp_path / "same.onnx", "FP32", ("N", 2)))
    table = pa.table({"x_1": pa.array([1, None, 3]), "x_0": pa.array([None, 2.0, 3.0])})
    score(model, write(table, tmp_path / "data.parquet"), tmp_path / "output.arrow")
    scored = READ[".arrow"](tmp_path / "output.arrow")
    np.testing.assert_array_equal(scored["y_0"], [np.nan, 2, 3])
    np.testing.assert_array_equal(scored["y_1"], [1, np.nan, 3])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            pa.table({"a": [1.0], "b": [2.0]}),
            "input 'x': expected a column of this name, or 3 columns; the data has 2",
        ),
        (pa.table({"a": [1.0], "b": ["?"], "c": [1.0]}), "column 'b': expected FP32, got string"),
        (
            pa.table(
                {
                    "a": pa.array([], pa.float32()),
                    "b": pa.array([], pa.float32()),
                    "c": pa.array([], pa.float32()),
                }
            ),
            "expected rows, got none",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_leaves_no_file(
    tmp_path: Path, double: Bundle, table: Any, message: str
) -> None:
    data = write(table, tmp_path / "data.parquet")
    with pytest.raises(BadRequest, match=message):
        score(double, data, tmp_path / "output.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.parquet", "double.onnx"]


def test_files_that_cannot_be_read_or_written(tmp_path: Path, double: Bundle) -> None:
    (tmp_path / "garbage.parquet").write_bytes(b"garbage")
    with pytest.raises(BadRequest, match=r"garbage\.parquet"):
        score(double, tmp_path / "garbage.parquet", tmp_path / "output.parquet")
    data = write(columns(10), tmp_path / "data.parquet")
    with pytest.raises(BadRequest, match=r"output\.txt: expected a file that ends in"):
        score(double, data, tmp_path / "output.txt", keep=["id"])
    with pytest.raises(BadRequest, match=r"nowhere/output\.parquet"):
        score(double, data, tmp_path / "nowhere/output.parquet", keep=["id"])
    with pytest.raises(BadRequest, match="column 'z': there is none; the data has: id, a, b, c"):
        score(double, data, tmp_path / "output.parquet", keep=["z"])
    clash = write(columns(10).rename_columns(["y_0", "a", "b", "c"]), tmp_path / "clash.parquet")
    with pytest.raises(BadRequest, match="column 'y_0': can't be kept"):
        score(double, clash, tmp_path / "output.parquet", keep=["y_0"])


def test_the_data_is_not_replaced_and_nothing_is_scored_for_no_place(tmp_path: Path, double: Bundle) -> None:
    data = write(columns(10).drop_columns("id"), tmp_path / "data.parquet")
    before = data.read_bytes()
    seen: list[int] = []
    with pytest.raises(BadRequest, match=r"data\.parquet: expected another file than the data"):
        score(double, data, data, progress=seen.append)
    with pytest.raises(BadRequest, match="nowhere is none"):
        score(double, data, tmp_path / "nowhere/output.parquet", progress=seen.append)
    assert seen == []
    assert data.read_bytes() == before


def test_text_in_csv_stays_as_it_is_where_the_model_takes_text(tmp_path: Path) -> None:
    words = Bundle.open(identity(tmp_path / "words.onnx", "BYTES", ("N", 2)))
    (tmp_path / "data.csv").write_text("id,x_1,x_0\n007,02139,True\n008,1e3,2020-01-01T00:00:00\n")
    score(words, tmp_path / "data.csv", tmp_path / "output.parquet", ["id"])
    scored = READ[".parquet"](tmp_path / "output.parquet").to_pydict()
    assert scored == {"id": [7, 8], "y_0": ["True", "2020-01-01T00:00:00"], "y_1": ["02139", "1e3"]}


def test_a_column_of_nothing_is_nan(tmp_path: Path) -> None:
    model = Bundle.open(identity(tmp_path / "same.onnx", "FP32", ("N", 2)))
    (tmp_path / "data.csv").write_text("a,b\n1,\n2,\n")
    score(model, tmp_path / "data.csv", tmp_path / "output.parquet")
    assert np.isnan(READ[".parquet"](tmp_path / "output.parquet")["y_1"].to_numpy()).all()
