"""Checks at registration that a bundle predicts what its author expects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from driftline.columns import names_of
from driftline.engine.bundle import Bundle
from driftline.engine.model import Model
from driftline.engine.verify import check_profile
from driftline.errors import BadRequest
from driftline.protocols.arrow import Columns
from driftline.tables import Source
from driftline.tensors import Array, Tensors, shorten

MAX_ROWS = 100_000
"""The most rows that are compared."""

SINGLE_ROWS = 64
"""Rows that are also run one by one, like clients' requests."""


def check(files: Path | Bundle, data: Path, tolerance: float, progress: Callable[[int], None]) -> int:
    """Run rows through a version as a server would, compare its predictions, and return the number of rows.

    files      the version's folder, or its bundle
    data       a Parquet, CSV or Arrow file with the model's inputs, and predictions named after the outputs:
               NAME, or NAME_0, NAME_1, ... for an output of several columns
    tolerance  the largest absolute difference that is allowed
    progress   called with the number of rows just compared

    Raises BadRequest with the output, the row and both values for the first larger difference, and if the
    data has no predictions; and whatever `verify` raises about the files.
    """
    bundle = Bundle.open(files) if isinstance(files, Path) else files
    model = Model(bundle)
    check_profile(bundle, model.signature)
    source = Source(data)
    targets = {
        column: (spec.name, index)
        for spec in model.signature.outputs
        for index, column in enumerate(_columns(spec.name, spec.shape, source.schema.names))
        if column in source.schema.names
    }
    if not targets:
        outputs = ", ".join(spec.name for spec in model.signature.outputs)
        raise BadRequest(f"{data}: expected predictions in columns named as the outputs: {outputs}")
    inputs = Columns(model.signature.inputs, source.schema, extra=tuple(targets))
    step = max(1, model.settings.batching.max_batch_rows)
    rows = 0
    text_outputs = {spec.name for spec in model.signature.outputs if spec.datatype.name == "BYTES"}
    text_columns = inputs.texts | {column for column, (name, _) in targets.items() if name in text_outputs}
    for batch in source.batches(inputs.names, text_columns):
        expected = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in targets}
        part = Part(model, targets, inputs.tensors(batch, rows), expected, rows, tolerance)
        for start in range(0, batch.num_rows, step):
            part.compare(start, min(start + step, batch.num_rows))
        for row in range(min(SINGLE_ROWS, batch.num_rows) if not rows else 0):
            part.compare(row, row + 1)
        rows += batch.num_rows
        progress(batch.num_rows)
        if rows >= MAX_ROWS:
            break
    if not rows:
        raise BadRequest(f"{data}: expected rows, got none")
    return rows


def _columns(name: str, shape: tuple[int, ...], available: list[str]) -> tuple[str, ...]:
    """Return the columns of an output's predictions; if its width varies, as many as the data has."""
    if len(shape) < 2:
        return (name,)
    width = shape[1]
    if width == -1:
        width = sum(f"{name}_{index}" in available for index in range(len(available)))
    return names_of(name, max(width, 1))


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows, and the expected predictions.

    targets   the output of each column of predictions, and its index in that output
    inputs    of the model
    expected  the predictions, by column
    first     the number of the first row
    """

    model: Model
    targets: dict[str, tuple[str, int]]
    inputs: Tensors
    expected: dict[str, Array]
    first: int
    tolerance: float

    def compare(self, start: int, stop: int) -> None:
        """Run some of the rows; raise BadRequest for the first prediction that differs."""
        inputs = {name: array[start:stop] for name, array in self.inputs.items()}
        outputs = self.model.run(inputs, tuple({name: None for name, _ in self.targets.values()}))
        for column, (name, index) in self.targets.items():
            actual = outputs[name].reshape(stop - start, -1)[:, index]
            expected = self.expected[column][start:stop]
            differing = np.flatnonzero(~_is_close(actual, expected, self.tolerance))
            if len(differing):
                row = int(differing[0])
                raise BadRequest(
                    f"output {column!r}, row {self.first + start + row}: expected "
                    f"{_format(expected[row])} within {self.tolerance:g}, got {_format(actual[row])}"
                )


def _format(value: Any) -> str:
    """Return a value as Python itself would show it."""
    return shorten(value.item() if isinstance(value, np.generic) else value)


def _is_close(actual: Array, expected: Array, tolerance: float) -> Array:
    if actual.dtype == object or expected.dtype == object:
        return np.asarray(actual.astype(str) == expected.astype(str))
    numbers = actual.astype(np.float64), expected.astype(np.float64)
    return np.isclose(*numbers, rtol=0, atol=tolerance, equal_nan=True)
