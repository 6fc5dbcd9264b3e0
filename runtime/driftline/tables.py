"""Files of columns: Parquet, CSV and Arrow IPC, read and written batch by batch.

Reading and writing each have a thread of their own, so that they overlap with the computation in between.
Memory use depends on the batches, not on the file.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import Any, Self

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from driftline import csv_files
from driftline.errors import BadRequest
from driftline.files import unfinished

ENDINGS = (".parquet", ".csv", ".arrow", ".feather")
"""The suffixes of files, which tell their format; .feather is Arrow IPC too."""

BATCH_ROWS = 65_536
"""The most rows of a batch."""

BATCH_BYTES = 2**23
"""The approximate limit on the bytes of a batch, if its rows are wide."""

_TEXT_BYTES = 32
_QUEUE_BATCHES = 2
_BUFFER_BYTES = 2**20


class Source:
    """The columns of a file, or of a folder of files of one kind, in the order of their names.

    rows    how many there are; None if that would take reading all files

    In CSV, values that pandas treats as missing are missing, also in text: an empty field, NA, null, NaN.
    Raises BadRequest if a file can't be read, or has a column twice.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = _files_of(path)
        if not self._files or _ending(self._files[0]) not in ENDINGS:
            raise BadRequest(
                f"{path}: expected a file, or a folder of files, that end in {', '.join(ENDINGS)}"
            )
        if not path.exists():
            raise BadRequest(f"{path}: expected a file, or a folder of files, there is nothing")
        with _FileErrors(self._files[0]):
            self._first_schema = _schema(self._files[0])
        duplicates = [name for name, count in Counter(self._first_schema.names).items() if count > 1]
        if duplicates:
            raise BadRequest(f"{path}: expected columns of different names, got {duplicates[0]!r} twice")
        self.rows = self._count()

    @cached_property
    def schema(self) -> Any:
        """The pyarrow schema of the first file; of CSV, its types fit all rows, which are read for that."""
        if _ending(self._files[0]) != ".csv":
            return self._first_schema
        with _FileErrors(self._path):
            return csv_files.unify_schema(self._first_schema, self._files)

    def _count(self) -> int | None:
        if any(_ending(file) != ".parquet" for file in self._files):
            return None
        with _FileErrors(self._path):
            return sum(int(pa.parquet.read_metadata(file).num_rows) for file in self._files)

    def batches(self, columns: Sequence[str], texts: Collection[str] = ()) -> Iterator[Any]:
        """Yield record batches of the named columns, at most BATCH_ROWS and BATCH_BYTES, some read ahead.

        texts  columns that are text in CSV, too, whatever their values look like, such as 02139 and True
        """
        types = {name: self.schema.field(name).type for name in columns}
        if _ending(self._files[0]) == ".csv":
            types |= {name: pa.string() for name in columns if name in texts}
        width = sum(map(_value_bytes, types.values()))
        rows = max(1, min(BATCH_ROWS, BATCH_BYTES // max(width, 1)))
        batches_ahead: Queue[Any] = Queue(_QUEUE_BATCHES)
        stopped = Event()

        def read() -> None:
            try:
                for file in self._files:
                    with _FileErrors(file):
                        for batch in _read(file, list(columns), rows, types):
                            batches_ahead.put(batch)
                            if stopped.is_set():
                                return
                batches_ahead.put(None)
            except Exception as error:  # whatever it is, the consumer waits for it
                batches_ahead.put(error)

        reader = Thread(target=read, name="driftline-read", daemon=True)
        reader.start()
        try:
            while (batch := batches_ahead.get()) is not None:
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            stopped.set()
            while not batches_ahead.empty():
                batches_ahead.get()
            reader.join()


class Writer:
    """Writes tables to a file, which appears once it is complete.

    Raises BadRequest if the name's ending is unknown or the file can't be written.
    """

    def __init__(self, path: Path) -> None:
        if _ending(path) not in ENDINGS:
            raise BadRequest(f"{path}: expected a file that ends in {', '.join(ENDINGS)}")
        check_target(path)
        self._path = path
        self._unfinished = unfinished(path)
        self._queue: Queue[Any] = Queue(_QUEUE_BATCHES)
        self._error: Exception | None = None
        self._thread = Thread(target=self._write_all, name="driftline-write")

    def write(self, table: Any) -> None:
        """Put a table in the queue."""
        self._raise_error()
        self._queue.put(table)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _write_all(self) -> None:
        file = None
        try:
            with _FileErrors(self._path):
                while (table := self._queue.get()) is not None:
                    file = file or _open_writer(self._unfinished, _ending(self._path), table.schema)
                    file.write_table(table)
                if file is not None:
                    file.close()
        except Exception as error:  # whatever it is, the producer may wait for room in the queue
            self._error = error
            while self._queue.get() is not None:
                pass

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self._queue.put(None)
            self._thread.join()
            if kind is None:
                self._raise_error()
                with _FileErrors(self._path):
                    os.replace(self._unfinished, self._path)
        finally:
            with suppress(OSError):
                self._unfinished.unlink()


def check_target(path: Path, data: Path | None = None) -> None:
    """Raise BadRequest if a file can't be written, or would replace or join the data that it is made from.

    To be called before the long work, not after.
    """
    folder = path.parent
    if path.is_dir():
        raise BadRequest(f"{path}: expected a file, got a folder")
    if not folder.is_dir():
        raise BadRequest(f"{path}: expected a file in a folder, {folder} is none")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadRequest(f"{path}: can't be written: {folder} is not writable")
    if data is None or not data.exists():
        return
    if path.exists() and any(path.samefile(file) for file in _files_of(data) if file.exists()):
        raise BadRequest(f"{path}: expected another file than the data, which it would replace")
    if _ending(path) in ENDINGS and data.is_dir() and folder.samefile(data):
        raise BadRequest(f"{path}: expected a file outside of {data}, whose files are all data")


def _files_of(path: Path) -> list[Path]:
    """Return the files of data: one, or those of a folder."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if _ending(file) in ENDINGS)


class _FileErrors:
    """Converts errors of Arrow and the system to one that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, ValueError, pa.ArrowException)):
            raise BadRequest(f"{self._path}: {' '.join(str(error).split())}") from error


def _ending(path: Path) -> str:
    return path.suffix.lower()


def _schema(path: Path) -> Any:
    if _ending(path) == ".parquet":
        return pa.parquet.read_schema(path)
    if _ending(path) == ".csv":
        with csv_files.open_file(path) as reader:
            csv_files.check_utf8(reader.schema)
            return reader.schema
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).schema


def _value_bytes(kind: Any) -> int:
    """Return the approximate size of a value of a type."""
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _value_bytes(kind.value_type)
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return _TEXT_BYTES


def _read(path: Path, columns: list[str], rows: int, types: Mapping[str, Any]) -> Iterator[Any]:
    if _ending(path) == ".parquet":
        with pa.parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            yield from file.iter_batches(rows, columns=columns, use_threads=False)
    elif _ending(path) == ".csv":
        with csv_files.open_file(path, types, columns) as reader:
            yield from (part for batch in reader for part in _slices(batch, rows))
    else:
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            for index in range(reader.num_record_batches):
                yield from _slices(reader.get_batch(index).select(columns), rows)


def _slices(batch: Any, rows: int) -> Iterator[Any]:
    return (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))


def _open_writer(path: Path, ending: str, schema: Any) -> Any:
    """Return a pyarrow writer with `write_table` and `close`."""
    if ending == ".parquet":
        # Scores rarely repeat: a dictionary of them would only cost time.
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        return pa.parquet.ParquetWriter(path, schema, use_dictionary=texts)
    if ending == ".csv":
        return pa.csv.CSVWriter(path, schema)
    return pa.ipc.new_file(path, schema)
