"""Locate the raw columns of a transform in memory."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy import ndarray

from driftline.columns import columns_of
from driftline.errors import BadRequest, listed
from driftline.features.raw import (
    PARSED_TIME,
    WORDS,
    Input,
    Layout,
    arrow_layout,
    by_name,
    make_readable,
    mapping_of,
    numpy_layout,
)
from driftline.tensors import Array
from driftline_kernels import memory

MAX_JOINED_ROWS = 256
"""The most rows of numpy columns that are joined: copying all is faster than getting each one's address."""

MAX_ENCODED_STRINGS = 16
"""The most strings that are encoded here: Arrow is no faster for so few, and a server's first response need
not wait for its import, which takes 0.3 s, and 1 s more if pandas is installed."""

NO_ARRAY = "no array"
"""Stands for the dtype of a column that is no array. Not None, which numpy compares as float64."""

_ROW = struct.Struct(f"{memory.FIELDS}q")


@dataclass(frozen=True, slots=True)
class Plan:
    """How few rows of numpy columns are read, by their dtypes. Columns are indices of inputs.

    table       (inputs, memory.FIELDS) int64; kinds, strides and units, as far as they are known
    locations   (inputs, 2) int64; see memory.locate_joined
    numbers     columns joined to one array of float64, and
    times       to one of int64 after it
    texts       columns joined to one Arrow array of strings, and
    time_texts  to one that is parsed to times
    unjoined    columns read one by one
    """

    table: Array
    locations: Array
    numbers: tuple[int, ...]
    times: tuple[int, ...]
    texts: tuple[int, ...]
    time_texts: tuple[int, ...]
    unjoined: tuple[int, ...]

    @classmethod
    def of(cls, inputs: Sequence[Input], dtypes: Sequence[Any]) -> Plan:
        """Return the plan for columns of these dtypes; those of NO_ARRAY are read one by one."""
        table, locations = (
            np.zeros((len(inputs), memory.FIELDS), np.int64),
            np.zeros((len(inputs), 2), np.int64),
        )
        groups: dict[str, list[int]] = {"number": [], "time": [], "text": [], "time text": [], "unjoined": []}
        for index, (field, dtype) in enumerate(zip(inputs, dtypes, strict=True)):
            group, layout = _group_of(field, dtype)
            groups[group].append(index)
            table[index, [memory.KIND, memory.STRIDE, memory.PER_SECOND]] = layout
        for position, index in enumerate([*groups["number"], *groups["time"]]):
            locations[index] = memory.PACKED, position
        for array, group in enumerate(group for group in ("text", "time text") if groups[group]):
            for position, index in enumerate(groups[group]):
                locations[index] = array, position
        for index in groups["unjoined"]:
            locations[index] = memory.COMPLETE, 0
        return cls(table, locations, *map(tuple, groups.values()))


def _group_of(field: Input, dtype: Any) -> tuple[str, Layout]:
    """Return how a column is read, and its layout then."""
    layout = None if dtype is NO_ARRAY else numpy_layout(field, dtype, 8)
    if layout is not None and field.kind == "number":
        return "number", (memory.FLOAT64, 8, 0)
    if layout is not None and dtype.kind in "Mi":
        return "time", (memory.INT64, 8, layout[2])
    if dtype == object and field.kind == "string":
        return "text", (memory.STRING, 0, 0)
    if dtype == object and field.kind == "datetime":
        return "time text", PARSED_TIME
    return "unjoined", (0, 0, 0)


class Sources:
    """Columns in memory, in the form that kernels read; valid within `Reader.open`."""

    def __init__(self, count: int) -> None:
        self.table = np.zeros((count, memory.FIELDS), np.int64)
        self.structs = np.zeros((max(count, 1), memory.ARROW_ARRAY), np.int64)
        self.address = self.structs.ctypes.data
        self.buffers = np.zeros(3, np.int64)
        self.exported = 0
        self.rows = 0
        self.buffers_in_use: list[Any] = []
        self.packed = np.empty(count * MAX_JOINED_ROWS)
        self.packed_integers = self.packed.view(np.int64)
        self.packed_address = self.packed.ctypes.data

    def export(self, array: Any) -> int:
        """Export an Arrow array; return the index of its struct."""
        array._export_to_c(self.address + 8 * memory.ARROW_ARRAY * self.exported)
        self.exported += 1
        return self.exported - 1

    def encode_strings(self, texts: list[Any]) -> int:
        """Encode a few strings as an exported Arrow array, without Arrow; return the index of its struct.

        Raises ValueError or TypeError for a value that is neither a str that can be encoded nor missing.
        """
        data, present = [], 0
        for index, text in enumerate(texts):
            if type(text) is str:
                data.append(text.encode())
                present |= 1 << index
            elif text is None or text != text:
                data.append(b"")
            else:
                raise TypeError(text)
        count = len(texts)
        offsets = struct.pack(f"{count + 1}i", *accumulate(map(len, data), initial=0))
        validity = present.to_bytes(-(-count // 8), "little")
        buffer = np.frombuffer(b"".join((offsets, validity, *data)), np.uint8)
        self.buffers_in_use.append(buffer)
        address = buffer.ctypes.data
        self.buffers[:] = address + len(offsets), address, address + len(offsets) + len(validity)
        # The words of memory.ARROW_ARRAY; there is no callback to release it.
        missing = count - present.bit_count()
        self.structs[self.exported] = count, missing, 0, 3, 0, self.buffers.ctypes.data, 0, 0, 0, 0
        self.exported += 1
        return self.exported - 1

    def close(self) -> None:
        """Release the columns."""
        if self.exported:
            memory.release(self.address, self.exported)
            self.exported = 0
        self.buffers_in_use.clear()


class Reader:
    """Finds the columns of a transform in data of any form; counts values that can't be read."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.inputs = tuple(inputs)
        self.errors: Counter[str] = Counter()
        self._names = [field.name for field in self.inputs]
        self._free: list[Sources] = []
        self._batch_layout: tuple[Any, tuple[Array, Array] | None] = None, None
        self._unjoined_plan = Plan.of(self.inputs, [NO_ARRAY] * len(self.inputs))
        self._plan: tuple[list[Any], Plan] = [], self._unjoined_plan

    @contextmanager
    def open(self, data: Any) -> Iterator[Sources]:
        """Yield the sources of a record batch, a mapping or data of any other form.

        Raises BadRequest with the column's name if it is missing, of another type or of another length than
        the rest, and for its first value that can't be read.
        """
        sources = self.acquire(data)
        try:
            yield sources
        finally:
            self.release(sources)

    def acquire(self, data: Any, first: int = 0) -> Sources:
        """As `open`, but the caller must `release` the sources: this is faster for a single row.

        Row numbers in errors start at `first`.
        """
        sources = self._free.pop() if self._free else Sources(len(self.inputs))
        try:
            if hasattr(data, "_export_to_c") and hasattr(data, "schema"):
                self._locate_batch(data, first, sources)
            else:
                self._locate_columns(data, first, sources)
        except BaseException:
            self.release(sources)
            raise
        return sources

    def release(self, sources: Sources) -> None:
        """Close sources and keep them for another `acquire`."""
        sources.close()
        self._free.append(sources)

    def _locate_batch(self, batch: Any, first: int, sources: Sources) -> None:
        schema = batch.schema
        cached_schema, layout = self._batch_layout
        if cached_schema is None or not schema.equals(cached_schema):
            layout = self._layout_of(schema)
            self._batch_layout = schema, layout
        if layout is None:
            self._locate_columns(mapping_of(schema.names, batch.columns), first, sources)
            return
        children, sources.table[:] = layout
        batch._export_to_c(sources.address)
        sources.exported = 1
        sources.rows = memory.locate(sources.address, children, sources.table)

    def _layout_of(self, schema: Any) -> tuple[Array, Array] | None:
        """Return each input's child and the table of layouts; None if one must be converted or is missing."""
        layouts, children = [], []
        for field in self.inputs:
            index = schema.get_field_index(field.name)
            layout = arrow_layout(field, schema.field(index).type) if index >= 0 else None
            if layout is None:
                return None
            layouts.append(layout)
            children.append(index)
        table = np.zeros((len(layouts), memory.FIELDS), np.int64)
        table[:, [memory.KIND, memory.STRIDE, memory.PER_SECOND]] = layouts
        return np.array(children, np.int64), table

    def _locate_columns(self, data: Any, first: int, sources: Sources) -> None:
        """Read columns by name: a few rows of numpy columns joined if possible, the rest one by one."""
        columns = self._columns(data)
        dtypes = [column.dtype if type(column) is ndarray else NO_ARRAY for column in columns]
        cached_dtypes, plan = self._plan
        if dtypes != cached_dtypes:
            plan = Plan.of(self.inputs, dtypes)
            self._plan = dtypes, plan
        try:
            rows = _join(plan, columns, sources)
        except (ValueError, TypeError):  # can't be joined: one by one, which also finds an invalid value
            sources.close()
            plan, rows = self._unjoined_plan, -1
        self._locate(plan, columns, rows, first, sources)

    def _columns(self, data: Any) -> list[Any]:
        """Return the columns of the inputs, in their order; BadRequest for the first that is missing."""
        columns = data if isinstance(data, Mapping) else by_name(data)
        try:
            return list(map(columns.__getitem__, self._names))
        except KeyError:
            columns = columns_of(columns)  # an array of several columns numbers them
        for field in self.inputs:
            if field.name not in columns:
                expected = f"expected {WORDS[field.kind]}, got nothing"
                raise BadRequest(f"column {field.name!r}: {expected}; there are: {listed(columns)}")
        return [columns[name] for name in self._names]

    def _locate(self, plan: Plan, columns: list[Any], rows: int, first: int, sources: Sources) -> None:
        """Locate all columns, reading those that are not joined; `rows` is -1 if none was joined."""
        sources.table[:] = plan.table
        locations = plan.locations
        if plan.unjoined:
            locations = locations.copy()
            for index in plan.unjoined:
                field = self.inputs[index]
                column = make_readable(field, columns[index], self.errors, first)
                if rows >= 0 and len(column) != rows:
                    raise BadRequest(
                        f"column {field.name!r}: expected {rows} rows like the others, got {len(column)}"
                    )
                rows = len(column)
                self._locate_unjoined(index, column, locations, sources)
        memory.locate_joined(sources.address, sources.packed_address, rows, locations, sources.table)
        sources.rows = rows

    def _locate_unjoined(self, index: int, column: Any, locations: Array, sources: Sources) -> None:
        """Locate a column that is not joined."""
        field, address = self.inputs[index], 0
        if isinstance(column, ndarray):
            kind, stride, per_second = numpy_layout(field, column.dtype, column.strides[0])  # type: ignore[misc]
            sources.buffers_in_use.append(column)
            address = column.ctypes.data
        else:
            kind, stride, per_second = arrow_layout(field, column.type)  # type: ignore[misc]  # it is readable
            locations[index, 0] = sources.export(column)
        _ROW.pack_into(sources.table.data, _ROW.size * index, kind, address, 0, 0, 0, stride, per_second)


def _join(plan: Plan, columns: list[Any], sources: Sources) -> int:
    """Copy a few rows of columns together; return the number of rows.

    Raises ValueError or TypeError, or Arrow's subclasses of them, for columns that can't be joined.
    """
    lengths = {*map(len, columns)}
    if len(lengths) != 1 or max(lengths) > MAX_JOINED_ROWS:
        raise ValueError(lengths)
    rows = lengths.pop()
    stop = len(plan.numbers) * rows
    if plan.numbers:
        np.concatenate([columns[index] for index in plan.numbers], out=sources.packed[:stop])
    if plan.times:
        packed_times = sources.packed_integers[stop : stop + len(plan.times) * rows]
        np.concatenate([columns[index] for index in plan.times], out=packed_times, casting="unsafe")
    if plan.texts:
        texts = [value for index in plan.texts for value in columns[index].tolist()]
        if len(texts) <= MAX_ENCODED_STRINGS:
            sources.encode_strings(texts)
        else:
            sources.export(_to_arrow_strings(texts))
    if plan.time_texts:
        import pyarrow as pa

        time_texts = [value for index in plan.time_texts for value in columns[index].tolist()]
        sources.export(_to_arrow_strings(time_texts).cast(pa.timestamp("us")))
    return rows


def _to_arrow_strings(values: list[Any]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.string(), from_pandas=True)
