"""Offline scoring: a file in, a file out, by the way that requests go, without HTTP."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from driftline.config import available_cores
from driftline.engine.bundle import Bundle
from driftline.engine.model import Model
from driftline.engine.stride import Block, Stride
from driftline.errors import BadRequest
from driftline.tables import Source, Writer
from driftline.tensors import Array, Tensors, TensorSpec

BLOCK_ROWS = 1_024

_AHEAD = 1
"""Record batches that wait for a core, so that none is idle while rows are read and written."""


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
    # One thread a batch, and as many batches at the same time as a server would have threads.
    engine = bundle.settings.engine
    model = Model(replace(bundle, settings=replace(bundle.settings, engine=replace(engine, threads=1))))
    columns = Columns(model.signature.inputs, schema, keep)
    wanted = tuple(spec.name for spec in model.signature.outputs)
    begun: deque[tuple[Any, Block]] = deque()
    with Stride(model, engine.instances * engine.threads_on(available_cores())) as stride:
        for batch in source.batches(columns.names):
            begun.append((batch, stride.start(columns.tensors(batch), wanted, batch.num_rows)))
            if len(begun) > _AHEAD:
                yield _finished(*begun.popleft())
        while begun:
            yield _finished(*begun.popleft())


def _finished(batch: Any, block: Block) -> tuple[Any, Tensors, Tensors]:
    return batch, block.inputs, block.result()


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
