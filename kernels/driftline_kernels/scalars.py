"""The instructions of driftline_kernels.transforms on single numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from driftline_kernels.device import body

YEAR, MONTH, DAY, HOUR, MINUTE, SECOND, WEEKDAY, YEARDAY, QUARTER, EPOCH = range(10)
"""Parts of a time: weekdays count from 0, Monday, days of the year from 1, `EPOCH` is seconds since 1970."""

_WHOLE = 2.0**52  # from here on, all float64 are whole numbers
_MAX_SECONDS = 1e15  # seconds, 32 million years: there are no dates beyond
_HASH_BITS = 52  # of a hash, which a float64 holds exactly, with a bit to spare
_MIN_SHARE = 1e-7 - 2.0**-52  # scikit-learn's: smaller shares count as this one
_MAX_EXPONENT = 709.0  # of e, in float64; Python's math raises OverflowError beyond

# Of AS 241, a_7 to a_0 and so on; its case r > 5 is for smaller shares.
_CENTRE_NUMERATOR = (
    *(2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457),
    *(13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.3871328727963666080),
)
_CENTRE_DENOMINATOR = (
    *(5226.4952788528545610, 28729.085735721942674, 39307.895800092710610, 21213.794301586595867),
    *(5394.1960214247511077, 687.18700749205790830, 42.313330701600911252, 1.0),
)
_TAIL_NUMERATOR = (
    *(7.74545014278341407640e-4, 2.27238449892691845833e-2, 0.241780725177450611770, 1.27045825245236838258),
    *(3.64784832476320460504, 5.76949722146069140550, 4.63033784615654529590, 1.42343711074968357734),
)
_TAIL_DENOMINATOR = (
    *(1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2),
    *(0.148103976427480074590, 0.689767334985100004550, 1.67638483018380384940, 2.05319162663775882187, 1.0),
)

# From `math`, since numpy's own results sometimes differ from compiled ones in the last bit, and numba.cuda
# supports few of numpy's functions.


@body
def log1p(x: float) -> Any:
    """Return log(1 + x); -inf at -1, NaN below."""
    if -1 < x < np.inf:
        return math.log1p(x)
    return -np.inf if x == -1 else (x if x > -1 else np.nan)


@body
def box_cox(x: float, power: float) -> Any:
    """Return (x ** power - 1) / power, or log(x) if the power is 0; NaN below 0.

    Box, Cox: An analysis of transformations (1964), eq. 1.
    """
    if x > 0:
        return box_cox_of_log(math.log(x) if x < np.inf else x, power)
    if x != 0:
        return np.nan
    return -np.inf if power <= 0 else -1 / power


@body
def yeo_johnson(x: float, power: float) -> Any:
    """Return the Box-Cox transform of 1 + x; below 0, that of 1 - x with the power 2 - power, negated.

    Yeo, Johnson: A new family of power transformations to improve normality or symmetry (2000), eq. 2.1.
    """
    return box_cox_of_log(log1p(x), power) if x >= 0 else -box_cox_of_log(log1p(-x), 2 - power)


@body
def box_cox_of_log(logarithm: float, power: float) -> Any:
    """Return (x ** power - 1) / power, from the logarithm of x."""
    exponent = logarithm * power
    if power == 0 or exponent == 0:
        return logarithm
    if exponent > _MAX_EXPONENT:
        return np.inf if power > 0 else -np.inf
    return math.expm1(exponent) / power


@body
def share_below(quantiles: Any, x: float, margin: float) -> Any:
    """Return the share of values below x, interpolated between equally spaced quantiles; the middle of ties.

    0 and 1 at the ends, and for x less than `margin` away from them.
    """
    if x != x:
        return np.nan
    last = len(quantiles) - 1
    if x <= quantiles[0] or x - margin < quantiles[0]:
        return 0.0
    if x >= quantiles[last] or x + margin > quantiles[last]:
        return 1.0
    low, high = np.searchsorted(quantiles, x), np.searchsorted(quantiles, x, side="right")
    if low < high:
        return (low + high - 1) / (2 * last)
    return (high - 1 + (x - quantiles[high - 1]) / (quantiles[high] - quantiles[high - 1])) / last


@body
def piecewise(p: Any, x: float) -> Any:
    """Return the polynomial of the piece that x is in, of x minus the edge before it, or the first edge.

    p  the number of edges, the period of x (0: none), the edges, ascending, and for each piece, one more than
       edges, equally many coefficients, the constant first
    """
    count, period, first = np.int64(p[0]), p[1], p[2]
    if period > 0:
        x -= period * floor((x - first) / period)
    piece = 0 if x != x else np.searchsorted(p[2 : 2 + count], x, side="right")
    terms = (len(p) - 2 - count) // (count + 1)
    start = 2 + count + piece * terms
    distance = x - p[1 + max(piece, 1)]
    y = 0.0
    for term in range(start + terms - 1, start - 1, -1):
        y = y * distance + p[term]
    return y


@body
def probit(share: float) -> Any:
    """Return the normal distribution's quantile of a share, which is limited to 1e-7 from 0 and 1.

    Wichura: Algorithm AS 241: The percentage points of the normal distribution (1988), PPND16.
    """
    if share != share:
        return np.nan
    q = min(max(share, _MIN_SHARE), 1 - _MIN_SHARE) - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        return q * ratio(r, _CENTRE_NUMERATOR, _CENTRE_DENOMINATOR)
    r = math.sqrt(-math.log(0.5 - abs(q))) - 1.6
    x = ratio(r, _TAIL_NUMERATOR, _TAIL_DENOMINATOR)
    return x if q > 0 else -x


@body
def ratio(r: float, numerator: Any, denominator: Any) -> Any:
    """Return the ratio of two polynomials, given with the highest power's coefficient first."""
    a, b = 0.0, 0.0
    for index in range(len(numerator)):
        a, b = a * r + numerator[index], b * r + denominator[index]
    return a / b


@body
def sine(x: float) -> Any:
    """Return the sine of an angle; NaN if it is infinite."""
    return math.sin(x) if x - x == 0 else np.nan


@body
def cosine(x: float) -> Any:
    """Return the cosine of an angle; NaN if it is infinite."""
    return math.cos(x) if x - x == 0 else np.nan


@body
def floor(x: float) -> Any:
    """Return x rounded down to a whole number."""
    return np.float64(math.floor(x)) if abs(x) < _WHOLE else x


@body
def index_among(values: Any, x: float, missing: Any) -> Any:
    """Return the index of x among ascending numbers; their count if it is not there; `missing` for NaN."""
    if x != x:
        return missing
    index = np.searchsorted(values, x)
    return index if index < len(values) and values[index] == x else len(values)


@body
def hash_bits(x: float) -> Any:
    """Return a short hash as an integer."""
    return np.uint64(0) if x != x else np.uint64(x)


@body
def short_hash(h: Any) -> Any:
    """Return as many bits of a hash as a register holds exactly."""
    return np.float64(h >> np.uint64(64 - _HASH_BITS))


@body
def part_of(seconds: float, part: Any) -> Any:
    """Return a part of the time `seconds` after 1970, in UTC and the Gregorian calendar.

    Days to dates: Hinnant, chrono-Compatible Low-Level Date Algorithms (2014), civil_from_days.
    """
    if not abs(seconds) < _MAX_SECONDS:  # NaN, too
        return np.nan
    days = np.int64(floor(seconds / 86400))
    second_of_day = np.int64(seconds - np.float64(days) * 86400)
    if part == EPOCH:
        return seconds
    if part == HOUR:
        return np.float64(second_of_day // 3600)
    if part == MINUTE:
        return np.float64(second_of_day // 60 % 60)
    if part == SECOND:
        return np.float64(second_of_day % 60)
    if part == WEEKDAY:
        return np.float64((days + 3) % 7)
    days_from_march = days + 719_468
    era = days_from_march // 146_097
    day_of_era = days_from_march - era * 146_097
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted_month = (5 * day_of_year + 2) // 153
    month = shifted_month + 3 if shifted_month < 10 else shifted_month - 9
    year = year_of_era + era * 400 + (1 if month <= 2 else 0)
    if part == YEAR:
        return np.float64(year)
    if part == MONTH:
        return np.float64(month)
    if part == QUARTER:
        return np.float64((month + 2) // 3)
    if part == DAY:
        return np.float64(day_of_year - (153 * shifted_month + 2) // 5 + 1)
    leap = 1 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 0
    return np.float64(day_of_year - 305 if month <= 2 else day_of_year + 60 + leap)
