"""Offline scoring: a file in, a file out, by the way that requests go, without HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import pyarrow as pa

from driftline.engine.bundle import Bundle
from driftline.engine.model import Model
from driftline.errors import BadRequest
from driftline.tables import Source, Writer
from driftline.tensors import Array, Tensors, TensorSpec

MOST_ROWS = 8_192
"""The largest batch that is tried."""

BLOCK_ROWS = 1_024


def score(
    bundle: Bundle,
    data: Path,
    output: Path,
    keep: Sequence[str] = (),
    progress: Callable[[int], None] = lambda rows: None,
) -> int:
    """Write a model's outputs for every row of `data` to `output`, in order; how many rows there were.

    bundle    the model's files
    data      a Parquet, CSV or Arrow file, or a folder of them; columns are matched as `Columns` says
    output    a Parquet, CSV or Arrow file, by its ending; it appears when it is complete
    keep      columns of `data` to copy to the output
    progress  called with the number of rows just done

    Raises BadRequest if a file or a column does not fit.
    """
    source = Source(data)
    total = 0
    with Writer(output) as writer:
        for batch, _, outputs in run(bundle, source, source.schema, keep):
            writer.write(table(batch, keep, outputs))
            total += batch.num_rows
            progress(batch.num_rows)
        if not total:
            raise BadRequest(f"{data}: expected rows, came none")
    return total


def run(
    bundle: Bundle, source: Source, schema: Any, keep: Sequence[str] = ()
) -> Iterator[tuple[Any, Tensors, Tensors]]:
    """Record batches of a source, each with the inputs that a model takes of it and with its outputs.

    schema  of the columns that may be inputs
    keep    columns that the batches have beside those of the inputs
    """
    # Nobody else wants the cores: let the model's threads have them.
    engine = replace(bundle.settings.engine, spinning=True)
    model = Model(replace(bundle, settings=replace(bundle.settings, engine=engine)))
    columns = Columns(model.signature.inputs, schema, keep)
    wanted = tuple(spec.name for spec in model.signature.outputs)
    stride = Stride(model)
    for batch in source.batches(columns.names):
        inputs = columns.tensors(batch)
        yield batch, inputs, stride.run(inputs, wanted, batch.num_rows)


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
        columns = [values(batch.column(name), spec, name) for name in source]
        matrix = np.empty((batch.num_rows, len(columns)), spec.datatype.dtype)
        # The only copy there is: in blocks of rows that stay in the cache from column to column.
        for start in range(0, batch.num_rows, BLOCK_ROWS):
            block = matrix[start : start + BLOCK_ROWS]
            for index, column in enumerate(columns):
                block[:, index] = column[start : start + BLOCK_ROWS]
        return matrix


def values(column: Any, spec: TensorSpec, name: str) -> Array:
    """An Arrow column as an array that `spec`'s datatype can hold; nulls are NaN."""
    array: Array
    if pa.types.is_primitive(column.type) and not pa.types.is_boolean(column.type) and not column.null_count:
        array = np.from_dlpack(column)  # pyarrow's own way would import pandas, for a second
    else:
        array = column.to_numpy(zero_copy_only=False)
    allowed = {"f": "fiub", "i": "iub", "u": "ub", "b": "b", "O": "OU"}[spec.datatype.dtype.kind]
    if array.dtype.kind not in allowed or (array.dtype.kind == "O" and column.null_count):
        nulls = f" with {column.null_count} nulls" if column.null_count else ""
        raise BadRequest(f"column {name!r}: expected {spec.datatype.name}, came {column.type}{nulls}")
    return array


class Stride:
    """Runs many rows in batches of the size that has proved fastest.

    It starts from the model's `max_batch_rows` and doubles, call by call, as long as rows don't get dearer.
    A size is judged by its fastest batch: what else the machine does can only make one slower.
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
        parts = []
        fastest = float("inf")
        for start in range(0, rows, self._rows):
            stop = min(start + self._rows, rows)
            begin = perf_counter_ns()
            parts.append(self._model.run({name: array[start:stop] for name, array in inputs.items()}, wanted))
            fastest = min(fastest, (perf_counter_ns() - begin) / (stop - start))
        if self._searching and rows >= self._rows:
            self._judge(fastest)
        return {name: np.concatenate([part[name] for part in parts]) for name in wanted}

    def _judge(self, ns_per_row: float) -> None:
        self._best = min(self._best, (ns_per_row, self._rows))
        self._searching = 2 * self._rows <= MOST_ROWS and ns_per_row < 1.1 * self._best[0]
        self._rows = 2 * self._rows if self._searching else self._best[1]


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
