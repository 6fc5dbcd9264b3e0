"""Parse numbers in JSON text directly into a tensor's memory: eight digits at a time, correctly rounded.

Clinger: How to read floating-point numbers accurately, 1990; Lemire: Number parsing at a gigabyte per second,
2021; Mushtak, Lemire: Fast number parsing without fallback, 2023. Kernels report text that they do not
recognise; their callers then use another parser.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.cpython.unsafe import numbers as unsafe
from numba.extending import intrinsic

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
from driftline_kernels.powers import DIGITS, EXACT, EXACTS, FIVES, LEAST, MOST, TENS

UNKNOWN = -(1 << 62)
"""The result for text that can't be read here: not numbers, too large ones, another shape."""

PLACES = 31
"""Bits of a number's index, and of its position in the text, in the result for a hard one."""

_ZEROS = np.uint64(0x3030303030303030)
_ABOVE = np.uint64(0x7676767676767676)
_TOPS = np.uint64(0x8080808080808080)
_NULL = np.uint64(0x6C6C756E)
_TRUE = np.uint64(0x65757274)
_FALSE = np.uint64(0x65736C6166)
_NAN = np.uint64(0x4E614E)
_INFINITY = np.uint64(0x7974696E69666E49)
_INFINITE = np.uint64(0x7FF0000000000000)
_OPEN, _CLOSE, _COMMA, _POINT, _MINUS, _PLUS, _ZERO, _E = b"[],.-+0e"
_SHORT = np.uint64(10**15)
"""float64 has all whole numbers below this. It has some with a digit more, but testing for them would be a
branch that the CPU can't predict."""
_UNLIKE = 32
"""How many numbers are read the general way after one that `read_plain` does not take."""
_FURTHEST = 1 << 40
"""The limit of an exponent: no text is long enough to make up for it with digits."""


@intrinsic
def _upper_product(typing: Any, a: Any, b: Any) -> Any:
    """Return the upper half of the product of two uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = [builder.zext(argument, ir.IntType(128)) for argument in arguments]
        upper = builder.lshr(builder.mul(*wide), ir.Constant(ir.IntType(128), 64))
        return builder.trunc(upper, ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


upper_product: Any = _upper_product
leading_zeros: Any = unsafe.leading_zeros
trailing_zeros: Any = unsafe.trailing_zeros


@body
def word(at: int, last: int) -> Any:
    """Return eight characters from an address on, which is at most the text's end, with zeros after the end;
    `last` is the address of the text's last eight."""
    if at <= last:
        return load(at, np.uint64)
    half = np.uint64(4 * (at - last))  # in halves, as a shift by 64 would do nothing
    return load(last, np.uint64) >> half >> half


@body
def leading_digits(w: Any) -> Any:
    """Return how many of eight characters are leading digits; `w` is xor'd with _ZEROS."""
    return np.int64(trailing_zeros(((w + _ABOVE) | w) & _TOPS)) >> 3


@body
def value_of_digits(w: Any, digits: int) -> Any:
    """Return the number in the first `digits` of eight characters; `w` is xor'd with _ZEROS."""
    half = np.uint64(32 - 4 * digits)
    return value_of_eight(w << half << half)  # in halves, as a shift by 64 would do nothing


@body
def value_of_eight(w: Any) -> Any:
    """Return the number in eight digits; `w` is xor'd with _ZEROS."""
    w = w * np.uint64(10) + (w >> np.uint64(8))
    pairs, mask = np.uint64(0x000F424000000064), np.uint64(0x000000FF000000FF)
    fours = np.uint64(0x0000271000000001)
    return ((w & mask) * pairs + ((w >> np.uint64(16)) & mask) * fours) >> np.uint64(32)


@body
def float_bits(w: Any, q: int) -> Any:
    """Return the bits of the float64 nearest to w * 10^q; w < 2^64. Ties go to even."""
    if w == np.uint64(0) or q < LEAST:
        return np.uint64(0)
    if q > MOST:
        return _INFINITE
    zeros = np.int64(leading_zeros(w))
    w <<= np.uint64(zeros)
    place = np.uint64(q - LEAST)
    five = FIVES[place, np.uint64(0)]
    high, low = upper_product(w, five), w * five
    if high & np.uint64(0x1FF) == np.uint64(0x1FF):
        more = upper_product(w, FIVES[place, np.uint64(1)])
        low += more
        high += np.uint64(more > low)
    upper = high >> np.uint64(63)
    shift = upper + np.uint64(9)
    mantissa = high >> shift
    exponent = (((152170 + 65536) * q) >> 16) + 63 + np.int64(upper) - zeros + 1023
    if exponent <= 0:
        if exponent < -62:
            return np.uint64(0)
        mantissa >>= np.uint64(1 - exponent)
        mantissa += mantissa & np.uint64(1)
        return mantissa >> np.uint64(1)  # if it is 2^52 now, it is the least normal number
    if low <= np.uint64(1) and -4 <= q <= 23 and mantissa & np.uint64(3) == np.uint64(1):
        if mantissa << shift == high:
            mantissa &= ~np.uint64(1)
    mantissa += mantissa & np.uint64(1)
    mantissa >>= np.uint64(1)
    bits = mantissa + (np.uint64(exponent - 1) << np.uint64(52))  # a mantissa of 2^53 carries over
    return bits if bits < _INFINITE else _INFINITE


@body
def careful_bits(at: int, stop: int, exponent: int) -> Any:
    """As float_bits, of a number of over 19 digits in at..stop, times 10^exponent; also return if it is sure.

    It is sure if the two numbers of 19 digits around it have the same nearest float64.
    """
    w, kept, q, fraction, inexact = np.uint64(0), 0, exponent, 0, False
    while at < stop:
        character = load(at, np.uint8)
        at += 1
        if character == _POINT:
            fraction = 1
        elif kept < DIGITS:
            w = w * np.uint64(10) + np.uint64(character - _ZERO)
            kept += int(w > np.uint64(0))
            q -= fraction
        else:
            inexact |= character != _ZERO
            q += 1 - fraction
    bits = float_bits(w, q)
    return bits, not inexact or bits == float_bits(w + np.uint64(1), q)


@body
def most(kind: int, negative: int) -> Any:
    """Return the largest magnitude of an integer of a kind and sign."""
    if kind >= UINT8:
        return np.uint64(0) if negative else ~np.uint64(0) >> np.uint64(64 - (8 << (kind - UINT8)))
    return (np.uint64(1) << np.uint64((8 << (kind - INT8)) - 1)) - np.uint64(1) + np.uint64(negative)


@body
def put_float(out: int, place: int, kind: int, value: float) -> None:
    """Write a float64, cast to the kind."""
    if kind == FLOAT32:
        store(out + 4 * place, np.float32(value))
    else:
        store(out + 8 * place, value)


@body
def put_integer(out: int, place: int, kind: int, value: Any) -> None:
    """Write the lower bytes of an integer."""
    if kind in (INT64, UINT64):
        store(out + 8 * place, value)
    elif kind in (INT32, UINT32):
        store(out + 4 * place, np.uint32(value))
    elif kind in (INT16, UINT16):
        store(out + 2 * place, np.uint16(value))
    else:
        store(out + place, np.uint8(value))


@body
def behind_space(at: int) -> int:
    """Return the address of the next character that is not white space."""
    character = load(at, np.uint8)
    while character <= 32:  # rarely; only then compare it with each
        if character != 32 and character != 10 and character != 13 and character != 9:
            break
        at += 1
        character = load(at, np.uint8)
    return at


@body
def read_literal(at: int, last: int, out: int, place: int, kind: int, negative: bool) -> int:
    """Read null, true, false, NaN or Infinity, if the kind has it; return its end, or 0.

    `negative` means that a minus precedes it, which only Infinity may have.
    """
    w = word(at, last)
    if kind <= FLOAT64 and w == _INFINITY:
        put_float(out, place, kind, -np.inf if negative else np.inf)
        return at + 8
    if negative:
        return 0
    if kind <= FLOAT64 and w & np.uint64(0xFFFFFFFF) == _NULL:
        put_float(out, place, kind, np.nan)
        return at + 4
    if kind <= FLOAT64 and w & np.uint64(0xFFFFFF) == _NAN:
        put_float(out, place, kind, np.nan)
        return at + 3
    if kind == BITS and w & np.uint64(0xFFFFFFFF) == _TRUE:
        store(out + place, np.uint8(1))
        return at + 4
    if kind == BITS and w & np.uint64(0xFFFFFFFFFF) == _FALSE:
        store(out + place, np.uint8(0))
        return at + 5
    return 0


@body
def read_exponent(at: int) -> Any:
    """Return the end of an exponent's digits, 0 if there are none, and the exponent."""
    character = load(at, np.uint8)
    negative = character == _MINUS
    if negative or character == _PLUS:
        at += 1
    start, exponent = at, 0
    digit = load(at, np.uint8) - _ZERO
    while 0 <= digit <= 9:
        exponent = min(10 * exponent + digit, _FURTHEST)
        at += 1
        digit = load(at, np.uint8) - _ZERO
    return (at if at > start else 0), (-exponent if negative else exponent)


@body
def read_digits(at: int, last: int, value: Any) -> Any:
    """Return the end of digits, and `value` with them appended, which wraps if they are too many."""
    w = word(at, last) ^ _ZEROS
    digits = leading_digits(w)
    while digits == 8:
        value = value * np.uint64(100_000_000) + value_of_eight(w)
        at += 8
        w = word(at, last) ^ _ZEROS
        digits = leading_digits(w)
    return at + digits, value * TENS[np.uint64(digits)] + value_of_digits(w, digits)


@body
def read_number(at: int, last: int, out: int, place: int, kind: int) -> int:
    """Read one number; return its end, or 0 if it isn't one, or -1 if it can't be rounded here."""
    negative = load(at, np.uint8) == _MINUS
    at += int(negative)
    start = at
    value = np.uint64(load(at, np.uint8)) - np.uint64(_ZERO)
    if value <= np.uint64(9) and load(at + 1, np.uint8) == _POINT:  # at the end of the text there is none
        at += 1  # the likely case, separate so that the next load need not wait for a count of digits
    else:
        at, value = read_digits(at, last, np.uint64(0))
    digits = at - start
    if digits == 0 or (digits > 1 and load(start, np.uint8) == _ZERO):
        return 0 if digits > 0 else read_literal(at, last, out, place, kind, negative)
    fraction, power, whole = 0, 0, True
    if load(at, np.uint8) == _POINT:
        point = at
        at, value = read_digits(at + 1, last, value)
        fraction = at - point - 1
        whole = False
        if fraction == 0:
            return 0
    end = at
    if load(at, np.uint8) | 0x20 == _E:
        at, power = read_exponent(at + 1)
        whole = False
        if at == 0:
            return 0
    if kind > FLOAT64:
        if not whole or digits > DIGITS or kind == BITS or value > most(kind, negative):
            return 0
        put_integer(out, place, kind, np.uint64(0) - value if negative else value)
        return at
    # The integer -0 is 0, as in Python. Not with `and`: half of the branches would be mispredicted.
    sign = int(negative) & (1 - (int(whole) & int(value == np.uint64(0))))
    few, scale = digits + fraction <= DIGITS, fraction - power
    if value < _SHORT and few and 0 <= scale < EXACTS:
        # The quotient of two exact float64 is rounded once (Clinger, 1990).
        divisor = EXACT[np.uint64(scale + EXACTS * sign)]
        put_float(out, place, kind, np.float64(np.int64(value)) / divisor)
        return at
    if few:
        bits = float_bits(value, -scale)
    else:
        bits, sure = careful_bits(start, end, power)
        if not sure:
            return -1
    if bits == _INFINITE:
        return 0
    bits |= np.uint64(sign) << np.uint64(63)
    put_float(out, place, kind, np.uint64(bits).view(np.float64))
    return at


@body
def read_plain(at: int, last: int, out: int, place: int, stop: int, kind: int) -> Any:
    """Read numbers of the usual form up to index `stop`; return the address and index of the first other one.

    They have a digit before the point, up to 14 after it and no exponent; a comma follows, and no space.
    All take the same steps: the sign, and whether there are seven digits or eight, can't be predicted.
    """
    while place < stop and at + 24 <= last:
        negative = int(load(at, np.uint8) == _MINUS)
        value = np.uint64(load(at + negative, np.uint8)) - np.uint64(_ZERO)
        point = at + negative + 1
        if value > np.uint64(9) or load(point, np.uint8) != _POINT:
            break
        w, v = load(point + 1, np.uint64) ^ _ZEROS, load(point + 9, np.uint64) ^ _ZEROS
        digits, more = leading_digits(w), leading_digits(v)
        more = more if digits == 8 else 0
        scale = digits + more
        end = point + 1 + scale
        if not 0 < scale < 15 or load(end, np.uint8) != _COMMA or load(end + 1, np.uint8) <= 32:
            break
        value = value * TENS[np.uint64(digits)] + value_of_digits(w, digits)
        value = value * TENS[np.uint64(more)] + value_of_digits(v, more)
        divisor = EXACT[np.uint64(scale + EXACTS * negative)]
        put_float(out, place, kind, np.float64(np.int64(value)) / divisor)
        at = end + 1
        place += 1
    return at, place


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
    last, end, at = base + len(text) - 8, base + stop, base + start
    count, place = len(out) // size_of(kind), first
    if len(text) < 8 or count == 0:
        return UNKNOWN
    levels = 1 + int(row > 0) + int(plane > 0) + int(block > 0)
    behind, retry = first > 0, 0
    if not behind:
        opened = 0
        while load(at, np.uint8) == _OPEN:
            opened += 1
            at = behind_space(at + 1)
        if opened != levels and opened != 1:
            return UNKNOWN
        levels = opened
    row = row if levels > 1 else count
    row_end = place + row - (place - 1) % row - 1 if behind else row
    while True:
        if not behind:
            if kind <= FLOAT64 and place >= retry:
                retry = place
                at, place = read_plain(at, last, target, place, row_end - 1, kind)
                retry = place if place > retry else place + _UNLIKE
            begin = at
            at = read_number(at, last, target, place, kind)
            if at <= 0:
                return UNKNOWN if at == 0 else ((begin - base) << PLACES) + place
            place += 1
        behind = False
        at = behind_space(at)
        closing = 0
        if place == row_end:
            row_end += row
            closing = 1 + int(levels > 2 and place % plane == 0) + int(levels > 3 and place % block == 0)
            closing = levels if place == count else closing
            for level in range(closing):
                if load(at, np.uint8) != _CLOSE:
                    return UNKNOWN
                at += 1
                if at == end:
                    return -levels if place == count and level == levels - 1 else UNKNOWN
                at = behind_space(at)
            if place == count:
                return UNKNOWN
        if load(at, np.uint8) != _COMMA:
            return UNKNOWN
        at = behind_space(at + 1)
        for _ in range(closing):
            if load(at, np.uint8) != _OPEN:
                return UNKNOWN
            at = behind_space(at + 1)
