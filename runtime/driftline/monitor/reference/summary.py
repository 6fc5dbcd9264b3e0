"""A profile as a table: one line for each column."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np

from driftline.monitor.reference.column import Categorical, Numeric, Reference
from driftline.monitor.values import printable, span, text

HEADER = ("column", "kind", "rows", "missing", "values")

_RIGHT = ("rows", "missing")

MAX_NAMED = 3
"""Maximum number of categories named, the most frequent first."""


def cells(reference: Reference) -> tuple[str, ...]:
    """Return a column's name, kind, rows, share of missing values, and range or categories."""
    kind = reference.kind if isinstance(reference, Categorical) else "numeric"
    missing = reference.counts[reference.missing] / max(reference.rows, 1)
    values = _categories(reference) if isinstance(reference, Categorical) else _range(reference)
    return reference.name, kind, f"{reference.rows:,}", _missing_share(missing), values


def table(references: Iterable[Reference], title: str) -> Any:
    """Return columns as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    result = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for name in HEADER:
        result.add_column(name, justify="right" if name in _RIGHT else "left")
    for reference in references:
        result.add_row(*map(Text, cells(reference)))  # as plain text: names are not markup
    return result


def html(references: Iterable[Reference], title: str) -> str:
    """Return columns as a table for a notebook."""
    # Notebooks align all cells right unless a cell's own style says otherwise.
    sides = ("right" if name in _RIGHT else "left" for name in HEADER)
    styles = [f'style="padding:.2em .6em;text-align:{side}"' for side in sides]

    def row(kind: str, texts: Iterable[str]) -> str:
        elements = (
            f"<{kind} {style}>{escape(content)}</{kind}>"
            for style, content in zip(styles, texts, strict=True)
        )
        return f"<tr>{''.join(elements)}</tr>"

    rows = "".join(row("td", cells(reference)) for reference in references)
    caption = f'<caption style="text-align:left">{escape(title)}</caption>'
    return f"<table>{caption}{row('th', HEADER)}{rows}</table>"


def _range(reference: Numeric) -> str:
    if not reference.moments[0]:
        return "none that is finite" if reference.rows else ""
    if reference.minimum == reference.maximum:
        words = f"always {text(reference.minimum, reference.temporal)}"
    else:
        sd, temporal = reference.sd, reference.temporal
        ends = (text(end, temporal, sd / 10) for end in (reference.minimum, reference.maximum))
        spread = span(sd) if temporal else text(sd, step=sd / 100)
        words = f"{' to '.join(ends)}, mean {text(reference.mean, temporal, sd / 10)}, sd {spread}"
    infinite = int(reference.counts[reference.missing + 1 :].sum())
    return f"{words}, {infinite:,} infinite" if infinite else words


def _missing_share(share: float) -> str:
    return "" if not share else "<0.1%" if share < 0.0005 else f"{share:.1%}"


def _percent(share: float) -> str:
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _categories(reference: Categorical) -> str:
    counts = reference.counts[: reference.unseen]
    most_frequent = np.argsort(-counts, kind="stable")[:MAX_NAMED]
    shares = counts / max(reference.rows, 1)
    named = [f"{printable(reference.categories[index])} {_percent(shares[index])}" for index in most_frequent]
    more = len(reference.categories) - len(named)
    return ", ".join([*named, f"{more:,} more"] if more else named)
