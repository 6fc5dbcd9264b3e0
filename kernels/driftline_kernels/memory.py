"""Read columns in place: through Arrow's C data interface, and arrays by their address.

A batch of many columns is passed as one address: getting each buffer in Python takes a microsecond a column,
longer than processing one row of it.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from driftline_kernels.device import body, driver, machine

FIELDS = 7
"""Numbers of one source; their indices follow."""
KIND, VALUES, TEXT, VALIDITY, FIRST, STRIDE, PER_SECOND = range(FIELDS)
"""The fields of a row of sources, int64: one of the kinds below; the addresses of numbers or offsets, of
UTF-8, and of the validity bitmap (0 for none); the row where the column starts; bytes from value to value;
and for times, units per second (negative: seconds per unit), else 0."""

FLOAT32, FLOAT64, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, BITS, STRING, LARGE_STRING = (
    range(13)
)
"""The kinds of columns: numbers, Arrow's booleans, and strings with offsets of four and of eight bytes."""

PACKED, COMPLETE = -1, -2
"""Instead of an Arrow array's index: the column is packed, or its source is complete already."""

ARROW_ARRAY = 10
"""Words of the struct ArrowArray: length, null_count, offset, n_buffers, n_children, buffers, children,
dictionary, release, private_data (Arrow: The Arrow C data interface)."""


@machine
def load(address: int, dtype: Any) -> Any:
    """Return the number of a type at an address."""
    return np.frombuffer(ctypes.string_at(int(address), np.dtype(dtype).itemsize), dtype)[0]


@machine
def call(function: int, argument: int) -> None:
    """Call the function at an address with another address."""
    ctypes.CFUNCTYPE(None, ctypes.c_int64)(int(function))(int(argument))


@machine
def bytes_at(address: int) -> Any:
    """Return all bytes from an address on as an array; the reader knows where the data ends."""
    return _Bytes(address)


class _Bytes:
    def __init__(self, address: int) -> None:
        self._address = int(address)

    def __getitem__(self, index: Any) -> Any:
        return load(self._address + int(index), np.uint8)


@body
def address_of(data: Any) -> int:
    """Return the address of a `bytes` object's bytes or of a contiguous array."""
    return int(np.frombuffer(data, np.uint8).ctypes.data)


@driver
def locate(struct: int, children: Any, sources: Any) -> int:
    """Set the addresses, first rows and bitmaps of `sources` from a struct's children; return its rows.

    struct    address of an ArrowArray of a record batch or struct array
    children  (columns,) int64; the index of each source's child
    sources   (columns, FIELDS) int64, written except kinds, strides and units
    """
    for column in range(len(children)):
        child = load(load(struct + 48, np.int64) + 8 * children[column], np.int64)
        locate_column(child, load(struct + 16, np.int64), sources[column])
    return load(struct, np.int64)  # type: ignore[no-any-return]


@driver
def locate_joined(structs: int, packed: int, rows: int, locations: Any, sources: Any) -> None:
    """Set the addresses, first rows and bitmaps of columns that are concatenated in a few arrays.

    structs    address of an array of ArrowArrays
    packed     address of numbers of eight bytes
    locations  (columns, 2) int64; the index of the ArrowArray that has the column, or PACKED, or COMPLETE for
               one that is left unchanged; and how many columns of `rows` rows precede it there
    sources    (columns, FIELDS) int64, written except kinds, strides and units
    """
    for column in range(len(locations)):
        array, first = locations[column, 0], locations[column, 1] * rows
        if array >= 0:
            locate_column(structs + 8 * ARROW_ARRAY * array, first, sources[column])
        elif array == PACKED:
            sources[column, VALUES], sources[column, FIRST] = packed, first


@body
def locate_column(struct: int, first: int, source: Any) -> None:
    """Set one column's addresses; `first` is the offset of its parent."""
    buffers = load(struct + 40, np.int64)
    source[VALIDITY] = load(buffers, np.int64) if load(struct + 8, np.int64) != 0 else 0
    source[VALUES] = load(buffers + 8, np.int64)
    source[TEXT] = load(buffers + 16, np.int64) if source[KIND] >= STRING else 0
    source[FIRST] = load(struct + 16, np.int64) + first


@driver
def release(structs: int, count: int) -> None:
    """Release `count` exported ArrowArrays from an address on."""
    for index in range(count):
        struct = structs + 8 * ARROW_ARRAY * index
        callback = load(struct + 64, np.int64)
        if callback != 0:
            call(callback, struct)


@body
def read_numbers(source: Any, first: int, rows: int, values: Any) -> None:
    """Read some rows of numbers or times as float64, times in whole seconds; NaN for nulls."""
    kind = source[KIND]
    if kind == FLOAT64:
        _read(source, first, rows, np.float64, values)
    elif kind == FLOAT32:
        _read(source, first, rows, np.float32, values)
    elif kind == INT64:
        if source[PER_SECOND] != 0:
            _read_times(source, first, rows, np.int64, values)
        else:
            _read(source, first, rows, np.int64, values)
    elif kind == INT32:
        if source[PER_SECOND] != 0:
            _read_times(source, first, rows, np.int32, values)
        else:
            _read(source, first, rows, np.int32, values)
    elif kind == BITS:
        for row in range(rows):
            bit = source[FIRST] + first + row
            values[row] = (load(source[VALUES] + (bit >> 3), np.uint8) >> (bit & 7)) & 1
    else:
        _read_other(kind, source, first, rows, values)
    if kind <= FLOAT64 and source[PER_SECOND] != 0:
        for row in range(rows):
            values[row] = np.floor(values[row] / source[PER_SECOND])
    if source[VALIDITY] != 0:
        for row in range(rows):
            if not is_set(source[VALIDITY], source[FIRST] + first + row):
                values[row] = np.nan


@body
def _read_other(kind: int, source: Any, first: int, rows: int, values: Any) -> None:
    if kind == INT8:
        _read(source, first, rows, np.int8, values)
    elif kind == INT16:
        _read(source, first, rows, np.int16, values)
    elif kind == UINT8:
        _read(source, first, rows, np.uint8, values)
    elif kind == UINT16:
        _read(source, first, rows, np.uint16, values)
    elif kind == UINT32:
        _read(source, first, rows, np.uint32, values)
    else:
        _read(source, first, rows, np.uint64, values)


@body
def is_set(bitmap: int, bit: int) -> Any:
    """Return a bit of the bitmap at an address."""
    return (load(bitmap + (bit >> 3), np.uint8) >> (bit & 7)) & 1 == 1


@body
def _read(source: Any, first: int, rows: int, dtype: Any, values: Any) -> None:
    stride = source[STRIDE]
    address = source[VALUES] + (source[FIRST] + first) * stride
    for row in range(rows):
        values[row] = load(address + row * stride, dtype)


@body
def _read_times(source: Any, first: int, rows: int, dtype: Any, values: Any) -> None:
    stride, unit = source[STRIDE], source[PER_SECOND]
    address = source[VALUES] + (source[FIRST] + first) * stride
    for row in range(rows):
        time = np.int64(load(address + row * stride, dtype))
        if time == np.iinfo(np.int64).min:  # numpy's NaT
            values[row] = np.nan
        else:
            values[row] = time // unit if unit > 0 else time * -unit
