"""Look up the codes of strings, directly in Arrow's buffers, among known categories, by a 64-bit hash.

A table of categories uses open addressing with linear probing, at most half full; it compares the categories'
bytes, so codes are exact despite collisions. There is one for integers, too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline_kernels.device import blocks_for, body, driver, grid, on_cpu

cuda: Any = None  # numba.cuda, bound before the first launch

MISSING = -1
"""The code of a row that Arrow's validity bitmap marks as null."""

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)


class Table(NamedTuple):
    """Known strings; all arrays on one device.

    slots    (a power of two,) int32; the code of the string that hashes there, or -1
    offsets  (n + 1,) int64; where each string starts in `data`
    data     (bytes,) uint8
    """

    slots: Any
    offsets: Any
    data: Any


class IntegerTable(NamedTuple):
    """Known integers; all arrays on one device.

    slots  (a power of two,) int32; the code of the integer that hashes there, or -1
    categories  (n,) int64
    """

    slots: Any
    categories: Any


def build_table(offsets: NDArray[Any], data: NDArray[np.uint8]) -> Table:
    """Return the table of n distinct strings, whose codes are their indices, on the CPU.

    offsets  (n + 1,) int32 or int64, Arrow's
    data     (bytes,) uint8, Arrow's
    """
    table = Table(_empty_slots(len(offsets) - 1), np.asarray(offsets, np.int64), data)
    _build(*table)
    return table


def build_integer_table(categories: NDArray[np.int64]) -> IntegerTable:
    """Return the table of n distinct integers, whose codes are their indices, on the CPU."""
    table = IntegerTable(_empty_slots(len(categories)), categories)
    _build_integers(*table)
    return table


def look_up(
    offsets: Any, data: Any, validity: Any, first_bit: int, table: Table, unseen: int, codes: Any
) -> None:
    """Set `codes` to each string's index in the table, `unseen` if it is not there, -1 if it is null.

    offsets    (rows + 1,) int32 or int64, Arrow's, of these rows; on cpu or cuda, as all arrays
    data       (bytes,) uint8, Arrow's UTF-8
    validity   (bytes,) uint8, Arrow's bitmap, in which row 0 is bit `first_bit`; empty if no row is null
    table      of build_table
    codes      (rows,) int32, written
    """
    if on_cpu(codes):
        _look_up(offsets, data, validity, first_bit, *table, unseen, codes)
    else:
        _look_up_cuda(blocks_for(len(codes)), offsets, data, validity, first_bit, *table, unseen, codes)


def look_up_integers(
    values: Any, validity: Any, first_bit: int, table: IntegerTable, unseen: int, codes: Any
) -> None:
    """As `look_up`, for values (rows,) int64 and a table of build_integer_table."""
    if on_cpu(codes):
        _look_up_integers(values, validity, first_bit, *table, unseen, codes)
    else:
        _look_up_integers_cuda(blocks_for(len(codes)), values, validity, first_bit, *table, unseen, codes)


def _empty_slots(count: int) -> NDArray[np.int32]:
    return np.full(1 << (2 * count).bit_length(), -1, np.int32)


@body
def rotate_left(x: Any, bits: int) -> Any:
    """Return x with its bits rotated to the left."""
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@body
def word(data: Any, start: int, size: int) -> Any:
    """Return `size` bytes as a little-endian number."""
    total = np.uint64(0)
    for i in range(size):
        total |= np.uint64(data[np.uint64(start + i)]) << np.uint64(8 * i)
    return total


@body
def mix_lane(lane: Any, x: Any) -> Any:
    """Return a lane of the hash after the next eight bytes."""
    return rotate_left(lane + x * _P2, 31) * _P1


@body
def avalanche(h: Any) -> Any:
    """Return a hash after the final mixing, in which all bits affect all others."""
    h = (h ^ (h >> np.uint64(33))) * _P2
    h = (h ^ (h >> np.uint64(29))) * _P3
    return h ^ (h >> np.uint64(32))


@body
def hash_stripes(data: Any, start: int, stop: int) -> Any:
    """Return the hash of all 32-byte blocks of a string, of which there is at least one."""
    a, b, c, d = _P1 + _P2, _P2, np.uint64(0), np.uint64(0) - _P1
    for position in range(start, stop - 31, 32):
        a, b = mix_lane(a, word(data, position, 8)), mix_lane(b, word(data, position + 8, 8))
        c, d = mix_lane(c, word(data, position + 16, 8)), mix_lane(d, word(data, position + 24, 8))
    h = rotate_left(a, 1) + rotate_left(b, 7) + rotate_left(c, 12) + rotate_left(d, 18)
    for lane in (a, b, c, d):
        h = (h ^ mix_lane(np.uint64(0), lane)) * _P1 + _P4
    return h


@body
def hash_of(data: Any, start: int, stop: int) -> Any:
    """Return XXH64, seed 0, of data[start:stop] (Collet: xxHash, doc/xxhash_spec.md)."""
    size = stop - start
    h = hash_stripes(data, start, stop) if size >= 32 else _P5
    h += np.uint64(size)
    position = stop - size % 32
    while position + 8 <= stop:
        h = rotate_left(h ^ mix_lane(np.uint64(0), word(data, position, 8)), 27) * _P1 + _P4
        position += 8
    if position + 4 <= stop:
        h = rotate_left(h ^ (word(data, position, 4) * _P1), 23) * _P2 + _P3
        position += 4
    while position < stop:
        h = rotate_left(h ^ (word(data, position, 1) * _P5), 11) * _P1
        position += 1
    return avalanche(h)


@body
def is_valid(validity: Any, bit: int) -> bool:
    """Return whether a bit of Arrow's bitmap is set, or there is no bitmap."""
    return len(validity) == 0 or (validity[bit >> 3] >> (bit & 7)) & 1 == 1


@body
def equal_bytes(data: Any, start: int, stop: int, other: Any, other_start: int) -> bool:
    """Return whether data[start:stop] equals the bytes of `other` from `other_start` on."""
    i = 0
    while i < stop - start and data[start + i] == other[other_start + i]:
        i += 1
    return i == stop - start


@body
def code_of(
    data: Any, start: int, stop: int, slots: Any, category_offsets: Any, categories: Any, unseen: int
) -> int:
    """Return the code of a string, or `unseen`."""
    slot = hash_of(data, start, stop) & np.uint64(len(slots) - 1)
    while slots[slot] >= 0:
        code = slots[slot]
        begin = category_offsets[code]
        if category_offsets[code + 1] - begin == stop - start and equal_bytes(
            data, start, stop, categories, begin
        ):
            return int(code)
        slot = (slot + np.uint64(1)) & np.uint64(len(slots) - 1)
    return unseen


@body
def code_of_integer(x: int, slots: Any, categories: Any, unseen: int) -> int:
    """Return the code of an integer, or `unseen`."""
    slot = avalanche(np.uint64(x) * _P1) & np.uint64(len(slots) - 1)
    while slots[slot] >= 0:
        code = slots[slot]
        if categories[code] == x:
            return int(code)
        slot = (slot + np.uint64(1)) & np.uint64(len(slots) - 1)
    return unseen


@body
def take_slot(slots: Any, h: Any, code: int) -> None:
    """Put a code into the first free slot from its hash on."""
    slot = h & np.uint64(len(slots) - 1)
    while slots[slot] >= 0:
        slot = (slot + np.uint64(1)) & np.uint64(len(slots) - 1)
    slots[slot] = code


@driver
def _build(slots: Any, offsets: Any, data: Any) -> None:
    for code in range(len(offsets) - 1):
        take_slot(slots, hash_of(data, offsets[code], offsets[code + 1]), code)


@driver
def _build_integers(slots: Any, categories: Any) -> None:
    for code in range(len(categories)):
        take_slot(slots, avalanche(np.uint64(categories[code]) * _P1), code)


@driver
def _look_up(
    offsets: Any,
    data: Any,
    validity: Any,
    first_bit: int,
    slots: Any,
    category_offsets: Any,
    categories: Any,
    unseen: int,
    codes: Any,
) -> None:
    for row in range(len(codes)):
        codes[row] = MISSING
        if is_valid(validity, first_bit + row):
            codes[row] = code_of(
                data, offsets[row], offsets[row + 1], slots, category_offsets, categories, unseen
            )


@driver
def _look_up_integers(
    values: Any, validity: Any, first_bit: int, slots: Any, categories: Any, unseen: int, codes: Any
) -> None:
    for row in range(len(codes)):
        codes[row] = MISSING
        if is_valid(validity, first_bit + row):
            codes[row] = code_of_integer(values[row], slots, categories, unseen)


@grid
def _look_up_cuda(
    offsets: Any,
    data: Any,
    validity: Any,
    first_bit: int,
    slots: Any,
    category_offsets: Any,
    categories: Any,
    unseen: int,
    codes: Any,
) -> None:
    row = cuda.grid(1)
    if row < len(codes):
        codes[row] = MISSING
        if is_valid(validity, first_bit + row):
            codes[row] = code_of(
                data, offsets[row], offsets[row + 1], slots, category_offsets, categories, unseen
            )


@grid
def _look_up_integers_cuda(
    values: Any, validity: Any, first_bit: int, slots: Any, categories: Any, unseen: int, codes: Any
) -> None:
    row = cuda.grid(1)
    if row < len(codes):
        codes[row] = MISSING
        if is_valid(validity, first_bit + row):
            codes[row] = code_of_integer(values[row], slots, categories, unseen)
