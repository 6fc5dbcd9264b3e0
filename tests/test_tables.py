"""Files of columns, read and written batch by batch."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from driftline.errors import BadRequest
from driftline.tables import BATCH_BYTES, BATCH_ROWS, ENDINGS, Source, Writer, check_target

ROWS = 2 * BATCH_ROWS + 7


def table(rows: int = ROWS) -> Any:
    return pa.table({"number": np.arange(rows), "text": [str(row % 7) for row in range(rows)]})


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"none\.csv: expected a file, .*, there is nothing$"):
        Source(tmp_path / "none.csv")


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_is_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"data{ending}"
    with Writer(path) as writer:
        for start in range(0, ROWS, 50_000):
            writer.write(table().slice(start, 50_000))
    batches = list(Source(path).batches(["number"]))
    assert all(batch.num_rows <= BATCH_ROWS for batch in batches)
    assert [value for batch in batches for value in batch.column(0).to_pylist()] == list(range(ROWS))
    assert batches[0].schema.names == ["number"]
    assert Source(path).schema.names == ["number", "text"]


def test_wide_rows_come_in_smaller_batches(tmp_path: Path) -> None:
    width = 4096
    lists = pa.FixedSizeListArray.from_arrays(np.zeros(3000 * width, np.float32), width)
    pa.parquet.write_table(pa.table({"x": lists}), tmp_path / "wide.parquet")
    batches = list(Source(tmp_path / "wide.parquet").batches(["x"]))
    assert sum(batch.num_rows for batch in batches) == 3000
    assert max(batch.num_rows for batch in batches) == BATCH_BYTES // (4 * width)


def test_only_parquet_knows_its_rows(tmp_path: Path) -> None:
    for ending in (".parquet", ".csv"):
        with Writer(tmp_path / f"data{ending}") as writer:
            writer.write(table(10))
    assert Source(tmp_path / "data.parquet").rows == 10
    assert Source(tmp_path / "data.csv").rows is None


def test_a_reader_that_stops_early_leaves_no_thread(tmp_path: Path) -> None:
    pa.parquet.write_table(table(10 * BATCH_ROWS), tmp_path / "data.parquet")
    for _ in Source(tmp_path / "data.parquet").batches(["number"]):
        break
    assert "driftline-read" not in {thread.name for thread in threading.enumerate()}


def test_a_writer_that_fails_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(b"before")

    class Stopped(Exception):
        pass

    def write() -> None:
        with Writer(path) as writer:
            writer.write(table(10))
            raise Stopped

    with pytest.raises(Stopped):
        write()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_columns_that_change_between_tables_are_refused(tmp_path: Path) -> None:
    def write() -> None:
        with Writer(tmp_path / "data.parquet") as writer:
            writer.write(table(10))
            for _ in range(10):
                writer.write(pa.table({"other": [1]}))

    with pytest.raises(BadRequest, match=r"data\.parquet: "):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_csv_that_breaks_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,b\n" + "1,2\n" * 2_000_000 + "1,2,3\n")
    with pytest.raises(BadRequest, match=r"data\.csv: .*Expected 2 columns, got 3") as caught:
        list(Source(path).batches(["a"]))
    assert "types" not in str(caught.value)


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(BadRequest, match=r"data\.csv: expected columns of different names, got 'a' twice"):
        Source(tmp_path / "data.csv")


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="expected a file, or a folder of files, that end in"):
        Source(tmp_path)


def test_what_is_written_takes_the_place_of_no_data(tmp_path: Path) -> None:
    folder, data = tmp_path / "data", tmp_path / "data/one.parquet"
    folder.mkdir()
    pa.parquet.write_table(table(3), data)
    (tmp_path / "link.parquet").symlink_to(data)
    (tmp_path / "other name.parquet").hardlink_to(data)
    (tmp_path / "folder").symlink_to(folder)
    for source in (data, folder, tmp_path / "link.parquet", tmp_path / "folder"):
        for target in (data, tmp_path / "link.parquet", tmp_path / "other name.parquet"):
            with pytest.raises(BadRequest, match="expected another file than the data"):
                check_target(target, source)
    with pytest.raises(BadRequest, match=r"new\.csv: expected a file outside of .*folder, whose files"):
        check_target(folder / "new.csv", tmp_path / "folder")
    check_target(folder / "new.csv", data)
    check_target(folder / "new.txt", folder)
    check_target(tmp_path / "new.parquet", folder)
    check_target(data)


def test_where_nothing_can_be_written_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(BadRequest, match=r"folder\.csv: expected a file, got a folder"):
        Writer(tmp_path / "folder.csv")
    with pytest.raises(BadRequest, match=r"one\.csv: expected a file in a folder, .*nowhere is none"):
        Writer(tmp_path / "nowhere/one.csv")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(BadRequest, match=r"one\.csv: can't be written: .* is not writable"):
        Writer(tmp_path / "one.csv")
