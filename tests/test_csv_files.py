"""CSV files, by pandas' measure."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from driftline import csv_files
from driftline.errors import BadRequest
from driftline.monitor.reference.profile import Profile
from driftline.tables import Source

LONG = 400_000
"""Lines of more than a block."""


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 64)


def read(path: Path) -> Any:
    source = Source(path)
    return pa.Table.from_batches(source.batches(source.schema.names), schema=source.schema)


def file_of(folder: Path, *values: str, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(["x,y", *(f"{value},0" for value in values)]) + "\n")
    return path


@pytest.mark.parametrize("missing", ["", '""', "NA", "null", "NaN", "None", "<NA>", "n/a"])
@pytest.mark.parametrize("values", [["a", "b"], ["1", "2"], ["1.5", "2"], ["True", "False"], ["2026-03-01"]])
def test_what_pandas_takes_for_missing_is_missing_in_every_column(
    tmp_path: Path, missing: str, values: list[str]
) -> None:
    path = file_of(tmp_path, *values, missing)
    assert pd.read_csv(path)["x"].isna().tolist() == [False] * len(values) + [True]
    assert read(path)["x"].is_null().to_pylist() == [False] * len(values) + [True]


def test_missing_text_is_no_category(tmp_path: Path) -> None:
    path = file_of(tmp_path, *["EWR", "JFK", ""] * 100)
    source = Source(path)
    reference = Profile.fit_batches(source.batches(["x"]))["x"]
    assert getattr(reference, "categories", None) == ("EWR", "JFK")
    assert reference.counts.tolist() == [100, 100, 0, 100]


@pytest.mark.parametrize(
    ("first", "then", "kind"),
    [
        ("", "text", "string"),
        ("", "1", "int64"),
        ("", "1.5", "double"),
        ("", "2026-03-01", "date32[day]"),
        ("1", "1.5", "double"),
        ("1", "text", "string"),
        ("007", "A7", "string"),
        ("1.5", "text", "string"),
        ("True", "maybe", "string"),
        ("2026-03-01", "2026-03-01 12:30:00", "timestamp[s]"),
        ("2026-03-01 12:30:00", "2026-03-01 12:30:00.5", "timestamp[ns]"),
        ("2026-03-01", "soon", "string"),
        ("text", "1", "string"),
        ("1", "", "int64"),
    ],
)
@pytest.mark.usefixtures("small_blocks")
def test_types_hold_what_comes_later(tmp_path: Path, first: str, then: str, kind: str) -> None:
    path = file_of(tmp_path, *[first] * 100, *[then] * 100)
    found = read(path)
    assert str(found.schema.field("x").type) == kind
    assert found["x"].null_count == 100 * (not first) + 100 * (not then)
    if kind == "string":
        assert found["x"].to_pylist() == [first or None] * 100 + [then] * 100
    assert found["y"].to_pylist() == [0] * 200


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.usefixtures("small_blocks")
def test_lines_may_end_in_any_way_and_the_last_not_at_all(tmp_path: Path, end: str) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(end.join(["x,y", *[f"{row},'{row}'" for row in range(99)], "text,1"]).encode())
    assert read(path)["x"].to_pylist() == [*map(str, range(99)), "text"]


@pytest.mark.usefixtures("small_blocks")
def test_files_of_a_folder_have_one_type(tmp_path: Path) -> None:
    file_of(tmp_path, "1", "2", name="1.csv")
    file_of(tmp_path, "3.5", "", name="2.csv")
    assert read(tmp_path)["x"].to_pylist() == [1.0, 2.0, 3.5, None]


def test_a_long_file_is_profiled_and_says_what_it_is_read_as(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was refused: types were told from the first 4 MiB alone."""
    path = tmp_path / "big.csv"
    row = "a long text that fills the file"
    path.write_text("whole,empty,text\n" + f"1,,{row}\n" * LONG + f"1.5,late,{row}\n" * 100)
    assert path.stat().st_size > csv_files.BLOCK_BYTES
    with caplog.at_level(logging.WARNING):
        source = Source(path)
        profile = Profile.fit_batches(source.batches(source.schema.names))
    assert getattr(profile["empty"], "categories", None) == ("late",)
    assert profile["whole"].rows == LONG + 100
    said = r".*big\.csv, rows 3\d\d,\d+ to 400,100: column '{}', which began with {}, .* is read as {}"
    whole, empty = (record.getMessage() for record in caplog.records)
    assert re.fullmatch(said.format("whole", "whole numbers", "numbers"), whole)
    assert re.fullmatch(said.format("empty", "missing values", "text"), empty)


def test_a_file_of_one_block_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "_schemas", None)
    assert read(file_of(tmp_path, "1", "1.5"))["x"].to_pylist() == [1.0, 1.5]


def test_a_line_without_an_end_is_not_gathered(tmp_path: Path, small_blocks: None) -> None:
    path = tmp_path / "data.csv"
    path.write_text("x\n1\n" + "2" * 10_000)
    parts = list(csv_files._blocks(path))
    assert sum(map(len, parts)) < 4 * csv_files.BLOCK_BYTES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,ü\n".encode("latin-1"), "column 'b': expected text in UTF-8, got another encoding"),
        ("ä,b\n1,2\n".encode("latin-1"), "expected text in UTF-8, got another encoding"),
        ("a,b\n1,2\n".encode("utf-16"), "expected text in UTF-8, got another encoding"),
        (b"a;b\n1;2\n", "expected columns separated by commas, got 'a;b'"),
        (b"a\tb\n1\t2\n", "expected columns separated by commas, got 'a\\tb'"),
        (b"a;b\n1,5;2,5\n", "expected columns separated by commas, got 'a;b'"),
        (b'"a, b";c\r\n1,5;2,5\r\n', "expected columns separated by commas, got '\"a, b\";c'"),
        (b'\xef\xbb\xbfa;b\n"x\ny";1\n', "expected columns separated by commas, got 'a;b'"),
        (b"\r\na;b;c\r\n1;2\r\n", "expected columns separated by commas, got 'a;b;c'"),
        (b"a;b", "expected columns separated by commas, got 'a;b'"),
        ("a,ä\n1,2\n".encode("latin-1"), "expected text in UTF-8, got another encoding"),
        ("a,b\n1,2\n".encode("utf-16-le"), "expected text in UTF-8, got another encoding"),
    ],
)
def test_what_is_written_otherwise_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(BadRequest, match=f"^{re.escape(f'{path}: {message}')}$"):
        Source(path)


@pytest.mark.parametrize(
    ("content", "name", "values"),
    [
        (b"temp|C\n1.5\n2\n", "temp|C", [1.5, 2.0]),
        (b'"a;b"\n"1;2"\n"3"\n', "a;b", ["1;2", "3"]),
        (b"a;b,c\n1,2\n", "a;b", [1]),
        (b"a,s\n1,x\0y\n", "s", ["x\0y"]),
    ],
)
def test_names_and_text_may_have_other_marks_in_them(
    tmp_path: Path, content: bytes, name: str, values: Any
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    assert read(path)[name].to_pylist() == values


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.usefixtures("small_blocks")
def test_another_encoding_further_on_is_named_with_its_place(tmp_path: Path, folder: bool) -> None:
    path = file_of(tmp_path, *["x"] * 100)
    with path.open("ab") as file:
        file.write("é,0\n".encode("latin-1"))
    if folder:
        file_of(tmp_path, "x", name="a.csv")
    where = r"/data\.csv: " if not folder else ": data.csv, "
    message = rf"{where}rows \d+ to 101: column 'x': expected text in UTF-8, got another encoding$"
    with pytest.raises(BadRequest, match=message):
        read(tmp_path if folder else path)
