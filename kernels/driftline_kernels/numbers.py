"""Parse JSON arrays of numbers directly into a tensor's memory, correctly rounded.

Kernels report text that they do not recognise; their callers then use another parser.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from driftline_kernels.decimals import (
    ASCII_ZEROS,
    INFINITY_BITS,
    float_bits,
    leading_digits,
    long_float_bits,
    read_digits,
    value_of_digits,
    word,
)
from driftline_kernels.device import body, driver
from driftline_kernels.intrinsics import store
from driftline_kernels.memory import (
    BITS,
    FLOAT32,
    FLOAT64,
    INT8,
    INT16,
    INT32,
    INT64,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    address_of,
    load,
)
from driftline_kernels.powers import EXACT_COUNT, EXACT_POWERS, MAX_DIGITS, POWERS_OF_TEN

UNKNOWN = -(1 << 62)
"""The result for text that can't be read here: not numbers, too large ones, another shape."""

INDEX_BITS = 31
"""Bits of a number's index, and of its position in the text, in the result for a hard one."""

_NULL = np.uint64(0x6C6C756E)
_TRUE = np.uint64(0x65757274)
_FALSE = np.uint64(0x65736C6166)
_NAN = np.uint64(0x4E614E)
_INFINITY = np.uint64(0x7974696E69666E49)
_OPEN, _CLOSE, _COMMA, _POINT, _MINUS, _PLUS, _ZERO, _E = b"[],.-+0e"
_EXACT_INTEGERS = np.uint64(10**15)
"""float64 has all whole numbers below this. It has some with a digit more, but testing for them would be a
branch that the CPU can't predict."""
_PLAIN_RETRY = 32
"""How many numbers are read the general way after one that `read_plain` does not take."""
_MAX_POWER = 1 << 40
"""The limit of an exponent: no text is long enough to make up for it with digits."""


@body
def max_magnitude(kind: int, negative: int) -> Any:
    """Return the largest magnitude of an integer of a kind and sign."""
    if kind >= UINT8:
        return np.uint64(0) if negative else ~np.uint64(0) >> np.uint64(64 - (8 << (kind - UINT8)))
    return (np.uint64(1) << np.uint64((8 << (kind - INT8)) - 1)) - np.uint64(1) + np.uint64(negative)


@body
def store_float(out: int, index: int, kind: int, value: float) -> None:
    """Write a float64, cast to the kind."""
    if kind == FLOAT32:
        store(out + 4 * index, np.float32(value))
    else:
        store(out + 8 * index, value)


@body
def store_integer(out: int, index: int, kind: int, value: Any) -> None:
    """Write the lower bytes of an integer."""
    if kind in (INT64, UINT64):
        store(out + 8 * index, value)
    elif kind in (INT32, UINT32):
        store(out + 4 * index, np.uint32(value))
    elif kind in (INT16, UINT16):
        store(out + 2 * index, np.uint16(value))
    else:
        store(out + index, np.uint8(value))


@body
def skip_space(cursor: int) -> int:
    """Return the address of the next character that is not white space."""
    character = load(cursor, np.uint8)
    while character <= 32:  # rarely; only then compare it with each
        if character != 32 and character != 10 and character != 13 and character != 9:
            break
        cursor += 1
        character = load(cursor, np.uint8)
    return cursor


@body
def read_literal(cursor: int, last_word: int, out: int, index: int, kind: int, negative: bool) -> int:
    """Read null, true, false, NaN or Infinity, if the kind has it; return its end, or 0.

    `negative` means that a minus precedes it, which only Infinity may have.
    """
    w = word(cursor, last_word)
    if kind <= FLOAT64 and w == _INFINITY:
        store_float(out, index, kind, -np.inf if negative else np.inf)
        return cursor + 8
    if negative:
        return 0
    if kind <= FLOAT64 and w & np.uint64(0xFFFFFFFF) == _NULL:
        store_float(out, index, kind, np.nan)
        return cursor + 4
    if kind <= FLOAT64 and w & np.uint64(0xFFFFFF) == _NAN:
        store_float(out, index, kind, np.nan)
        return cursor + 3
    if kind == BITS and w & np.uint64(0xFFFFFFFF) == _TRUE:
        store(out + index, np.uint8(1))
        return cursor + 4
    if kind == BITS and w & np.uint64(0xFFFFFFFFFF) == _FALSE:
        store(out + index, np.uint8(0))
        return cursor + 5
    return 0


@body
def read_exponent(cursor: int) -> Any:
    """Return the end of an exponent's digits, 0 if there are none, and the exponent."""
    character = load(cursor, np.uint8)
    negative = character == _MINUS
    if negative or character == _PLUS:
        cursor += 1
    start, exponent = cursor, 0
    digit = load(cursor, np.uint8) - _ZERO
    while 0 <= digit <= 9:
        exponent = min(10 * exponent + digit, _MAX_POWER)
        cursor += 1
        digit = load(cursor, np.uint8) - _ZERO
    return (cursor if cursor > start else 0), (-exponent if negative else exponent)


@body
def read_number(cursor: int, last_word: int, out: int, index: int, kind: int) -> int:
    """Read one number; return its end, or 0 if it isn't one, or -1 if it can't be rounded here."""
    negative = load(cursor, np.uint8) == _MINUS
    cursor += int(negative)
    start = cursor
    value = np.uint64(load(cursor, np.uint8)) - np.uint64(_ZERO)
    if value <= np.uint64(9) and load(cursor + 1, np.uint8) == _POINT:  # at the end of the text there is none
        cursor += 1  # the likely case, separate so that the next load need not wait for a count of digits
    else:
        cursor, value = read_digits(cursor, last_word, np.uint64(0))
    digits = cursor - start
    if digits == 0 or (digits > 1 and load(start, np.uint8) == _ZERO):
        return 0 if digits > 0 else read_literal(cursor, last_word, out, index, kind, negative)
    fraction, power, is_integer = 0, 0, True
    if load(cursor, np.uint8) == _POINT:
        point = cursor
        cursor, value = read_digits(cursor + 1, last_word, value)
        fraction = cursor - point - 1
        is_integer = False
        if fraction == 0:
            return 0
    end = cursor
    if load(cursor, np.uint8) | 0x20 == _E:
        cursor, power = read_exponent(cursor + 1)
        is_integer = False
        if cursor == 0:
            return 0
    if kind > FLOAT64:
        if not is_integer or digits > MAX_DIGITS or kind == BITS or value > max_magnitude(kind, negative):
            return 0
        store_integer(out, index, kind, np.uint64(0) - value if negative else value)
        return cursor
    # The integer -0 is 0, as in Python. Not with `and`: half of the branches would be mispredicted.
    sign = int(negative) & (1 - (int(is_integer) & int(value == np.uint64(0))))
    is_short, scale = digits + fraction <= MAX_DIGITS, fraction - power
    if value < _EXACT_INTEGERS and is_short and 0 <= scale < EXACT_COUNT:
        # The quotient of two exact float64 is rounded once (Clinger, 1990).
        divisor = EXACT_POWERS[np.uint64(scale + EXACT_COUNT * sign)]
        store_float(out, index, kind, np.float64(np.int64(value)) / divisor)
        return cursor
    if is_short:
        bits = float_bits(value, -scale)
    else:
        bits, is_certain = long_float_bits(start, end, power)
        if not is_certain:
            return -1
    if bits == INFINITY_BITS:
        return 0
    bits |= np.uint64(sign) << np.uint64(63)
    store_float(out, index, kind, np.uint64(bits).view(np.float64))
    return cursor


@body
def read_plain(cursor: int, last_word: int, out: int, index: int, stop: int, kind: int) -> Any:
    """Read numbers of the usual form up to index `stop`; return the address and index of the first other one.

    They have a digit before the point, up to 14 after it and no exponent; a comma follows, and no space.
    All take the same steps: the sign, and whether there are seven digits or eight, can't be predicted.
    """
    while index < stop and cursor + 24 <= last_word:
        negative = int(load(cursor, np.uint8) == _MINUS)
        value = np.uint64(load(cursor + negative, np.uint8)) - np.uint64(_ZERO)
        point = cursor + negative + 1
        if value > np.uint64(9) or load(point, np.uint8) != _POINT:
            break
        head, tail = load(point + 1, np.uint64) ^ ASCII_ZEROS, load(point + 9, np.uint64) ^ ASCII_ZEROS
        digits, tail_digits = leading_digits(head), leading_digits(tail)
        tail_digits = tail_digits if digits == 8 else 0
        scale = digits + tail_digits
        end = point + 1 + scale
        if not 0 < scale < 15 or load(end, np.uint8) != _COMMA or load(end + 1, np.uint8) <= 32:
            break
        value = value * POWERS_OF_TEN[np.uint64(digits)] + value_of_digits(head, digits)
        value = value * POWERS_OF_TEN[np.uint64(tail_digits)] + value_of_digits(tail, tail_digits)
        divisor = EXACT_POWERS[np.uint64(scale + EXACT_COUNT * negative)]
        store_float(out, index, kind, np.float64(np.int64(value)) / divisor)
        cursor = end + 1
        index += 1
    return cursor, index


@body
def size_of(kind: int) -> int:
    """Return the bytes of a number."""
    if kind <= FLOAT64:
        return 4 << kind
    if kind == BITS:
        return 1
    return 1 << (kind - (INT8 if kind < UINT8 else UINT8))


@driver
def read(
    text: Any, start: int, stop: int, out: Any, kind: int, row: int, plane: int, block: int, first: int
) -> int:
    """Read a JSON array of numbers, flat or nested, up to four levels.

    text   holds the array in text[start:stop], with its outer brackets; under 2^PLACES bytes
    out    (bytes,) uint8, written, in part if the array can't be read; the array has as many numbers as fit
    kind   of the numbers, as in memory, FLOAT32 to BITS: float64 that are cast, with NaN, null for NaN, and
           Infinity; integers in the type's range; or true and false, as bytes
    row    numbers in the lists of the lowest level, if nested, else 0
    plane  numbers in the lists of the level above, if any, else 0
    block  numbers in the lists of the level above that, if any, else 0
    first  0; or, to continue after a number, the index of the next one, with `start` at the end of that
           number. Only then `row` must be 0 if the array is flat

    Returns -1 if all of a flat array was read, -levels if all of a nested one; UNKNOWN; or, from 0 on, a
    number that can't be rounded here: (its position in the text << PLACES) + its index.
    """
    base, target = address_of(text), address_of(out)
    last_word, end, cursor = base + len(text) - 8, base + stop, base + start
    count, index = len(out) // size_of(kind), first
    if len(text) < 8 or count == 0:
        return UNKNOWN
    levels = 1 + int(row > 0) + int(plane > 0) + int(block > 0)
    after_number, retry = first > 0, 0
    if not after_number:
        depth = 0
        while load(cursor, np.uint8) == _OPEN:
            depth += 1
            cursor = skip_space(cursor + 1)
        if depth != levels and depth != 1:
            return UNKNOWN
        levels = depth
    row = row if levels > 1 else count
    row_end = index + row - (index - 1) % row - 1 if after_number else row
    while True:
        if not after_number:
            if kind <= FLOAT64 and index >= retry:
                retry = index
                cursor, index = read_plain(cursor, last_word, target, index, row_end - 1, kind)
                retry = index if index > retry else index + _PLAIN_RETRY
            begin = cursor
            cursor = read_number(cursor, last_word, target, index, kind)
            if cursor <= 0:
                return UNKNOWN if cursor == 0 else ((begin - base) << INDEX_BITS) + index
            index += 1
        after_number = False
        cursor = skip_space(cursor)
        closing = 0
        if index == row_end:
            row_end += row
            closing = 1 + int(levels > 2 and index % plane == 0) + int(levels > 3 and index % block == 0)
            closing = levels if index == count else closing
            for level in range(closing):
                if load(cursor, np.uint8) != _CLOSE:
                    return UNKNOWN
                cursor += 1
                if cursor == end:
                    return -levels if index == count and level == levels - 1 else UNKNOWN
                cursor = skip_space(cursor)
            if index == count:
                return UNKNOWN
        if load(cursor, np.uint8) != _COMMA:
            return UNKNOWN
        cursor = skip_space(cursor + 1)
        for _ in range(closing):
            if load(cursor, np.uint8) != _OPEN:
                return UNKNOWN
            cursor = skip_space(cursor + 1)
