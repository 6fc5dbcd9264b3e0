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
    CLOCK,
    WORDS,
    Input,
    Layout,
    arrow_layout,
    by_name,
    named,
    numpy_layout,
    readable,
)
from driftline.tensors import Array
from driftline_kernels import memory

FEW = 256
"""The most rows of numpy columns that are joined: copying all is faster than getting each one's address."""

HANDFUL = 16
"""The most strings that are laid out here: Arrow is no faster for so few, and a server's first response need
not wait for its import, which takes 0.3 s, and 1 s more if pandas is installed."""

NO_ARRAY = "no array"
"""Stands for the dtype of a column that is no array. Not None, which numpy compares as float64."""

_ROW = struct.Struct(f"{memory.FIELDS}q")


@dataclass(frozen=True, slots=True)
class Plan:
    """How few rows of numpy columns are read, by their dtypes. Columns are indices of inputs.

    table    (inputs, memory.FIELDS) int64; kinds, strides and units, as far as they are known
    parts    (inputs, 2) int64; the location of each, see memory.place
    numbers  columns joined to one array of float64, and
    times    to one of int64 after it
    texts    columns joined to one Arrow array of strings, and
    clocks   to one that is parsed to times
    alone    columns read one by one
    """

    table: Array
    parts: Array
    numbers: tuple[int, ...]
    times: tuple[int, ...]
    texts: tuple[int, ...]
    clocks: tuple[int, ...]
    alone: tuple[int, ...]

    @classmethod
    def of(cls, inputs: Sequence[Input], dtypes: Sequence[Any]) -> Plan:
        """Return the plan for columns of these dtypes; those of NO_ARRAY are read one by one."""
        table, parts = np.zeros((len(inputs), memory.FIELDS), np.int64), np.zeros((len(inputs), 2), np.int64)
        ways: dict[str, list[int]] = {"number": [], "time": [], "text": [], "clock": [], "alone": []}
        for index, (each, dtype) in enumerate(zip(inputs, dtypes, strict=True)):
            way, layout = _way(each, dtype)
            ways[way].append(index)
            table[index, [memory.KIND, memory.STRIDE, memory.PER_SECOND]] = layout
        for part, index in enumerate([*ways["number"], *ways["time"]]):
            parts[index] = memory.PACKED, part
        for number, way in enumerate(way for way in ("text", "clock") if ways[way]):
            for part, index in enumerate(ways[way]):
                parts[index] = number, part
        for index in ways["alone"]:
            parts[index] = memory.PLACED, 0
        return cls(table, parts, *map(tuple, ways.values()))


def _way(each: Input, dtype: Any) -> tuple[str, Layout]:
    """Return how a column is read, and its layout then."""
    layout = None if dtype is NO_ARRAY else numpy_layout(each, dtype, 8)
    if layout is not None and each.kind == "number":
        return "number", (memory.FLOAT64, 8, 0)
    if layout is not None and dtype.kind in "Mi":
        return "time", (memory.INT64, 8, layout[2])
    if dtype == object and each.kind == "string":
        return "text", (memory.STRING, 0, 0)
    if dtype == object and each.kind == "datetime":
        return "clock", CLOCK
    return "alone", (0, 0, 0)


class Sources:
    """Columns in memory, in the form that kernels read; valid within `Reader.open`."""

    def __init__(self, count: int) -> None:
        self.table = np.zeros((count, memory.FIELDS), np.int64)
        self.structs = np.zeros((max(count, 1), memory.ARROW_ARRAY), np.int64)
        self.address = self.structs.ctypes.data
        self.buffers = np.zeros(3, np.int64)
        self.exported = 0
        self.rows = 0
        self.kept: list[Any] = []
        self.packed = np.empty(count * FEW)
        self.counted = self.packed.view(np.int64)
        self.packed_at = self.packed.ctypes.data

    def export(self, array: Any) -> int:
        """Export an Arrow array; return the index of its struct."""
        array._export_to_c(self.address + 8 * memory.ARROW_ARRAY * self.exported)
        self.exported += 1
        return self.exported - 1

    def lay(self, texts: list[Any]) -> int:
        """Lay out a few strings as an exported Arrow array, without Arrow; return the index of its struct.

        Raises ValueError or TypeError for a value that is neither a str that can be encoded nor missing.
        """
        data, known = [], 0
        for place, text in enumerate(texts):
            if type(text) is str:
                data.append(text.encode())
                known |= 1 << place
            elif text is None or text != text:
                data.append(b"")
            else:
                raise TypeError(text)
        count = len(texts)
        offsets = struct.pack(f"{count + 1}i", *accumulate(map(len, data), initial=0))
        validity = known.to_bytes(-(-count // 8), "little")
        held = np.frombuffer(b"".join((offsets, validity, *data)), np.uint8)
        self.kept.append(held)
        at = held.ctypes.data
        self.buffers[:] = at + len(offsets), at, at + len(offsets) + len(validity)
        # The words of memory.ARROW_ARRAY; there is no callback to release it.
        missing = count - known.bit_count()
        self.structs[self.exported] = count, missing, 0, 3, 0, self.buffers.ctypes.data, 0, 0, 0, 0
        self.exported += 1
        return self.exported - 1

    def close(self) -> None:
        """Release the columns."""
        if self.exported:
            memory.release(self.address, self.exported)
            self.exported = 0
        self.kept.clear()


class Reader:
    """Finds the columns of a transform in data of any form; counts values that can't be read."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.inputs = tuple(inputs)
        self.errors: Counter[str] = Counter()
        self._names = [each.name for each in self.inputs]
        self._free: list[Sources] = []
        self._laid: tuple[Any, tuple[Array, Array] | None] = None, None
        self._alone = Plan.of(self.inputs, [NO_ARRAY] * len(self.inputs))
        self._plan: tuple[list[Any], Plan] = [], self._alone

    @contextmanager
    def open(self, data: Any) -> Iterator[Sources]:
        """Yield the sources of a record batch, a mapping or data of any other form.

        Raises BadRequest with the column's name if it is missing, of another type or of another length than
        the rest, and for its first value that can't be read.
        """
        sources = self.take(data)
        try:
            yield sources
        finally:
            self.give(sources)

    def take(self, data: Any, first: int = 0) -> Sources:
        """As `open`, but the caller must `give` the sources back: this is faster for a single row.

        Row numbers in errors start at `first`.
        """
        sources = self._free.pop() if self._free else Sources(len(self.inputs))
        try:
            if hasattr(data, "_export_to_c") and hasattr(data, "schema"):
                self._batch(data, first, sources)
            else:
                self._each(data, first, sources)
        except BaseException:
            self.give(sources)
            raise
        return sources

    def give(self, sources: Sources) -> None:
        """Take sources back."""
        sources.close()
        self._free.append(sources)

    def _batch(self, batch: Any, first: int, sources: Sources) -> None:
        schema = batch.schema
        known, layout = self._laid
        if known is None or not schema.equals(known):
            layout = self._laid_out(schema)
            self._laid = schema, layout
        if layout is None:
            self._each(named(schema.names, batch.columns), first, sources)
            return
        children, sources.table[:] = layout
        batch._export_to_c(sources.address)
        sources.exported = 1
        sources.rows = memory.locate(sources.address, children, sources.table)

    def _laid_out(self, schema: Any) -> tuple[Array, Array] | None:
        """Return each input's child and the table of layouts; None if one must be converted or is missing."""
        layouts, children = [], []
        for each in self.inputs:
            index = schema.get_field_index(each.name)
            layout = arrow_layout(each, schema.field(index).type) if index >= 0 else None
            if layout is None:
                return None
            layouts.append(layout)
            children.append(index)
        table = np.zeros((len(layouts), memory.FIELDS), np.int64)
        table[:, [memory.KIND, memory.STRIDE, memory.PER_SECOND]] = layouts
        return np.array(children, np.int64), table

    def _each(self, data: Any, first: int, sources: Sources) -> None:
        """Read columns by name: a few rows of numpy columns joined if possible, the rest one by one."""
        columns = self._columns(data)
        dtypes = [column.dtype if type(column) is ndarray else NO_ARRAY for column in columns]
        known, plan = self._plan
        if dtypes != known:
            plan = Plan.of(self.inputs, dtypes)
            self._plan = dtypes, plan
        try:
            rows = _join(plan, columns, sources)
        except (ValueError, TypeError):  # can't be joined: one by one, which also finds an invalid value
            sources.close()
            plan, rows = self._alone, -1
        self._read(plan, columns, rows, first, sources)

    def _columns(self, data: Any) -> list[Any]:
        """Return the columns of the inputs, in their order; BadRequest for the first that is missing."""
        columns = data if isinstance(data, Mapping) else by_name(data)
        try:
            return list(map(columns.__getitem__, self._names))
        except KeyError:
            columns = columns_of(columns)  # an array of several columns numbers them
        for each in self.inputs:
            if each.name not in columns:
                expected = f"expected {WORDS[each.kind]}, got nothing"
                raise BadRequest(f"column {each.name!r}: {expected}; there are: {listed(columns)}")
        return [columns[name] for name in self._names]

    def _read(self, plan: Plan, columns: list[Any], rows: int, first: int, sources: Sources) -> None:
        """Locate all columns, reading those that are alone; `rows` is -1 if none was joined."""
        sources.table[:] = plan.table
        parts = plan.parts
        if plan.alone:
            parts = parts.copy()
            for index in plan.alone:
                each = self.inputs[index]
                column = readable(each, columns[index], self.errors, first)
                if rows >= 0 and len(column) != rows:
                    raise BadRequest(
                        f"column {each.name!r}: expected {rows} rows like the others, got {len(column)}"
                    )
                rows = len(column)
                self._put(index, column, parts, sources)
        memory.place(sources.address, sources.packed_at, rows, parts, sources.table)
        sources.rows = rows

    def _put(self, index: int, column: Any, parts: Array, sources: Sources) -> None:
        """Locate a column that is read alone."""
        each, address = self.inputs[index], 0
        if isinstance(column, ndarray):
            kind, stride, per_second = numpy_layout(each, column.dtype, column.strides[0])  # type: ignore[misc]
            sources.kept.append(column)
            address = column.ctypes.data
        else:
            kind, stride, per_second = arrow_layout(each, column.type)  # type: ignore[misc]  # it is readable
            parts[index, 0] = sources.export(column)
        _ROW.pack_into(sources.table.data, _ROW.size * index, kind, address, 0, 0, 0, stride, per_second)


def _join(plan: Plan, columns: list[Any], sources: Sources) -> int:
    """Copy a few rows of columns together; return the number of rows.

    Raises ValueError or TypeError, or Arrow's subclasses of them, for columns that can't be joined.
    """
    lengths = {*map(len, columns)}
    if len(lengths) != 1 or max(lengths) > FEW:
        raise ValueError(lengths)
    rows = lengths.pop()
    stop = len(plan.numbers) * rows
    if plan.numbers:
        np.concatenate([columns[index] for index in plan.numbers], out=sources.packed[:stop])
    if plan.times:
        out = sources.counted[stop : stop + len(plan.times) * rows]
        np.concatenate([columns[index] for index in plan.times], out=out, casting="unsafe")
    if plan.texts:
        texts = [value for index in plan.texts for value in columns[index].tolist()]
        if len(texts) <= HANDFUL:
            sources.lay(texts)
        else:
            sources.export(_strings(texts))
    if plan.clocks:
        import pyarrow as pa

        clocks = [value for index in plan.clocks for value in columns[index].tolist()]
        sources.export(_strings(clocks).cast(pa.timestamp("us")))
    return rows


def _strings(values: list[Any]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.string(), from_pandas=True)
