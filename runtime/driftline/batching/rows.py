"""Joins the rows of requests into a batch, and splits its outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from driftline import blocks
from driftline.batching.request import Request
from driftline.blocks import slice_rows
from driftline.errors import ModelError
from driftline.tensors import Tensors

Slice = tuple[Request, int, int]
"""A range of a request's rows: the first, and the one after the last."""


def gather(slices: Sequence[Slice]) -> Tensors:
    """Return the input tensors of a batch, without a copy if it has one slice."""
    parts = [
        request.inputs if stop - start == request.rows else slice_rows(request.inputs, start, stop)
        for request, start, stop in slices
    ]
    return blocks.join(parts) if len(parts) > 1 else parts[0]


def split(slices: Sequence[Slice], outputs: Tensors) -> list[Tensors]:
    """Split a batch's outputs into those of each slice, with only the outputs that its request wants.

    Raises ModelError if the outputs do not have one row for each row of input.
    """
    request, start, stop = slices[0]
    if stop - start == request.rows and len(slices) == 1 and request.client_requests == 1:
        return [outputs]
    rows = sum(stop - start for _, start, stop in slices)
    for name, array in outputs.items():
        if array.shape[:1] != (rows,):
            raise ModelError(f"output {name!r}: expected {rows} rows, got shape {list(array.shape)}")
    results: list[Tensors] = []
    end = 0
    for request, start, stop in slices:
        begin, end = end, end + stop - start
        results.append({name: outputs[name][begin:end] for name in request.outputs})
    return results


def join(parts: Sequence[tuple[int, Tensors]]) -> Tensors | ModelError:
    """Join the outputs of a request that ran in several batches, in row order; an error if that fails."""
    ordered = [outputs for _, outputs in sorted(parts, key=lambda part: part[0])]
    try:
        return {name: np.concatenate([outputs[name] for outputs in ordered]) for name in ordered[0]}
    except (MemoryError, ValueError) as error:
        return ModelError(f"the outputs of a request's batches can't be joined: {error}")
