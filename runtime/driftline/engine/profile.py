"""The reference profile of a file, and of what a model makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from driftline.engine.bundle import Bundle
from driftline.engine.score import run
from driftline.errors import BadRequest
from driftline.monitor.profile import Profile
from driftline.tables import Source


def profile(
    data: Path,
    kinds: Mapping[str, str] | None = None,
    names: Sequence[str] = (),
    bundle: Bundle | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Profile:
    """The profile of a Parquet, CSV or Arrow file, or of a folder of them, in memory that does not grow.

    kinds     'numeric' or 'categorical' by column, as Profile.fit has them
    names     columns of the data to use; all if there are none
    bundle    a model: then the profile has its inputs, as a server sees them, and its outputs. Tensors of two
              dimensions are their columns, NAME_0, NAME_1, ...; those of more are left out
    progress  called with the number of rows just read

    Raises BadRequest if a file or a column does not fit.
    """
    source = Source(data)
    schema = _chosen(source.schema, names)
    return Profile.fit_batches(_columns(source, schema, bundle, progress), kinds)


def _columns(
    source: Source, schema: Any, bundle: Bundle | None, progress: Callable[[int], None]
) -> Iterator[Any]:
    if bundle is None:
        for batch in source.batches(schema.names):
            yield batch
            progress(batch.num_rows)
    else:
        for batch, inputs, outputs in run(bundle, source, schema):
            yield {name: array for name, array in {**inputs, **outputs}.items() if array.ndim <= 2}
            progress(batch.num_rows)


def _chosen(schema: Any, names: Sequence[str]) -> Any:
    for name in names:
        if name not in schema.names:
            raise BadRequest(f"column {name!r}: there is none; the data has: {', '.join(schema.names)}")
    return pa.schema([field for field in schema if field.name in names]) if names else schema
