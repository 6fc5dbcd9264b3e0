"""A small histogram of a column, reference against window, as SVG without script."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from driftline.monitor.comparison.wording import percents
from driftline.monitor.reference.column import Categorical, Numeric
from driftline.monitor.values import printable, text
from driftline.tensors import Array

if TYPE_CHECKING:
    from driftline.monitor.reporting.report import ColumnReport

_BARS = 26
_MAX_CATEGORIES = 10
_BAR, _GAP, _HEIGHT, _LABEL = 7, 13, 38, 12
_MAX_BAR_WIDTH = 6 * _BAR
"""Widest bar of a category: wide enough for most names below it to be legible."""

_LETTER_WIDTH = 5.2
"""Approximate width of a letter in labels."""


class Bar(NamedTuple):
    """A labelled share of the reference beside one of the window; `short`, if set, is drawn below the bar."""

    label: str
    reference: float
    current: float
    short: str = ""


def histogram(column: ColumnReport) -> str:
    """Return an SVG: the reference filled, the window as an outline (numeric) or as slim bars (categorical).

    Missing, infinite and unseen values stand apart, on the right. Every bar has a tooltip that describes it.
    Labels below show the ends of the numeric range, or as much of each category's name as fits.
    """
    bars = numeric_bars(column) if isinstance(column.reference, Numeric) else category_bars(column)
    specials = special_bars(column)
    top = max((max(bar.reference, bar.current) for bar in (*bars, *specials)), default=0.0) or 1.0
    is_numeric = isinstance(column.reference, Numeric)
    bar_width = _BAR if is_numeric else min(max(_BARS * _BAR // max(len(bars), 1), 2 * _BAR), _MAX_BAR_WIDTH)
    elements = [
        _bar(bar, index * bar_width, bar_width, top, slim=not is_numeric) for index, bar in enumerate(bars)
    ]
    width = len(bars) * bar_width
    if is_numeric and any(bar.current for bar in bars):
        elements.append(_outline(bars, bar_width, top))
    if is_numeric and bars:
        low, high = ends(column)
        elements += (_label(low, 0, " low"), _label(high, width, " high"))
    elif not is_numeric:
        names = [_shortened(bar.short or bar.label, bar_width) for bar in bars]
        elements += [_label(name, index * bar_width + bar_width // 2) for index, name in enumerate(names)]
    for bar in specials:
        width += _GAP if bar is specials[0] else 0
        elements.append(_bar(bar, width + _GAP, 2 * _BAR, top, slim=True))
        elements.append(_label(bar.label, width + _GAP + _BAR))
        width += 2 * _BAR + 2 * _GAP
    height = _HEIGHT + _LABEL
    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="histogram of {escape(column.name)}">{"".join(elements)}</svg>'
    )


def _bar(bar: Bar, x: int, width: int, top: float, slim: bool) -> str:
    """Draw the reference's bar and, if `slim`, the window's slim bar in front of it."""
    text = escape(f"{bar.label}: {percents(bar.reference, bar.current)}")
    height = _HEIGHT * bar.reference / top
    shapes = _rectangle("r", x, width - 1, height)
    if slim:
        shapes += _rectangle("c", x + width // 4, width // 2, _HEIGHT * bar.current / top)
    # The pointer's target is as high as the picture, however small the bar.
    target = f'<rect x="{x}" width="{width}" height="{_HEIGHT}" fill-opacity="0"/>'
    return f"<g><title>{text}</title>{shapes}{target}</g>"


def _rectangle(name: str, x: int, width: int, height: float) -> str:
    return f'<rect class="{name}" x="{x}" y="{_HEIGHT - height:.1f}" width="{width}" height="{height:.1f}"/>'


def _label(text: str, x: int, end: str = "") -> str:
    return f'<text class="x{end}" x="{x}" y="{_HEIGHT + _LABEL - 2}">{escape(text)}</text>'


def _shortened(name: str, width: int) -> str:
    """Return a name, or as much of it as fits."""
    max_letters = int(width / _LETTER_WIDTH)
    return name if len(name) <= max_letters else f"{name[: max_letters - 1]}…"


def _outline(bars: list[Bar], width: int, top: float) -> str:
    steps = "".join(
        f"V{_HEIGHT - _HEIGHT * bar.current / top:.1f}H{(index + 1) * width}"
        for index, bar in enumerate(bars)
    )
    return f'<path class="o" pointer-events="none" d="M0 {_HEIGHT}{steps}V{_HEIGHT}"/>'


def numeric_bars(column: ColumnReport) -> list[Bar]:
    """Return bars of equal width over the bulk of the values; the outer two include what lies farther out.

    Values are taken to be spread evenly within a natural bin.
    """
    reference = column.reference
    assert isinstance(reference, Numeric)
    if not len(reference.edges):
        return []
    low, high = _value_range(reference, column.moments)
    grid = np.linspace(low, high, _BARS + 1)
    step = (high - low) / _BARS
    bar_shares = []
    for shares, moments in ((column.reference_shares, None), (column.current_shares, column.moments)):
        inner = shares[: reference.missing]
        least, greatest = (moments[3], moments[4]) if moments is not None else (np.inf, -np.inf)
        points = np.array(
            [min(least, reference.edges[0]), *reference.edges, max(greatest, reference.edges[-1])], np.float64
        )
        below = np.interp(grid, points, np.append(0.0, np.cumsum(inner)))
        below[0], below[-1] = 0.0, inner.sum()
        bar_shares.append(np.diff(below))
    return [
        Bar(
            f"{text(start, reference.temporal, step)} to {text(stop, reference.temporal, step)}",
            before,
            after,
        )
        for start, stop, before, after in zip(
            grid[:-1].tolist(), grid[1:].tolist(), bar_shares[0].tolist(), bar_shares[1].tolist(), strict=True
        )
    ]


def ends(column: ColumnReport) -> tuple[str, str]:
    """Return where numeric bars begin and end: '-2.5', or '< -2.5' if the first includes lower values."""
    reference, moments = column.reference, column.moments
    assert isinstance(reference, Numeric)
    low, high = _value_range(reference, moments)
    least, greatest = reference.minimum, reference.maximum
    if moments is not None and moments[0] > 0:
        least, greatest = min(least, float(moments[3])), max(greatest, float(moments[4]))
    low_label, high_label = (text(end, reference.temporal, (high - low) / 10) for end in (low, high))
    return (
        f"< {low_label}" if least < low else low_label,
        f"> {high_label}" if greatest > high else high_label,
    )


def _value_range(reference: Numeric, moments: Array | None) -> tuple[float, float]:
    """Return the range: the reference's central bins, half as much on either side, and the window's bulk."""
    edges = reference.edges.astype(np.float64)
    first, last = (edges[1], edges[-2]) if len(edges) > 3 else (edges[0], edges[-1])
    width = last - first
    low, high = max(edges[0], first - width / 2), min(edges[-1], last + width / 2)
    if moments is not None and moments[0] > 0:
        count, mean, squares, least, greatest = moments
        spread = 2 * np.sqrt(squares / count)
        # At most one more width on either side: otherwise the reference would shrink to a line.
        low = max(min(low, max(least, mean - spread)), low - width)
        high = min(max(high, min(greatest, mean + spread)), high + width)
    if high - low < 1e-6 * max(abs(low), abs(high), 1e-30):
        margin = max(abs(low), 1.0) / 2
        low, high = low - margin, high + margin
    return float(low), float(high)


def category_bars(column: ColumnReport) -> list[Bar]:
    """Return the largest categories of either, by share of the reference, and the others as one."""
    reference = column.reference
    assert isinstance(reference, Categorical)
    category_count = len(reference.categories)
    before, after = column.reference_shares[:category_count], column.current_shares[:category_count]
    largest = np.argsort(-np.maximum(before, after), kind="stable")[:_MAX_CATEGORIES]
    chosen = largest[np.argsort(-before[largest], kind="stable")]
    bars = [Bar(printable(reference.categories[i]), float(before[i]), float(after[i])) for i in chosen]
    if category_count > _MAX_CATEGORIES:
        rest_before, rest_after = (
            max(float(shares.sum() - shares[chosen].sum()), 0.0) for shares in (before, after)
        )
        bars.append(Bar(f"{category_count - _MAX_CATEGORIES:,} others", rest_before, rest_after, "…"))
    return bars


def special_bars(column: ColumnReport) -> list[Bar]:
    """Return the bars of missing, infinite and unseen values, if they occur."""
    reference, before, after = column.reference, column.reference_shares, column.current_shares
    missing = reference.missing
    if isinstance(reference, Categorical):
        bins = {"unseen": slice(reference.unseen, missing), "missing": slice(missing, None)}
    else:
        bins = {"missing": slice(missing, missing + 1), "infinite": slice(missing + 1, None)}
    bars = [
        Bar(name, float(before[bin_range].sum()), float(after[bin_range].sum()))
        for name, bin_range in bins.items()
    ]
    return [bar for bar in bars if bar.reference or bar.current]
