"""What was found, at a glance: an SVG of bars, one panel for each of a few measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import floor, log10

from bench.servers.catalogue import DRIFTLINE, NGINX_STATIC, Peer
from bench.servers.figures import MEASURES, Figures, Measure

PANELS = [measure for measure in MEASURES if "binary" not in measure.title]
WIDTH, LABEL, BAR, GAP, LINE, HEAD = 440, 170, 170, 24, 20, 44
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; }
.note, .other { fill: #6e7781; }
rect { fill: #8c959f; }
rect.ours { fill: #0969da; }
rect.limit { fill: #d0d7de; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .note { fill: #8d96a0; }
  rect { fill: #6e7681; }
  rect.ours { fill: #4493f8; }
  rect.limit { fill: #3d444d; }
}
"""


def svg(figures: Figures, peers: Sequence[Peer], day: str) -> Iterator[str]:
    """The plot, line by line: two panels beside each other, the best server of each on top."""
    panels = [panel for measure in PANELS if (panel := _bars(figures, peers, measure))]
    height = HEAD + LINE * max((len(bars) for _, bars in panels), default=0) + GAP
    tall = height * -(-len(panels) // 2) + LINE
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {tall}" role="img">'
    yield f"<title>Servers on one core, {escape(day)}</title>"
    yield f"<style>{STYLE}</style>"
    for place, (measure, bars) in enumerate(panels):
        yield f'<g transform="translate({place % 2 * WIDTH} {place // 2 * height})">'
        yield from _panel(measure, bars)
        yield "</g>"
    note = f"Medians, measured {day}; bars are on a logarithmic scale, the numbers are not."
    yield f'<text class="note" x="8" y="{tall - 6}">{escape(note)}</text>'
    yield "</svg>"


def _bars(
    figures: Figures, peers: Sequence[Peer], measure: Measure
) -> tuple[Measure, list[tuple[Peer, float]]] | None:
    """Each server's median, the best first; None where nobody has one."""
    samples = ((peer, figures.sample(peer.name, measure.work, measure.figure)) for peer in peers)
    bars = [(peer, sample.median) for peer, sample in samples if sample is not None]
    bars.sort(key=lambda bar: -measure.sign * bar[1])
    return (measure, bars) if bars else None


def _panel(measure: Measure, bars: list[tuple[Peer, float]]) -> Iterator[str]:
    better = "more is better" if measure.sign > 0 else "less is better"
    yield f'<text class="title" x="8" y="16">{escape(measure.title)}</text>'
    yield f'<text class="note" x="8" y="32">{escape(measure.unit)}, {better}</text>'
    values = [number for _, number in bars]
    for line, (peer, number) in enumerate(bars):
        top = HEAD + line * LINE
        kind = (
            "limit" if peer.name == NGINX_STATIC else "ours" if peer.name.startswith(DRIFTLINE) else "other"
        )
        length = bar_length(number, min(values), max(values))
        yield f'<text x="{LABEL}" y="{top + 10}" text-anchor="end">{escape(peer.title)}</text>'
        yield f'<rect class="{kind}" x="{LABEL + 8}" y="{top}" width="{length:.1f}" height="13" rx="2"/>'
        yield f'<text x="{LABEL + 14 + length:.1f}" y="{top + 10}">{digits(number)}</text>'


def bar_length(number: float, least: float, most: float) -> float:
    """Pixels of a bar, by the logarithm: from the power of ten under the least, to the most."""
    zero = floor(log10(least)) if log10(least) % 1 else log10(least) - 1
    span = log10(most) - zero
    return BAR * (log10(number) - zero) / span


def digits(number: float) -> str:
    """Three digits, whole from 100 on."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
