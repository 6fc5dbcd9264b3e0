"""Offline scoring: a file in, a file out, by the same code path as requests, without HTTP."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from driftline.engine.bundle import Bundle
from driftline.engine.model import Model
from driftline.engine.parallel import Block, ParallelRunner
from driftline.errors import BadRequest
from driftline.machine import available_cores
from driftline.protocols.arrow import Columns, table
from driftline.tables import Source, Writer, check_target
from driftline.tensors import Signature, Tensors

_AHEAD = 1
"""Record batches that wait for a core, so that no core is idle while rows are read and written."""


def score(
    bundle: Bundle,
    data: Path,
    output: Path,
    keep: Sequence[str] = (),
    progress: Callable[[int], None] = lambda rows: None,
) -> int:
    """Write a model's outputs for every row of `data` to `output`, in order; return the number of rows.

    bundle    the model's files
    data      a Parquet, CSV or Arrow file, or a folder of them; its columns are matched as for Arrow requests
    output    a Parquet, CSV or Arrow file, by its suffix; it appears once it is complete
    keep      columns of `data` to copy to the output
    progress  called with the number of rows just done

    Raises BadRequest if a file or a column does not fit.
    """
    source = Source(data)
    check_target(output, data)
    total = 0
    with Writer(output) as writer:
        _, _, batches = run(bundle, source, source.schema, keep)
        for batch, _, outputs in batches:
            kept = {name: batch.column(name) for name in keep}
            writer.write(table(kept, outputs, batch.num_rows))
            total += batch.num_rows
            progress(batch.num_rows)
        if not total:
            raise BadRequest(f"{data}: expected rows, got none")
    return total


def run(
    bundle: Bundle, source: Source, schema: Any, keep: Sequence[str] = ()
) -> tuple[Signature, Columns, Iterator[tuple[Any, Tensors, Tensors]]]:
    """Return a model's signature, the columns that it takes, and a source's record batches, each with its
    inputs and outputs.

    schema  of the columns that may be inputs
    keep    columns that the batches have in addition to the inputs
    """
    # One thread per batch, and as many concurrent batches as a server would have threads.
    engine = bundle.settings.engine
    model = Model(replace(bundle, settings=replace(bundle.settings, engine=replace(engine, threads=1))))
    columns = Columns(model.signature.inputs, schema, keep)
    threads = engine.instances * engine.threads_on(available_cores())
    return model.signature, columns, _run(model, source, columns, threads)


def _run(
    model: Model, source: Source, columns: Columns, threads: int
) -> Iterator[tuple[Any, Tensors, Tensors]]:
    wanted = tuple(spec.name for spec in model.signature.outputs)
    pending: deque[tuple[Any, Block]] = deque()
    rows = 0
    with ParallelRunner(model, threads) as runner:
        for batch in source.batches(columns.names, columns.texts):
            pending.append((batch, runner.start(columns.tensors(batch, rows), wanted, batch.num_rows)))
            rows += batch.num_rows
            if len(pending) > _AHEAD:
                yield _collect(*pending.popleft())
        while pending:
            yield _collect(*pending.popleft())


def _collect(batch: Any, block: Block) -> tuple[Any, Tensors, Tensors]:
    return batch, block.inputs, block.result()
