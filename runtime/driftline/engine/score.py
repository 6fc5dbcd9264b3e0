"""Offline scoring: a file in, a file out, by the way that requests go, without HTTP.

Reading, computing and writing overlap: Arrow decodes ahead in its own threads, the model computes here,
a thread writes. What is in memory at once does not grow with the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Queue
from threading import Thread
from time import perf_counter_ns
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet

from driftline.engine.model import Model
from driftline.errors import BadRequest
from driftline.tensors import Array, Tensors, TensorSpec

FORMATS = {".parquet": "parquet", ".csv": "csv", ".arrow": "ipc", ".feather": "ipc"}
CHUNK_ROWS = 65_536
MOST_ROWS = 8_192
_AHEAD = 4


def score(
    model: Model,
    data: Path,
    output: Path,
    keep: Sequence[str] = (),
    progress: Callable[[int], None] = lambda rows: None,
) -> int:
    """Write the model's outputs for every row of `data` to `output`, in order; how many rows there were.

    data      Parquet, CSV or Arrow IPC, or a folder of such files; columns are matched as `Columns` says
    output    Parquet, CSV or Arrow IPC, by its ending; it appears when it is complete
    keep      columns of `data` to copy to the output
    progress  called with the number of rows just done

    Raises BadRequest if a file or a column does not fit.
    """
    source = open_data(data)
    columns = Columns(model.signature.inputs, source.schema, keep)
    wanted = tuple(spec.name for spec in model.signature.outputs)
    stride = Stride(model)
    total = 0
    with Writer(output) as writer:
        for batch in batches(source, columns.names, data):
            outputs = stride.run(columns.tensors(batch), wanted, batch.num_rows)
            writer.write(table(batch, keep, outputs))
            total += batch.num_rows
            progress(batch.num_rows)
        if not total:
            raise BadRequest(f"{data}: expected rows, came none")
    return total


def open_data(data: Path) -> Any:
    """A pyarrow dataset over a file or a folder; BadRequest names what can't be read."""
    suffix = data.suffix.lower()
    if data.is_dir():
        suffix = next((path.suffix for path in sorted(data.iterdir()) if path.suffix in FORMATS), ".parquet")
    if suffix not in FORMATS:
        raise BadRequest(f"{data}: expected a file that ends in {', '.join(FORMATS)}")
    try:
        return pa.dataset.dataset(data, format=FORMATS[suffix])
    except (OSError, pa.ArrowException) as error:
        raise BadRequest(f"{data}: {' '.join(str(error).split())}") from error


def count_rows(data: Path) -> int | None:
    """How many rows there are, if the files know without being read through."""
    source = open_data(data)
    return None if isinstance(source.format, pa.dataset.CsvFileFormat) else int(source.count_rows())


def batches(source: Any, names: Sequence[str], data: Path) -> Iterator[Any]:
    """The record batches of a dataset, a few read ahead."""
    scan = source.scanner(
        columns=list(names), batch_size=CHUNK_ROWS, batch_readahead=_AHEAD, fragment_readahead=1
    )
    try:
        for batch in scan.to_batches():
            if batch.num_rows:
                yield batch
    except pa.ArrowException as error:
        raise BadRequest(f"{data}: {' '.join(str(error).split())}") from error


class Columns:
    """Which columns of a file are which inputs of a model.

    An input takes the column of its name. An input of several columns takes the list column of its name,
    else NAME_0, NAME_1, ..., else, if it is the model's only one, all columns that are not kept, in order.
    """

    def __init__(self, inputs: Sequence[TensorSpec], schema: Any, keep: Sequence[str]) -> None:
        for name in keep:
            if name not in schema.names:
                raise BadRequest(f"column {name!r}: there is none; the data has: {', '.join(schema.names)}")
        self._inputs = inputs
        self._sources = {spec.name: self._source(spec, schema.names, keep) for spec in inputs}
        self.names = tuple(
            dict.fromkeys((*keep, *(name for source in self._sources.values() for name in source)))
        )

    def _source(self, spec: TensorSpec, names: Sequence[str], keep: Sequence[str]) -> tuple[str, ...]:
        if spec.name in names:
            return (spec.name,)
        width = spec.shape[1] if len(spec.shape) == 2 else 1
        numbered = tuple(f"{spec.name}_{index}" for index in range(width))
        if width > 0 and set(numbered) <= set(names):
            return numbered
        others = tuple(name for name in names if name not in keep)
        if len(self._inputs) == 1 and len(spec.shape) == 2 and width in (-1, len(others)):
            return others
        raise BadRequest(
            f"input {spec.name!r}: expected a column of this name, or {max(width, 1)} columns; "
            f"the data has {len(others)}: {', '.join(others)}"
        )

    def tensors(self, batch: Any) -> Tensors:
        """A record batch as input tensors; BadRequest names a column of the wrong type."""
        return {spec.name: self._tensor(spec, batch) for spec in self._inputs}

    def _tensor(self, spec: TensorSpec, batch: Any) -> Array:
        source = self._sources[spec.name]
        first = batch.column(source[0])
        if len(source) == 1 and len(spec.shape) == 1:
            return values(first, spec, source[0])
        if pa.types.is_fixed_size_list(first.type) or pa.types.is_list(first.type):
            return values(first.flatten(), spec, source[0]).reshape(batch.num_rows, *spec.shape[1:])
        # Column by column into one matrix of the model's type: the only copy there is.
        matrix = np.empty((batch.num_rows, len(source)), spec.datatype.dtype)
        for index, name in enumerate(source):
            matrix[:, index] = values(batch.column(name), spec, name)
        return matrix


def values(column: Any, spec: TensorSpec, name: str) -> Array:
    """An Arrow column as an array that `spec`'s datatype can hold; nulls are NaN."""
    array: Array = column.to_numpy(zero_copy_only=False)
    allowed = {"f": "fiub", "i": "iub", "u": "ub", "b": "b", "O": "OU"}[spec.datatype.dtype.kind]
    if array.dtype.kind not in allowed or (array.dtype.kind == "O" and column.null_count):
        nulls = f" with {column.null_count} nulls" if column.null_count else ""
        raise BadRequest(f"column {name!r}: expected {spec.datatype.name}, came {column.type}{nulls}")
    return array


class Stride:
    """Runs many rows in batches of the size that has proved fastest.

    It starts from the model's `max_batch_rows` and doubles with every call as long as rows get cheaper.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._rows = max(1, model.settings.batching.max_batch_rows)
        self._best = (float("inf"), self._rows)
        self._searching = model.signature.batched

    def run(self, inputs: Tensors, wanted: Sequence[str], rows: int) -> Tensors:
        """The outputs for all rows."""
        if not self._model.signature.batched:
            return self._model.run(inputs, wanted)
        begin = perf_counter_ns()
        parts = [
            self._model.run(
                {name: array[start : start + self._rows] for name, array in inputs.items()}, wanted
            )
            for start in range(0, rows, self._rows)
        ]
        if self._searching and rows > self._rows:
            self._learn((perf_counter_ns() - begin) / rows)
        return {name: np.concatenate([part[name] for part in parts]) for name in wanted}

    def _learn(self, ns_per_row: float) -> None:
        if ns_per_row < self._best[0]:
            self._best = (ns_per_row, self._rows)
            self._rows *= 2
            self._searching = self._rows <= MOST_ROWS
        else:
            self._searching = False
        if not self._searching:
            self._rows = self._best[1]


def table(batch: Any, keep: Sequence[str], outputs: Tensors) -> Any:
    """The kept columns and the outputs side by side; an output of several columns is NAME_0, NAME_1, ..."""
    columns = [(name, batch.column(name)) for name in keep]
    for name, array in outputs.items():
        if array.shape[:1] != (batch.num_rows,):
            raise BadRequest(
                f"output {name!r}: expected {batch.num_rows} rows, came shape {list(array.shape)}"
            )
        if array.ndim == 1:
            columns.append((name, pa.array(array)))
        else:
            parts = array.reshape(len(array), -1).T
            columns += [(f"{name}_{index}", pa.array(part)) for index, part in enumerate(parts)]
    names = [name for name, _ in columns]
    for name in keep:
        if names.count(name) > 1:
            raise BadRequest(f"column {name!r}: can't be kept, an output of the model has the same name")
    return pa.table([column for _, column in columns], names)


class Writer:
    """Writes tables to a file in a thread of its own; the file appears when all of it is there."""

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in FORMATS:
            raise BadRequest(f"{path}: expected a file that ends in {', '.join(FORMATS)}")
        self._path = path
        self._unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        self._queue: Queue[Any] = Queue(maxsize=_AHEAD)
        self._error: Exception | None = None
        self._thread = Thread(target=self._work, name="driftline-write")

    def write(self, rows: Any) -> None:
        """Put a table in line; BadRequest if the file can't be written."""
        self._raise()
        self._queue.put(rows)

    def _raise(self) -> None:
        if self._error is not None:
            raise BadRequest(f"{self._path}: {' '.join(str(self._error).split())}") from self._error

    def _work(self) -> None:
        file = None
        while (rows := self._queue.get()) is not None:
            if self._error is None:
                try:
                    file = file or open_file(self._unfinished, self._path.suffix.lower(), rows.schema)
                    file.write_table(rows)
                except (OSError, pa.ArrowException) as error:
                    self._error = error
        try:
            if file is not None:
                file.close()
        except (OSError, pa.ArrowException) as error:
            self._error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._queue.put(None)
        self._thread.join()
        try:
            if kind is None:
                self._raise()
                os.replace(self._unfinished, self._path)
        finally:
            with suppress(OSError):
                self._unfinished.unlink()


def open_file(path: Path, suffix: str, schema: Any) -> Any:
    """A pyarrow writer with `write_table` and `close`, by the ending of the file's final name."""
    if suffix == ".parquet":
        return pa.parquet.ParquetWriter(path, schema)
    if suffix == ".csv":
        return pa.csv.CSVWriter(path, schema)
    return pa.ipc.new_file(path, schema)
