"""Plots measurements as an SVG picture without scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from driftline.load.bench import QUANTILES, Point

_WIDTH, _HEIGHT = 460, 300
_LEFT, _TOP, _RIGHT, _BOTTOM = 62, 34, 120, 44
_COLOURS = ("#e8710a", "#1a73e8", "#188038", "#9334e6", "#d93025", "#12858d", "#b06000", "#5f6368")
_MAX_LINES = len(_COLOURS)
_SHARES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)
_STEPS = 60
_RATE_TICKS = 4
_STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#555}.t{font-weight:600;fill:#222}"
    ".g{stroke:#888;stroke-opacity:.25}.l{fill:none;stroke-width:1.7;stroke-linejoin:round}"
)


@dataclass(frozen=True, slots=True)
class Line:
    """A name and points (x, milliseconds)."""

    name: str
    points: Sequence[tuple[float, float]]


def plot(points: Sequence[Point], title: str, p99_ms: float | None = None) -> str:
    """Return an SVG: durations by percentile, one line per point; with several rates, also by rate.

    p99_ms  a target, drawn in the chart by rate
    """
    # Of repeated measurements the last, which decided.
    plotted = list({point.name: point for point in points}.values())[-_MAX_LINES:]
    lines = [Line(point.name, list(_percentiles(point))) for point in plotted]
    nines = [(-log10(1 - share), f"{share:.2%}".rstrip("0%").rstrip(".") or "0") for share in _SHARES]
    charts = [_chart("by percentile", lines, nines, None)]
    rates = {point.rate: point for point in points if point.rate is not None and point.outcome.answered}
    if len(rates) > 1:
        by_rate = sorted(rates.items())
        lines = [
            Line(name, [(rate, point.outcome.ms(q)) for rate, point in by_rate])
            for name, q in QUANTILES.items()
        ]
        highest, step = by_rate[-1][0], _round(by_rate[-1][0] / _RATE_TICKS)
        ticks = [(step * i, f"{step * i:,.10g}") for i in range(ceil(highest / step) + 1)]
        charts.append(_chart("by requests a second", lines, ticks, p99_ms))
    width = _WIDTH * len(charts)
    body = "".join(
        f'<g transform="translate({index * _WIDTH},14)">{chart}</g>' for index, chart in enumerate(charts)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_HEIGHT + 14}" '
        f'viewBox="0 0 {width} {_HEIGHT + 14}" role="img"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>'
        f'<text class="t" x="12" y="20">{escape(title)}</text>{body}</svg>\n'
    )


def _percentiles(point: Point) -> Iterator[tuple[float, float]]:
    """Yield (-log10(1 - share), milliseconds), while at least one request is beyond."""
    count = point.outcome.latency.count
    for step in range(_STEPS + 1):
        nines = step * (len(_SHARES) - 1.3) / _STEPS
        if 10**nines <= count:
            yield nines, point.outcome.ms(1 - 10**-nines)


def _round(value: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** floor(log10(value))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= value)


def _chart(label: str, lines: list[Line], ticks: list[tuple[float, str]], target: float | None) -> str:
    values = [y for line in lines for _, y in line.points if y > 0] or [1.0]
    values += [target] if target else []
    bottom, top = floor(log10(min(values))), ceil(log10(max(values)) + 1e-9)
    right, left = max(x for x, _ in ticks), min(x for x, _ in ticks)
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def to_x(x: float) -> float:
        return _LEFT + width * (x - left) / (right - left)

    def to_y(y: float) -> float:
        return _TOP + height * (top - log10(max(y, 10.0**bottom))) / (top - bottom)

    elements = [
        f'<text x="{_LEFT + width / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(label)}</text>'
    ]
    for exponent in range(bottom, top + 1):
        y = to_y(10.0**exponent)
        elements.append(f'<path class="g" d="M{_LEFT} {y:.1f}h{width}"/>')
        elements.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**exponent:,.10g} ms</text>'
        )
    for x, text in ticks:
        elements.append(f'<path class="g" d="M{to_x(x):.1f} {_TOP}v{height}"/>')
        elements.append(
            f'<text x="{to_x(x):.1f}" y="{_TOP + height + 16}" text-anchor="middle">{escape(text)}</text>'
        )
    elements += _curves(lines, to_x, to_y)
    if target:
        elements.append(
            f'<path d="M{_LEFT} {to_y(target):.1f}h{width}" stroke="#222" stroke-dasharray="4 3">'
            f"<title>target: {target:g} ms</title></path>"
        )
    return "".join(elements)


def _curves(
    lines: list[Line], to_x: Callable[[float], float], to_y: Callable[[float], float]
) -> Iterator[str]:
    """Yield the lines, with their names at the right."""
    for index, line in enumerate(lines):
        colour = _COLOURS[index % len(_COLOURS)]
        path = " ".join(f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in line.points)
        name = escape(line.name)
        yield f'<polyline class="l" stroke="{colour}" points="{path}"><title>{name}</title></polyline>'
        y = _TOP + 8 + 16 * index
        yield (
            f'<rect x="{_WIDTH - _RIGHT + 10}" y="{y - 8}" width="9" height="9" fill="{colour}"/>'
            f'<text x="{_WIDTH - _RIGHT + 24}" y="{y}">{name}</text>'
        )
