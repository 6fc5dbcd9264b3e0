"""Render a report as a table for the terminal, or as a page for a notebook or a browser.

Names are data, so they are escaped.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING

from driftline.monitor.comparison.statistics import Statistic
from driftline.monitor.comparison.wording import NONE
from driftline.monitor.detection.grouping import Group, groups
from driftline.monitor.reporting.histogram import histogram

if TYPE_CHECKING:
    from rich.console import RenderableType

    from driftline.monitor.reporting.report import ColumnReport, Report

MAX_SHOWN = 40
"""Maximum columns shown: those with signals, then those of most drift; a report's to_dict has all."""

COMPLETE = "to_dict()"
"""What has all columns, for who holds a report."""

PLAIN_WIDTH = 120
"""Characters in a line of text without a terminal."""

_FOOTNOTE = (
    "Where a bin is empty, PSI adds half a row to each; beside it is what chance alone would make of it. "
    "KS: the chance of a distance like this, had nothing changed. "
    "Mean: the shift in standard deviations of the reference, ± its 95 % interval."
)
_ONSET_FOOTNOTE = (
    "The table is of the whole window; alarms and changes tell of the rows since they began, about."
)

_TERMINAL_STYLES = {"alarm": "bold red", "change": "bold yellow"}
_HTML_LABELS = {kind: f' <span class="held {kind}">{kind}</span>' for kind in _TERMINAL_STYLES}

_DATE = re.compile(r"\b\d{4}-\d\d-\d\d( \d\d:\d\d(:\d\d)?)?\b")

_STYLE = """
.driftline{font:13px/1.45 system-ui,sans-serif;color:inherit;max-width:1100px}
.driftline table{color:inherit;font:inherit;border-collapse:collapse;width:100%;
margin:.6em 0;font-variant-numeric:tabular-nums}
.driftline th,.driftline td{padding:.35em .5em;text-align:right;vertical-align:middle;background:none;
border:0;border-bottom:1px solid rgba(128,128,128,.25);color:inherit}
.driftline th{font-weight:600;opacity:.75;white-space:nowrap}
.driftline th.l,.driftline td.l{text-align:left}
.driftline td.l{overflow-wrap:anywhere;min-width:9em}
.driftline .n{white-space:nowrap}
.driftline tr{background:none!important}
.driftline small{opacity:.65;font-size:11px;display:block;white-space:nowrap}
.driftline svg{display:block}
.driftline .r{fill:currentColor;fill-opacity:.2}
.driftline .c{fill:#e8710a}
.driftline .o{fill:#e8710a;fill-opacity:.14;stroke:#e8710a;stroke-width:1.4;stroke-linejoin:round}
.driftline .x{fill:currentColor;opacity:.75;font:9px system-ui,sans-serif;text-anchor:middle}
.driftline .low{text-anchor:start}
.driftline .high{text-anchor:end}
.driftline .key{display:inline-block;width:.8em;height:.8em;vertical-align:-.05em;margin:0 .3em 0 .9em}
.driftline p{margin:.3em 0}
.driftline .signal{border-left:3px solid #8a8a8a;padding:.15em .7em;margin:.35em 0}
.driftline .held{border-left:3px solid #8a8a8a;padding-left:.3em;font-size:11px}
.driftline .alarm{border-color:#d93025}
"""

_PAGE_STYLE = (
    "body{max-width:1100px;margin:1.5em auto;padding:0 1em}h1{font:600 20px system-ui,sans-serif}"
    "nav{float:right;font:13px/1.45 system-ui,sans-serif}"
)


def terminal(report: Report) -> RenderableType:
    """Return a heading, the signals, and a table of the columns: alarms first, then most drift."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(_heading(report), "bold")]
    for group in _groups(report):
        label = Text(f"{group.kind:<8}", _TERMINAL_STYLES[group.kind])
        parts.append(label.append(group.describe(len(report.columns)), "default"))
    if report.whole:
        parts.append(Text(f"whole rows: {_whole_rows(report)}"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("column", overflow="fold")
    table.add_column("")
    for name in ("PSI", "by chance", "KS p", "mean shift, sd", "missing"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("change", overflow="fold")
    kinds = _held_kinds(report)
    for column in _shown_columns(report, kinds):
        kind = kinds.get(column.name, "")
        psi = column.statistics.get("psi")
        cells = (_psi(column), _number(psi.null) if psi else "", *_cells(column))
        label = Text(kind, _TERMINAL_STYLES.get(kind, ""))
        table.add_row(Text(column.name), label, *cells, Text(_description(column)))
    footnote = " ".join(filter(None, (_hidden_note(report), _footnote(report))))
    return Group(*parts, Text(), table, Text(), Text(footnote, "dim"))


def plain(renderable: RenderableType) -> str:
    """Return terminal output as text without colours, as wide as the terminal, or PLAIN_WIDTH without one."""
    from rich.console import Console

    width = shutil.get_terminal_size((PLAIN_WIDTH, 0)).columns
    # By default, rich would also display it in a notebook, beside the returned text.
    console = Console(
        file=io.StringIO(), width=width, color_system=None, force_terminal=False, force_jupyter=False
    )
    with console.capture() as captured:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def html(report: Report, complete: str = COMPLETE) -> str:
    """Return the terminal's content with histograms, as a self-contained fragment: no script, no file.

    complete  what has all columns
    """
    descriptions = [(escape(group.kind), group.describe(len(report.columns))) for group in _groups(report)]
    signals = "".join(
        f'<p class="signal {kind}"><b>{kind}</b> {_typeset(text)}</p>' for kind, text in descriptions
    )
    kinds = _held_kinds(report)
    whole = f"<p>Whole rows: {escape(_whole_rows(report))}</p>" if report.whole else ""
    rows = "".join(_row(column, kinds.get(column.name, "")) for column in _shown_columns(report, kinds))
    legend = (
        '<svg class="key" viewBox="0 0 10 10"><rect class="r" width="10" height="10"/></svg>reference'
        '<svg class="key" viewBox="0 0 10 10"><rect class="c" width="10" height="10"/></svg>this window'
    )
    more = f"<p>{escape(_hidden_note(report, complete))}</p>" if _hidden_note(report) else ""
    return (
        f'<div class="driftline"><style>{_STYLE}</style><p><b>{escape(_heading(report))}</b>{legend}</p>'
        f'{signals}{whole}<table><thead><tr><th class="l">column</th><th class="l"></th><th>PSI</th>'
        '<th>KS p</th><th>mean shift, sd</th><th>missing</th><th class="l">change</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>{more}"
        f"<small style='white-space:normal'>{_footnote(report)}</small></div>"
    )


def page(
    title: str,
    reports: Iterable[tuple[str, Report]],
    links: Mapping[str, str] | None = None,
    complete: str = COMPLETE,
) -> str:
    """Return reports, each under its heading, as a self-contained page.

    links     to other pages: addresses by name
    complete  what has all columns
    """
    navigation = " · ".join(
        f'<a href="{escape(address)}">{escape(name)}</a>' for name, address in (links or {}).items()
    )
    parts = "".join(f"<h1>{escape(heading)}</h1>{html(report, complete)}" for heading, report in reports)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{_PAGE_STYLE}</style></head>"
        f"<body>{f'<nav>{navigation}</nav>' if navigation else ''}{parts}</body></html>\n"
    )


def _row(column: ColumnReport, kind: str) -> str:
    psi = column.statistics.get("psi")
    chance = f"<small>{escape(_number(psi.null))} by chance</small>" if psi else ""
    cells = "".join(f'<td class="n">{escape(cell)}</td>' for cell in _cells(column))
    return (
        f'<tr><td class="l"><b>{escape(column.name)}</b>{_HTML_LABELS.get(kind, "")}'
        f"<small>{column.kind}, {column.rows:,} rows</small></td>"
        f'<td class="l">{histogram(column)}</td><td>{escape(_psi(column))}{chance}</td>{cells}'
        f'<td class="l">{_typeset(_description(column))}</td></tr>'
    )


def _groups(report: Report) -> list[Group]:
    return groups([*report.alarms, *report.changes])


def _held_kinds(report: Report) -> dict[str, str]:
    """Return the kind of the signal held for each column, by name."""
    return {signal.column: signal.kind for signal in (*report.changes, *report.alarms)}


def _shown_columns(report: Report, kinds: Mapping[str, str]) -> list[ColumnReport]:
    """Return columns, alarms first, then changes: in a long window, their drift may still be small."""
    order = ("alarm", "change", "")
    return sorted(report.ranked(), key=lambda column: order.index(kinds.get(column.name, "")))[:MAX_SHOWN]


def _heading(report: Report) -> str:
    period = f"{report.began:%Y-%m-%d %H:%M:%S} to {report.ended:%Y-%m-%d %H:%M:%S} UTC"
    comparison = (
        f"against a reference of {report.reference_rows:,}" if report.reference_rows else "no reference"
    )
    return f"{report.rows:,} row{'s' * (report.rows != 1)}, {period}, {comparison}"


def _typeset(words: str) -> str:
    """Escape the words; keep rates and dates from breaking across lines."""
    words = _DATE.sub(r'<span class="n">\g<0></span>', escape(words))
    return words.replace(" %", "\u00a0%").replace(" -&gt; ", "\u00a0→\u00a0")


def _whole_rows(report: Report) -> str:
    names = {
        "mmd": "MMD",
        "correlation_max": "largest change of a correlation",
        "correlation_norm": "norm of all these changes",
    }
    return ", ".join(
        f"{names[name]} {_number(statistic.value)} ({_number(statistic.null)} by chance)"
        for name, statistic in report.whole.items()
    )


def _footnote(report: Report) -> str:
    has_onset = any(signal.onset is not None for signal in (*report.alarms, *report.changes))
    return f"{_FOOTNOTE} {_ONSET_FOOTNOTE}" if has_onset else _FOOTNOTE


def _hidden_note(report: Report, complete: str = COMPLETE) -> str:
    hidden = len(report.columns) - MAX_SHOWN
    return f"{hidden:,} columns of less drift are not shown; {complete} has them all." if hidden > 0 else ""


def _description(column: ColumnReport) -> str:
    """Return the change and the note, or one of them if the other says nothing more."""
    if column.note and column.words in (NONE, column.note):
        return column.note
    return "; ".join(filter(None, (column.words, column.note)))


def _psi(column: ColumnReport) -> str:
    return _cell(column, "psi", lambda psi: _number(psi.value))


def _cells(column: ColumnReport) -> tuple[str, str, str]:
    """Return the KS p value, the mean shift and the missing rate."""
    missing = column.facts.get("missing_rate")
    return (
        _cell(column, "kolmogorov_smirnov", _probability),
        _cell(column, "mean_shift", _shift),
        "" if missing is None else _rate(missing),
    )


def _cell(column: ColumnReport, name: str, text: Callable[[Statistic], str]) -> str:
    return text(column.statistics[name]) if name in column.statistics else ""


def _probability(statistic: Statistic) -> str:
    p = statistic.p if statistic.p is not None else 1.0
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _shift(statistic: Statistic) -> str:
    low, high = statistic.interval or (statistic.value, statistic.value)
    margin = (high - low) / 2
    if max(abs(statistic.value), margin) >= 1e6:
        return f"{statistic.value:+.2g} ± {margin:.2g}"
    return f"{statistic.value:+z,.2f} ± {margin:,.2f}"


def _rate(rate: float) -> str:
    return "0 %" if rate == 0 else "<0.1 %" if rate < 0.001 else f"{100 * rate:.1f} %"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if 0 < value < 0.0001:
        return "<0.0001"
    if value >= 1e9:
        return f"{value:.2g}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"
