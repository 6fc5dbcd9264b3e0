"""Match a table's columns to a model's inputs: by name where names are known, else by position."""

from __future__ import annotations

from collections.abc import Sequence

from driftline.columns import names_of
from driftline.errors import BadRequest, listed
from driftline.tensors import TensorSpec


def columns_of(spec: TensorSpec, names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that an input takes by name, in its order; none if some are missing.

    They are the first of these that the table has completely: the columns that the model was fitted on, if
    known; the one with the input's own name; NAME_0, NAME_1, ...
    """
    width = spec.shape[1] if len(spec.shape) == 2 else 1
    numbered = names_of(spec.name, width) if width > 0 else ()
    available = set(names)
    for candidate in (spec.column_names, (spec.name,), numbered):
        if candidate and available.issuperset(candidate):
            return candidate
    return ()


def by_position(spec: TensorSpec, names: Sequence[str]) -> bool:
    """Return whether an input may take columns with these names by position: it knows no names, or they are
    numbers from 0, as in tables without names."""
    return not spec.column_names or tuple(names) == tuple(map(str, range(len(names))))


def missing(spec: TensorSpec, names: Sequence[str]) -> BadRequest:
    """Return the error for a table that an input can't take."""
    actual = f"the data has {len(names)}: {listed(names)}"
    if spec.column_names:
        available = set(names)
        absent = listed(name for name in spec.column_names if name not in available)
        return BadRequest(f"input {spec.name!r}: missing columns: {absent}; {actual}")
    width = spec.shape[1] if len(spec.shape) == 2 else 1
    or_columns = f", or {width} columns" if width > 1 else ""
    return BadRequest(f"input {spec.name!r}: expected a column of this name{or_columns}; {actual}")
