"""From bodies to columns, without a signature: bodies describe themselves.

The Open Inference Protocol names its tensors and their datatypes, MLflow's tables name their columns. Values
without names, as in KServe's v1 and in MLflow's `instances`, are the profile's columns in its order: first a
model's inputs, then its outputs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson

from driftline.columns import columns_of
from driftline.errors import BadRequest, shown
from driftline.monitor.reference.column import Categorical
from driftline.monitor.reference.profile import Profile
from driftline.protocols.described import tensors_of
from driftline.protocols.encoding import decompress
from driftline.protocols.mlflow.frames import Frame, from_records, from_rows, parse_split
from driftline.sidecar.exchange import Body, Exchange
from driftline.sidecar.forms import ANSWERED, ASKED, Form, Lists, document_of, form_of
from driftline.tensors import Array

MAX_BYTES = 64 * 2**20
"""Most bytes of a body, decompressed."""

Named = dict[str, Any]
"""Arrays by name; a two-dimensional one is several columns, as in `columns_of`."""


class Decoder:
    """Extracts the columns of a profile from exchanges."""

    def __init__(self, profile: Profile) -> None:
        self._names = profile.sources
        self._texts = {
            name
            for one in profile.references
            if isinstance(one, Categorical) and one.kind == "string"
            for name in (one.name, one.source)
        }
        stems = {name.rpartition("_")[0] for name in self._names} - {""}
        # A name that is a tensor's, too, is taken to be that.
        self._called = {one.name: one.source for one in profile.references if one.name not in stems}
        self._wanted = frozenset(stems.union(self._names))

    def columns(self, exchange: Exchange) -> Named:
        """Return the columns of an exchange that are in the profile, by name.

        Raises BadRequest for a body that can't be read.
        """
        if exchange.request.json_length == 0:
            return self._raw(exchange)
        found = self._read(exchange.request, self._asked, 0)
        known = len(self._covered(found))
        if known < len(self._names) and exchange.answer is not None:
            found |= self._read(exchange.answer, self._answered, known)
        return found

    def together(self, exchanges: Sequence[Exchange]) -> Iterator[tuple[Sequence[Exchange], Named | None]]:
        """Yield exchanges grouped by form, with their joint columns; None if each has to be read alone."""
        groups = defaultdict[Any, list[tuple[Exchange, list[Lists]]]](list)
        for exchange in exchanges:
            forms = self._forms(exchange)
            key = tuple(form for form, _ in forms) if forms is not None else None
            groups[key].append((exchange, [values for _, values in forms or ()]))
        for key, group in groups.items():
            members = [exchange for exchange, _ in group]
            try:
                found = self._columns_of(key, [values for _, values in group]) if key is not None else None
            except Exception:  # most likely caused by one of them
                found = None
            yield members, found

    def _forms(self, exchange: Exchange) -> list[tuple[Form, Lists]] | None:
        """Return the forms and values of a request and, if there is one, its response."""
        found = [form_of(exchange.request, ASKED, self._wanted)]
        if exchange.answer is not None:
            found.append(form_of(exchange.answer, ANSWERED, self._wanted))
        forms = [form for form in found if form is not None]
        return forms if len(forms) == len(found) else None

    def _columns_of(self, forms: Sequence[Form], values: Sequence[Sequence[Lists]]) -> Named:
        """Return the columns of all exchanges of these forms."""
        asked, *answered = map(document_of, forms, zip(*values, strict=True))
        found = self._asked(asked, _NO_TAIL, 0)
        known = len(self._covered(found))
        if known < len(self._names):
            for document in answered:
                found |= self._answered(document, _NO_TAIL, known)
        return found

    def _raw(self, exchange: Exchange) -> Named:
        """Read Triton's raw binary request: one row of the model's only input, without a description.

        The columns missing from the response are that input, if they are of one tensor of floats.
        """
        found = self._read(exchange.answer, self._answered, 0) if exchange.answer is not None else {}
        covered = self._covered(found)
        names = [name for name in self._names if name not in covered]
        stem = "".join(names[:1]).rpartition("_")[0]
        if not names or (names[1:] and names != [f"{stem}_{index}" for index in range(len(names))]):
            raise BadRequest(f"a raw body: expected the profile of one input, got {shown(names)}")
        content = _plain(exchange.request)
        kind = {4: np.float32, 8: np.float64}.get(len(content) // len(names))
        if kind is None or len(content) % len(names):
            raise BadRequest(f"a raw body: expected {len(names)} floats, got {len(content)} bytes")
        row = np.frombuffer(content, np.dtype(kind).newbyteorder("<")).astype(kind)
        if (np.abs(row[row != 0]) < np.finfo(row.dtype).tiny).any():
            raise BadRequest("a raw body: expected floats, got what may be integers")
        return found | dict(zip(names, row[:, np.newaxis], strict=True))

    def _covered(self, found: Named) -> set[str]:
        """Return the profile's columns that were found."""
        names = set()
        for name, array in found.items():
            width = array.shape[1] if getattr(array, "ndim", 1) == 2 else 1
            names |= {name} if width == 1 else {f"{name}_{index}" for index in range(width)}
        return names.intersection(self._names)

    def _read(self, body: Body, read: Callable[[Any, memoryview, int], Named], first: int) -> Named:
        content = _plain(body)
        if body.media_type.startswith(_TABLES):
            table = self._table(body.media_type, content)
            return {
                name: column if isinstance(column, np.ndarray) else np.array(column.to_pylist(), object)
                for name, column in self._ours(table)
            }
        end = body.json_length
        if end is not None and not 0 < end <= len(content):
            raise BadRequest(f"a binary body: expected JSON of {end} bytes, got {len(content)} in all")
        try:
            document = orjson.loads(content[:end])
        except orjson.JSONDecodeError as error:
            document = _with_nan(content[:end], error)
        if type(document) is not dict:
            raise BadRequest(f"a body: expected an object, got {shown(document)}")
        tail = memoryview(b"" if end is None else content)[end or 0 :]
        return read(document, tail, first)

    def _table(self, media_type: bytes, content: bytes) -> Named:
        import pyarrow as pa
        import pyarrow.parquet

        from driftline.protocols.mlflow.tabular import read_csv

        try:
            if media_type.startswith(_CSV):
                return columns_of(read_csv(content, dict.fromkeys(self._texts, pa.string())))
            return columns_of(pa.parquet.read_table(pa.BufferReader(content)))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise BadRequest(f"a table: {' '.join(str(error).split())}") from error

    # -- requests -----------------------------------------------------------------------------------

    def _asked(self, document: Mapping[str, Any], tail: memoryview, first: int) -> Named:
        if "dataframe_split" in document:
            return self._frame(from_rows(*parse_split(document["dataframe_split"])))
        if "dataframe_records" in document:
            return self._frame(from_records(document["dataframe_records"], "dataframe_records"))
        if "instances" in document:
            return self._values(document["instances"], first)
        inputs = document.get("inputs")
        if type(inputs) is list and inputs and type(inputs[0]) is dict and "datatype" in inputs[0]:
            return tensors_of(inputs, tail, self._wanted)
        if inputs is None:
            raise BadRequest(f"a request: expected inputs, instances or a dataframe, got {shown(document)}")
        return self._values(inputs, first)

    # -- responses ----------------------------------------------------------------------------------

    def _answered(self, document: Mapping[str, Any], tail: memoryview, first: int) -> Named:
        if "outputs" in document:
            return tensors_of(document["outputs"], tail, self._wanted)
        if "predictions" in document:
            return self._values(document["predictions"], first)
        raise BadRequest(f"an answer: expected outputs or predictions, got {shown(document)}")

    # -- values without a datatype --------------------------------------------------------------------

    def _values(self, values: Any, first: int) -> Named:
        """Read columns by name, rows of `{name: value}`, or unnamed values: the columns from `first` on."""
        if type(values) is dict:
            return {name: _array(name, column) for name, column in self._ours(values)}
        if type(values) is not list:
            raise BadRequest(f"expected a list of rows, got {shown(values)}")
        if not values:
            raise BadRequest("expected at least one row, got none")
        if type(values[0]) is dict:
            return self._frame(from_records(values, "rows"))
        if type(values[0]) is not list:
            return self._unnamed([values], first)
        widths = set(map(len, values)) if set(map(type, values)) == {list} else {-1, -2}
        if len(widths) != 1:
            raise BadRequest("expected rows of one length, got others")
        return self._unnamed(list(zip(*values, strict=True)), first)

    def _unnamed(self, columns: Sequence[Any], first: int) -> Named:
        names = self._names[first : first + len(columns)]
        if len(names) < len(columns):
            raise BadRequest(
                f"{len(columns)} columns without names: expected at most the {len(self._names) - first} "
                f"of the profile from {first} on"
            )
        return {name: _array(name, column) for name, column in zip(names, columns, strict=True)}

    def _frame(self, frame: Frame) -> Named:
        if frame.names == tuple(range(len(frame.columns))):  # no names
            return self._unnamed(frame.columns, 0)
        return {name: _array(name, column) for name, column in self._ours(frame.by_name())}

    def _ours(self, columns: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
        """Yield the columns that are in the profile, by their sources; tables may have either name."""
        for name, column in columns.items():
            source = self._called.get(str(name), str(name))
            if source in self._wanted:
                yield source, column


_NO_TAIL = memoryview(b"")
_CSV = b"text/csv"
_TABLES = (_CSV, b"application/vnd.apache.parquet")
_NUMBERS = {int, bool}


def _plain(body: Body) -> bytes:
    """Return a body's bytes, decompressed."""
    return decompress(body.content, body.encoding, MAX_BYTES) if body.encoding else body.content


def _array(name: object, values: Any) -> Array:
    """Make a column from JSON values: text as objects, integers as such, other numbers and null as floats.

    Lists of one length are several columns, or one if they have one value each.
    """
    kinds = set(map(type, values))
    if kinds == {list}:
        if len(set(map(len, values))) > 1:
            raise BadRequest(f"column {shown(name)}: expected lists of one length, got others")
        flat = _array(name, list(chain.from_iterable(values)))
        return flat.reshape(len(values), len(values[0]), *flat.shape[1:])
    try:
        if str in kinds:
            return np.array(values, object)
        return np.array(values) if kinds <= _NUMBERS else np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRequest(f"column {shown(name)}: expected numbers or text: {error}") from error


def _with_nan(text: bytes, error: orjson.JSONDecodeError) -> Any:
    """Parse JSON with NaN and Infinity, as Python and MLflow write it; BadRequest if it is invalid."""
    if b"NaN" in text or b"Infinity" in text:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
    raise BadRequest(f"a body is not valid JSON: {error}") from error
