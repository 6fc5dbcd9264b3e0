"""Computes the bytes that columns will take, before they are decompressed or shared values are expanded.

The sizes in an Arrow stream are read from its messages: Arrow's `format/Message.fbs`, in FlatBuffers,
https://flatbuffers.dev/internals.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyarrow as pa

from driftline.columns import is_lists
from driftline.tensors import Array

_HEADER_TYPE, _HEADER = 1, 2
"""Fields of a Message."""
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
"""Types of headers."""
_DATA = 1
"""The field of a DictionaryBatch that is a RecordBatch."""
_BUFFERS, _COMPRESSION = 2, 3
"""Fields of a RecordBatch."""
_EXPANDING = {
    pa.lib.Type_DICTIONARY, pa.lib.Type_NA, pa.lib.Type_RUN_END_ENCODED, pa.lib.Type_STRING_VIEW,
    pa.lib.Type_BINARY_VIEW, pa.lib.Type_LIST_VIEW, pa.lib.Type_LARGE_LIST_VIEW,
}  # fmt: skip
"""Arrow's types whose values are, or may be, the same bytes, or no bytes."""


def size_of(body: bytes) -> int:
    """Return the bytes of a stream's compressed parts when decompressed.

    Raises whatever pyarrow or struct raises if it is no stream.
    """
    return sum(_size_of(message) for message in pa.ipc.MessageReader.open_stream(body))


def decoded_bytes(column: Any) -> int:
    """Return the bytes of an Arrow column's values, each counted as often as it is referred to.

    One text in a dictionary, or under views, may be the value of every row. For numbers, a lower bound.
    """
    return int(_sizes(column).sum()) if may_expand(column.type) else int(column.nbytes)


def may_expand(kind: Any) -> bool:
    """Return whether values of a type may be more bytes than they take in memory."""
    return kind.id in _EXPANDING or any(
        may_expand(kind.field(index).type) for index in range(kind.num_fields)
    )


def _sizes(column: Any) -> Array:
    """Return the bytes of each value."""
    from pyarrow import compute  # takes 50 ms, and most requests don't need it

    kind, types, count = column.type, pa.types, len(column)
    sizes: Array
    if types.is_dictionary(kind):
        distinct = np.append(_sizes(column.dictionary), 0)
        indices = column.indices.cast(pa.int64()).fill_null(len(distinct) - 1)
        sizes = distinct[np.from_dlpack(indices)]
        return sizes
    if is_lists(kind):
        sums = np.append(0, _sizes(column.values).cumsum())
        lengths = np.from_dlpack(compute.list_value_length(column).cast(pa.int64()).fill_null(0))
        if types.is_fixed_size_list(kind):
            starts = (column.offset + np.arange(count)) * kind.list_size
        else:
            starts = np.asarray(column.offsets)[:count]
        sizes = sums[starts + lengths] - sums[starts]
        return sizes
    if types.is_string_view(kind) or types.is_binary_view(kind):  # of 16 bytes, the first 4 are the length
        views = np.frombuffer(column.buffers()[1], np.int32).reshape(-1, 4)
        return views[column.offset : column.offset + count, 0].astype(np.int64)
    if types.is_null(kind):
        return np.full(count, 8)
    try:
        return np.full(count, kind.bit_width // 8)
    except ValueError:
        pass
    if kind.num_fields:  # no model takes types with fields: as many values as bytes, each of all bytes
        return np.full(count, column.nbytes**2)
    return np.from_dlpack(compute.binary_length(column).cast(pa.int64()).fill_null(0))


def _size_of(message: Any) -> int:
    data = memoryview(message.metadata)
    table = _target(data, 0)
    kind, batch = data[_field(data, table, _HEADER_TYPE)], _target(data, _field(data, table, _HEADER))
    if kind == _DICTIONARY_BATCH:
        batch = _target(data, _field(data, batch, _DATA))
    elif kind != _RECORD_BATCH:
        return 0
    if not _field(data, batch, _COMPRESSION):
        return 0
    start = _target(data, _field(data, batch, _BUFFERS))
    (count,) = struct.unpack_from("<I", data, start)
    body, size = memoryview(message.body), 0
    for offset, length in struct.iter_unpack("<qq", data[start + 4 : start + 4 + 16 * count]):
        if length > 0:  # each begins with its size; -1: not compressed
            size += max(0, struct.unpack_from("<q", body, offset)[0])
    return size


def _field(data: memoryview, table: int, number: int) -> int:
    """Return where a field of a table is; 0 if it is absent."""
    offsets = table - int(struct.unpack_from("<i", data, table)[0])
    entry = 4 + 2 * number
    if entry >= struct.unpack_from("<H", data, offsets)[0]:
        return 0
    offset = int(struct.unpack_from("<H", data, offsets + entry)[0])
    return table + offset if offset else 0


def _target(data: memoryview, position: int) -> int:
    """Return the position that the offset at a position points to."""
    return position + int(struct.unpack_from("<I", data, position)[0])
