"""Triton's classification extension: an output's greatest values and their indices, as text."""

from __future__ import annotations

from math import prod

import numpy as np

from driftline.errors import BadRequest
from driftline.tensors import Array, TensorSpec


def check(spec: TensorSpec) -> None:
    """Raise BadRequest for an output that is not of numbers."""
    if spec.datatype.dtype.kind not in "iuf":
        raise BadRequest(
            f"output {spec.name!r}: parameter 'classification': expected an output of numbers, "
            f"it is {spec.datatype.name}"
        )


def greatest(array: Array, count: int, batched: bool) -> Array:
    """Return the `count` greatest values of each row, or of the whole tensor if not `batched`.

    They are strings "VALUE:INDEX", (rows, classes) or (classes,), the greatest first; equal ones in order.
    """
    values = array.reshape((len(array), prod(array.shape[1:])) if batched else (1, array.size))
    order = _descending(values)[:, :count]
    labels = np.empty(order.shape, object)
    for row, columns in enumerate(order):
        labels[row] = [f"{_format(values[row, column])}:{column}" for column in columns]
    return labels if batched else labels[0]


def _descending(values: Array) -> Array:
    """Return the indices of the values of each row, the greatest first; NaN is the least."""
    if values.dtype.kind == "f":
        return np.argsort(-values, axis=1, kind="stable")
    # Reversed, not negated: the least integer has no negative.
    order: Array = values.shape[1] - 1 - np.argsort(values[:, ::-1], axis=1, kind="stable")[:, ::-1]
    return order


def _format(value: np.generic) -> str:
    """Format a value as C++ does, and so Triton."""
    return f"{value:f}" if isinstance(value, np.floating) else str(value)
