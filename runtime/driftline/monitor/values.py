"""Values as text for people: numbers with the digits that matter, dates and times as such."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import floor, isfinite, log10

_SIGNIFICANT_DIGITS = 6
"""Significant digits of a number if no step is given; float32 has one more."""

_MINUTE, _HOUR, _DAY = 6e7, 3.6e9, 8.64e10
"""In microseconds."""

_ROUNDING = 2 * _MINUTE
"""How far off present-day timestamps may be as float32."""

_UNITS = (
    (_DAY, "days"),
    (_HOUR, "h"),
    (_MINUTE, "min"),
    (1e6, "s"),
    (1e3, "ms"),
    (1.0, "us"),
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def text(value: float, temporal: str = "", step: float = 0.0) -> str:
    """Format a column's value: '1,234,500', '0.25', '2026-03-01', '2026-03-01 12:30', '12:30:05', '3.5 days'.

    value     for dates and times in microseconds, as `driftline.columns` has them
    temporal  what the column holds: 'date', 'timestamp', 'time' of day or 'duration'; '' for numbers
    step      the least difference that must remain visible; 0: as fine as possible
    """
    if not isfinite(value):
        return f"{value:g}"
    if temporal == "duration":
        return span(value)
    if not temporal or not -6e16 < value < 2.5e17:  # beyond the years of a datetime
        return _number(value, step)
    if temporal == "time":
        return f"{_EPOCH + timedelta(microseconds=value):%H:%M:%S}"
    if temporal == "date" or step >= 2 * _DAY:
        return f"{_EPOCH + timedelta(microseconds=value + _ROUNDING):%Y-%m-%d}"
    return f"{_EPOCH + timedelta(microseconds=value + _MINUTE / 2):%Y-%m-%d %H:%M}"


def printable(category: str) -> str:
    """Return a category, escaped and in quotes if it is empty or would break the line or turn its order."""
    return category if category and category.isprintable() else repr(category)


def span(value: float) -> str:
    """Format microseconds as '3.5 days', '2.1 h', '-20 min', '1.5 s'."""
    unit, name = next((pair for pair in _UNITS if abs(value) >= pair[0]), _UNITS[-1])
    return f"{_number(value / unit, abs(value) / unit / 10)} {name}"


def _number(value: float, step: float) -> str:
    """Format to two digits of a step; as a power of ten only where zeros would have to be counted."""
    if value == 0:
        return "0"
    exponent = floor(log10(abs(value)))
    if not -5 < exponent < 12:
        return f"{value:.4g}"
    digits = _SIGNIFICANT_DIGITS - 1 - exponent
    if step > 0:
        digits = min(1 - floor(log10(step)), digits + 1)
    rounded = round(value, digits) + 0.0  # no -0
    formatted = f"{rounded:{',' if abs(rounded) >= 10_000 else ''}.{max(digits, 0)}f}"
    return formatted.rstrip("0").rstrip(".") if "." in formatted else formatted
