"""Compare a window's data with the reference: every column, and whole rows."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from driftline.errors import BadRequest, listed
from driftline.monitor.comparison.comparing import ColumnCounts, compare_columns, compare_rows
from driftline.monitor.comparison.statistics import Statistic, number
from driftline.monitor.comparison.wording import KINDS, count_special, describe, quoted
from driftline.monitor.detection.signals import Signal
from driftline.monitor.reference.column import Categorical, Numeric, Reference
from driftline.monitor.reference.profile import Profile
from driftline.monitor.values import text
from driftline.monitor.window import Window
from driftline.tensors import Array

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ColumnReport:
    """A column of a window, compared with its reference.

    reference   what it is compared with
    counts      (bins,) int64: the window's rows in the reference's bins
    moments     (5,) of the window's finite values, as in a Window; None for a categorical column
    statistics  by name: psi, jensen_shannon, hellinger, total_variation, l_infinity, chi_square, missing;
                numeric columns: kolmogorov_smirnov, wasserstein, mean_shift, infinite, out_of_range;
                categorical ones: unseen. What can't be computed is left out, and the note says why
    words       the change in words
    note        what is unusual about the reference or the window; mostly ''
    """

    reference: Reference
    counts: Array
    moments: Array | None
    statistics: Mapping[str, Statistic]
    words: str
    note: str

    def __repr__(self) -> str:
        return f"ColumnReport({self.name!r}, {self.rows:,} rows: {self.words or self.note})"

    @property
    def name(self) -> str:
        """The name of the column."""
        return self.reference.name

    @property
    def kind(self) -> str:
        """'numeric' or 'categorical'."""
        return "numeric" if isinstance(self.reference, Numeric) else "categorical"

    @property
    def rows(self) -> int:
        """How many of the window's rows the column has."""
        return int(self.counts.sum())

    @property
    def reference_shares(self) -> Array:
        """(bins,) float64: the share of the reference in each bin; zeros if it has no rows."""
        return np.asarray(self.reference.counts / max(self.reference.rows, 1))

    @property
    def current_shares(self) -> Array:
        """(bins,) float64: the share of the window in each bin; zeros if it has no rows."""
        return np.asarray(self.counts / max(self.rows, 1))

    @property
    def drift(self) -> float:
        """PSI minus its null expectation, by which columns are ranked; -inf without a PSI."""
        psi = self.statistics.get("psi")
        return -np.inf if psi is None else psi.value - (psi.null or 0.0)

    @property
    def facts(self) -> dict[str, float]:
        """Facts about the window alone: rates of special values; mean, sd, least and greatest."""
        rows = self.rows
        rates = count_special(self.reference, self.counts)
        facts = {f"{name}_rate": count / rows for name, count in rates.items() if rows}
        if self.moments is not None and self.moments[0] > 0:
            count, mean, squares, least, greatest = self.moments.tolist()
            facts |= {"mean": mean, "sd": (squares / count) ** 0.5, "least": least, "greatest": greatest}
        return facts

    def to_dict(self) -> dict[str, Any]:
        """Return everything in JSON's types; a number that is not finite is None."""
        reference = self.reference
        labels: dict[str, Any] = (
            {"edges": reference.edges.tolist()}
            if isinstance(reference, Numeric)
            else {"categories": list(reference.categories)}
        )
        return {
            "name": self.name,
            "kind": self.kind,
            "rows": self.rows,
            "words": self.words,
            "note": self.note,
            "statistics": {name: statistic.to_dict() for name, statistic in self.statistics.items()},
            "facts": {name: number(value) for name, value in self.facts.items()},
            "bins": {
                **labels,
                "reference": self.reference_shares.tolist(),
                "current": self.current_shares.tolist(),
            },
        }


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Report:
    """A window compared with its profile.

    began, ended    of the window, in UTC
    rows            of the window
    reference_rows  of the profile
    columns         in the profile's order
    whole           statistics of whole rows, over the numeric columns: mmd, correlation_max, correlation_norm
    changes         signals that a distribution is no longer the reference's
    alarms          signals that it is farther away than is harmless

    Displayed as a table when printed and, with histograms, in a notebook; `to_html` returns it as a page.
    """

    began: datetime
    ended: datetime
    rows: int
    reference_rows: int
    columns: tuple[ColumnReport, ...]
    whole: Mapping[str, Statistic]
    changes: tuple[Signal, ...]
    alarms: tuple[Signal, ...]

    def __repr__(self) -> str:
        signals = f"{len(self.alarms)} alarms, {len(self.changes)} changes"
        return f"Report({self.rows:,} rows against {self.reference_rows:,}, {signals})"

    def __str__(self) -> str:
        """Return the table as text."""
        from driftline.monitor.reporting.render import plain

        return plain(self)

    def __getitem__(self, name: str) -> ColumnReport:
        """Return a column's report; BadRequest if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        names = listed(column.name for column in self.columns)
        raise BadRequest(f"column {name!r}: the report has no such column; it has: {names}")

    def ranked(self) -> list[ColumnReport]:
        """Return the columns, most drift first."""
        return sorted(self.columns, key=lambda column: -column.drift)

    def to_dict(self) -> dict[str, Any]:
        """Return everything in JSON's types; a number that is not finite is None, times are ISO 8601."""
        return {
            "began": self.began.isoformat(),
            "ended": self.ended.isoformat(),
            "rows": self.rows,
            "reference_rows": self.reference_rows,
            "columns": [column.to_dict() for column in self.columns],
            "whole": {name: statistic.to_dict() for name, statistic in self.whole.items()},
            "changes": [signal.to_dict() for signal in self.changes],
            "alarms": [signal.to_dict() for signal in self.alarms],
        }

    def to_arrow(self) -> Any:
        """Return a pyarrow Table with one row for each statistic of each column, as a history holds.

        Columns: began, ended (UTC), rows, column ('' for whole rows), kind ('numeric', 'categorical' or
        'whole'), statistic, value, null, threshold, p, low and high (the ends of its interval). A column's
        facts are among its statistics, with only a value.
        """
        import pyarrow as pa

        time, real = pa.timestamp("us", "UTC"), pa.float64()
        texts = [(name, pa.string()) for name in ("column", "kind", "statistic")]
        reals = [(name, real) for name in ("value", "null", "threshold", "p", "low", "high")]
        schema = pa.schema([("began", time), ("ended", time), ("rows", pa.int64()), *texts, *reals])
        return pa.Table.from_pylist(list(self._history()), schema)

    def _history(self) -> Iterator[dict[str, Any]]:
        column_rows: list[tuple[str, str, int, Mapping[str, Statistic]]] = [
            (
                column.name,
                column.kind,
                column.rows,
                {**column.statistics, **{name: Statistic(value) for name, value in column.facts.items()}},
            )
            for column in self.columns
        ]
        for name, kind, rows, statistics in [*column_rows, ("", "whole", self.rows, self.whole)]:
            for statistic, fields in ((key, value.to_dict()) for key, value in statistics.items()):
                low, high = fields.pop("interval", (None, None))
                yield {
                    "began": self.began,
                    "ended": self.ended,
                    "rows": rows,
                    "column": name,
                    "kind": kind,
                    "statistic": statistic,
                    **fields,
                    "low": low,
                    "high": high,
                }

    def __rich__(self) -> RenderableType:
        """Return a table for the terminal."""
        from driftline.monitor.reporting.render import terminal

        return terminal(self)

    def to_html(self, title: str = "Drift") -> str:
        """Return a page for a browser, in one self-contained file: no script, nothing to fetch."""
        from driftline.monitor.reporting.render import page

        return page(title, [(title, self)])

    def _repr_html_(self) -> str:
        """Return a fragment for a notebook, for light and dark themes."""
        from driftline.monitor.reporting.render import html

        return html(self)


def of(profile: Profile, window: Window, signals: Iterable[Signal] = ()) -> Report:
    """Return the report of a window whose rows were counted in the profile's bins.

    Raises BadRequest if a column of the profile was not counted, or counted in other bins.
    """
    columns = []
    for reference in profile.references:
        counts = window.counts.get(reference.name)
        if counts is None or len(counts) != len(reference.counts):
            raise BadRequest(
                f"column {reference.name!r}: expected {len(reference.counts)} counts in the window, "
                f"got {0 if counts is None else len(counts)}"
            )
        columns.append(ColumnCounts(reference, counts, window.moments.get(reference.name)))
    signals = tuple(signals)
    return Report(
        window.began,
        window.ended,
        window.rows,
        profile.rows,
        tuple(of_columns(columns, {signal.column for signal in signals})),
        compare_rows(profile.whole, window.rows, window.features, window.comoments),
        tuple(signal for signal in signals if signal.kind == "change"),
        tuple(signal for signal in signals if signal.kind == "alarm"),
    )


def of_columns(columns: Sequence[ColumnCounts], changed: Container[str] | None = None) -> list[ColumnReport]:
    """Return the reports of columns; all at once, since thirty take little longer than one.

    changed  names of those that certainly changed, all if None. The others get words so rarely that, if
             nothing has changed, none has any in 95 % of reports
    """
    rare_chance = 0.05 / (KINDS * max(len(columns), 1))
    reports = []
    for column, statistics in zip(columns, compare_columns(columns), strict=True):
        note = _note(column)
        chance = 0.05 if changed is None or column.reference.name in changed else rare_chance
        words = describe(column.reference, column.counts, statistics, chance) if statistics else note
        reports.append(ColumnReport(*column, statistics, words, note))
    return reports


def _note(column: ColumnCounts) -> str:
    """Say what is unusual about the reference or the window, and what it makes impossible to tell."""
    reference, counts, moments = column
    rows = reference.rows
    if not rows:
        return "no reference: only counted"
    if not counts.any():
        return "no rows in this window"
    if reference.counts[reference.missing] == rows:
        return "the reference has no values: all are missing"
    if isinstance(reference, Numeric):
        if not len(reference.edges):
            return "the reference has no values that float32 has as finite"
        if reference.minimum == reference.maximum:
            return _describe_single_value(reference, moments)
    elif (
        np.count_nonzero(reference.counts[: reference.unseen]) == 1 and not reference.counts[reference.unseen]
    ):
        return f"the reference has one category only, {quoted(_only_category(reference))}"
    elif 10 * reference.counts[reference.unseen] > 9 * rows:
        return "hardly any value comes again, as with ids: of such a column little can be told"
    if counts[reference.missing] == counts.sum():
        return "all values in this window are missing"
    return ""


def _describe_single_value(reference: Numeric, moments: Array | None) -> str:
    """Describe a column whose reference has one value, so no spread to measure a shift by."""
    least, greatest = (reference.minimum,) * 2 if moments is None or not moments[0] else moments[3:5].tolist()
    window_values = [text(value, reference.temporal) for value in dict.fromkeys((least, greatest))]
    description = f"the reference has one value only, {text(reference.minimum, reference.temporal)}"
    return (
        description
        if (least, greatest) == (reference.minimum,) * 2
        else f"{description}; here {' to '.join(window_values)}"
    )


def _only_category(reference: Categorical) -> str:
    return reference.categories[int(reference.counts[: reference.unseen].argmax())]
