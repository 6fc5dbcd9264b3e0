"""How many bytes an Arrow stream has when it is decompressed, as its messages say: before that is done.

The formats are Arrow's, `format/Message.fbs`, and FlatBuffers', https://flatbuffers.dev/internals.
"""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa

_HEADER_TYPE, _HEADER = 1, 2
"""Fields of a Message."""
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
"""Types of headers."""
_DATA = 1
"""The field of a DictionaryBatch that is a RecordBatch."""
_BUFFERS, _COMPRESSION = 2, 3
"""Fields of a RecordBatch."""


def size_of(body: bytes) -> int:
    """Bytes of what is compressed in a stream, decompressed; what pyarrow or struct raises if it is none."""
    return sum(_size_of(message) for message in pa.ipc.MessageReader.open_stream(body))


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
        if length > 0:  # each begins with its size, or -1 if it is as it was
            size += max(0, struct.unpack_from("<q", body, offset)[0])
    return size


def _field(data: memoryview, table: int, number: int) -> int:
    """Where a field of a table is; 0 if it is not there."""
    offsets = table - int(struct.unpack_from("<i", data, table)[0])
    place = 4 + 2 * number
    if place >= struct.unpack_from("<H", data, offsets)[0]:
        return 0
    offset = int(struct.unpack_from("<H", data, offsets + place)[0])
    return table + offset if offset else 0


def _target(data: memoryview, at: int) -> int:
    """Where what is referred to at a place is."""
    return at + int(struct.unpack_from("<I", data, at)[0])
