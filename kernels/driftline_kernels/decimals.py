"""Decimal digits in memory to integers and to the nearest float64: eight digits at a time.

Lemire: Number parsing at a gigabyte per second, 2021; Mushtak, Lemire: Fast number parsing without fallback,
2023.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.cpython.unsafe import numbers as unsafe
from numba.extending import intrinsic

from driftline_kernels.device import body
from driftline_kernels.memory import load
from driftline_kernels.powers import MAX_DIGITS, MAX_EXPONENT, MIN_EXPONENT, POWERS_OF_FIVE, POWERS_OF_TEN

ASCII_ZEROS = np.uint64(0x3030303030303030)
INFINITY_BITS = np.uint64(0x7FF0000000000000)

_ABOVE_NINE = np.uint64(0x7676767676767676)
_HIGH_BITS = np.uint64(0x8080808080808080)
_POINT, _ZERO = b".0"


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
def word(address: int, last_word: int) -> Any:
    """Return eight characters from an address on, which is at most the text's end, with zeros after the end;
    `last_word` is the address of the text's last eight."""
    if address <= last_word:
        return load(address, np.uint64)
    half = np.uint64(4 * (address - last_word))  # in halves, as a shift by 64 would do nothing
    return load(last_word, np.uint64) >> half >> half


@body
def leading_digits(w: Any) -> Any:
    """Return how many of eight characters are leading digits; `w` is xor'd with ASCII_ZEROS."""
    return np.int64(trailing_zeros(((w + _ABOVE_NINE) | w) & _HIGH_BITS)) >> 3


@body
def value_of_digits(w: Any, digits: int) -> Any:
    """Return the number in the first `digits` of eight characters; `w` is xor'd with ASCII_ZEROS."""
    half = np.uint64(32 - 4 * digits)
    return value_of_eight(w << half << half)  # in halves, as a shift by 64 would do nothing


@body
def value_of_eight(w: Any) -> Any:
    """Return the number in eight digits; `w` is xor'd with ASCII_ZEROS."""
    w = w * np.uint64(10) + (w >> np.uint64(8))
    pairs, mask = np.uint64(0x000F424000000064), np.uint64(0x000000FF000000FF)
    fours = np.uint64(0x0000271000000001)
    return ((w & mask) * pairs + ((w >> np.uint64(16)) & mask) * fours) >> np.uint64(32)


@body
def float_bits(w: Any, q: int) -> Any:
    """Return the bits of the float64 nearest to w * 10^q; w < 2^64. Ties go to even."""
    if w == np.uint64(0) or q < MIN_EXPONENT:
        return np.uint64(0)
    if q > MAX_EXPONENT:
        return INFINITY_BITS
    zeros = np.int64(leading_zeros(w))
    w <<= np.uint64(zeros)
    row = np.uint64(q - MIN_EXPONENT)
    power = POWERS_OF_FIVE[row, np.uint64(0)]
    high, low = upper_product(w, power), w * power
    if high & np.uint64(0x1FF) == np.uint64(0x1FF):
        correction = upper_product(w, POWERS_OF_FIVE[row, np.uint64(1)])
        low += correction
        high += np.uint64(correction > low)
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
    return bits if bits < INFINITY_BITS else INFINITY_BITS


@body
def long_float_bits(cursor: int, stop: int, exponent: int) -> Any:
    """As float_bits, of a number of over 19 digits in cursor..stop, times 10^exponent; also return if it is
    certain.

    It is certain if the two numbers of 19 digits around it have the same nearest float64.
    """
    w, significant, q, fraction, is_inexact = np.uint64(0), 0, exponent, 0, False
    while cursor < stop:
        character = load(cursor, np.uint8)
        cursor += 1
        if character == _POINT:
            fraction = 1
        elif significant < MAX_DIGITS:
            w = w * np.uint64(10) + np.uint64(character - _ZERO)
            significant += int(w > np.uint64(0))
            q -= fraction
        else:
            is_inexact |= character != _ZERO
            q += 1 - fraction
    bits = float_bits(w, q)
    return bits, not is_inexact or bits == float_bits(w + np.uint64(1), q)


@body
def read_digits(cursor: int, last_word: int, value: Any) -> Any:
    """Return the end of digits, and `value` with them appended, which wraps if they are too many."""
    w = word(cursor, last_word) ^ ASCII_ZEROS
    digits = leading_digits(w)
    while digits == 8:
        value = value * np.uint64(100_000_000) + value_of_eight(w)
        cursor += 8
        w = word(cursor, last_word) ^ ASCII_ZEROS
        digits = leading_digits(w)
    return cursor + digits, value * POWERS_OF_TEN[np.uint64(digits)] + value_of_digits(w, digits)
