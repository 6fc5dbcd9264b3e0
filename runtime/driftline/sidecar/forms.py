"""Joins bodies that differ only in their values into one body with all rows.

This works for tensors of the Open Inference Protocol in JSON, and for rows of unnamed values as in KServe's
v1. Everything around the values, and the types of the values, is their form.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain
from math import prod
from typing import Any

import orjson

from driftline.sidecar.exchange import Body

MAX_BYTES = 4096
"""Most bytes of a body that is read with others; for longer ones joining gains nothing."""

ASKED = ("dataframe_split", "dataframe_records", "instances", "inputs")
ANSWERED = ("outputs", "predictions")
"""The keys of a request's or a response's data; the first one present counts."""

Form = tuple[Any, ...]
"""Equal for documents that differ only in their values."""

Lists = tuple[list[Any], ...]
"""The values of a document, row by row, of each of its tensors."""

_ROWS = ("instances", "predictions")
_INTEGER = {int}
_VALUES = {int, float, bool, str, type(None)}


def form_of(body: Body, keys: Sequence[str], wanted: Collection[str]) -> tuple[Form, Lists] | None:
    """Return the form and the values of a JSON body; None if it has to be read alone, for any reason.

    keys    ASKED or ANSWERED
    wanted  names of tensors to keep
    """
    if body.encoding or body.json_length is not None or len(body.content) > MAX_BYTES:
        return None
    if body.media_type != b"application/json":
        return None
    try:
        document = orjson.loads(body.content)
        key = next(key for key in keys if key in document)
        result = _rows(document[key]) if key in _ROWS else _tensors(document[key], wanted)
    except Exception:  # reading it alone reports what is wrong
        return None
    return ((key, *result[0]), result[1]) if result is not None else None


def document_of(form: Form, values: Sequence[Lists]) -> dict[str, Any]:
    """Return the document with the rows of all documents of this form."""
    key, *entries = form
    columns = [list(chain.from_iterable(lists)) for lists in zip(*values, strict=True)]
    if key in _ROWS:
        return {key: columns[0]}
    return {
        key: [
            {"name": name, "datatype": datatype, "shape": [rows * len(values), *dimensions], "data": data}
            for (name, datatype, (rows, *dimensions), _), data in zip(entries, columns, strict=True)
        ]
    }


def _tensors(entries: Sequence[Any], wanted: Collection[str]) -> tuple[Form, Lists] | None:
    form, values = [], []
    for entry in entries:
        if "binary_data_size" in (entry.get("parameters") or ()):
            return None
        if entry["name"] in wanted:
            datatype, shape, data = entry["datatype"], entry["shape"], entry["data"]
            nested = type(data[0]) is list
            if type(datatype) is not str or not _INTEGER.issuperset(map(type, shape)):
                return None
            if len(data) != (shape[0] if nested else prod(shape)):
                return None
            form.append((entry["name"], datatype, tuple(shape), nested))
            values.append(data)
    return (tuple(form), tuple(values)) if form else None


def _rows(rows: Sequence[Any]) -> tuple[Form, Lists] | None:
    nested = type(rows[0]) is list
    kinds = [tuple(map(type, row)) for row in rows] if nested else [tuple(map(type, rows))]
    if not _VALUES.issuperset(chain.from_iterable(kinds)):
        return None
    return (nested, *kinds), (list(rows),)
