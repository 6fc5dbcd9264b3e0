"""Makes the reference profile of a file, and of a model's inputs and outputs for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from driftline.columns import names_of
from driftline.engine.bundle import Bundle
from driftline.engine.score import run
from driftline.errors import BadRequest
from driftline.monitor.reference.profile import Profile
from driftline.tables import Source
from driftline.tensors import Tensors


def profile(
    data: Path,
    kinds: Mapping[str, str] | None = None,
    names: Sequence[str] = (),
    bundle: Bundle | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Profile:
    """Return the profile of a Parquet, CSV or Arrow file, or of a folder of them, in constant memory.

    kinds     'numeric' or 'categorical' by column, as in Profile.fit; also by its name in the data
    names     columns of the data to use; all if there are none
    bundle    a model: then the profile has its inputs, as a server sees them, and its outputs. Tensors of two
              dimensions are profiled by column. The columns of an input that takes columns of the data in
              order have their names there, unless an output has one of them; others are NAME_0, NAME_1, ...
              Tensors of more dimensions are left out, and so, with a warning, are dates and times that the
              model takes as text, unless `kinds` has them: each would be a new category
    progress  called with the number of rows just read

    Raises BadRequest if a file or a column does not fit.
    """
    source = Source(data)
    schema = _select(source.schema, names)
    if bundle is None:
        return Profile.fit_batches(_with_progress(source.batches(schema.names), progress), kinds)
    signature, columns, batches = run(bundle, source, schema)
    outputs = {spec.name for spec in signature.outputs}
    column_names = {
        name: labels
        for name, labels in columns.renamed.items()
        if outputs.isdisjoint(text for label in labels for text in (label, label.rpartition("_")[0]))
    }
    sources = {
        label: column
        for name, labels in column_names.items()
        for column, label in zip(names_of(name, len(labels)), labels, strict=True)
    }
    kinds = {sources.get(name, name): kind for name, kind in (kinds or {}).items()}
    timestamps = [
        spec.name
        for spec in signature.inputs
        if spec.raw and spec.datatype.name == "BYTES" and spec.name not in kinds
        if pa.types.is_temporal(schema.field(spec.name).type)
    ]
    if timestamps:
        warnings.warn(
            f"{', '.join(map(repr, timestamps))} left out: a date or time as text is new each time",
            stacklevel=2,
        )
    return Profile.fit_batches(_tensors(batches, progress, timestamps), kinds, column_names)


def _with_progress(batches: Iterator[Any], progress: Callable[[int], None]) -> Iterator[Any]:
    for batch in batches:
        yield batch
        progress(batch.num_rows)


def _tensors(
    batches: Iterator[tuple[Any, Tensors, Tensors]], progress: Callable[[int], None], excluded: Sequence[str]
) -> Iterator[Tensors]:
    for batch, inputs, outputs in batches:
        tensors = {**inputs, **outputs}
        yield {name: array for name, array in tensors.items() if array.ndim <= 2 and name not in excluded}
        progress(batch.num_rows)


def _select(schema: Any, names: Sequence[str]) -> Any:
    for name in names:
        if name not in schema.names:
            raise BadRequest(f"column {name!r}: there is none; the data has: {', '.join(schema.names)}")
    return pa.schema([field for field in schema if field.name in names]) if names else schema
