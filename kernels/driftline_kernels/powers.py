"""Powers of ten for parsing numbers: the first 128 bits of powers of five."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MIN_EXPONENT, MAX_EXPONENT = -342, 308
"""The exponents of ten for which a number of up to 19 digits may be neither 0 nor infinite in float64."""

MAX_DIGITS = 19
"""Decimal digits that always fit in 64 bits."""


def _first_bits(exponent: int) -> int:
    """Return 5^exponent * 2^k, with the k that makes it a number of 128 bits.

    It is rounded down, but up from -27 to -1, where 5^-exponent fits in 64 bits and may divide the digits, as
    the proof requires (Mushtak, Lemire: Fast number parsing without fallback, 2023).
    """
    if exponent >= 0:
        power: int = 5**exponent
        surplus = power.bit_length() - 128
        return power >> surplus if surplus > 0 else power << -surplus
    power = 5**-exponent
    return (1 << (power.bit_length() + 127)) // power + (exponent >= -27)


def _table() -> NDArray[np.uint64]:
    mask = 2**64 - 1
    powers = [_first_bits(exponent) for exponent in range(MIN_EXPONENT, MAX_EXPONENT + 1)]
    return np.array([[power >> 64, power & mask] for power in powers], np.uint64)


POWERS_OF_FIVE = _table()
"""(651, 2) uint64; the upper and lower half of 5^q for each exponent q from LEAST on."""

POWERS_OF_TEN = np.array([10**exponent for exponent in range(MAX_DIGITS + 1)], np.uint64)
"""(20,) uint64; 10^0 to 10^19."""

EXACT_COUNT = 23
"""How many powers of ten are exact in float64: 10^0 to 10^22."""

EXACT_POWERS = np.array([sign * 10.0**exponent for sign in (1, -1) for exponent in range(EXACT_COUNT)])
"""(46,) float64; these, then the same negated."""
