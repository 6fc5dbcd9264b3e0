"""Signals made from the detectors' findings: since when, and what has changed since then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from driftline.monitor.comparison.comparing import ColumnCounts, compare_rows
from driftline.monitor.comparison.wording import NONE, describe_all
from driftline.monitor.detection.detector import Detectors, Finding
from driftline.monitor.detection.onset import Look, Onset
from driftline.monitor.detection.signals import MAX_DESCRIBED, Signal
from driftline.monitor.reference.column import Reference
from driftline.monitor.reference.profile import Profile
from driftline.monitor.reporting import report
from driftline.monitor.reporting.report import ColumnReport
from driftline.monitor.window import Window


@dataclass(frozen=True, slots=True)
class Signaller:
    """Makes the signals of a version.

    profile     its reference
    references  of the columns, as the detectors have them: numeric ones first
    detectors   whose findings they are
    model       its name
    version     its number
    """

    profile: Profile
    references: Sequence[Reference]
    detectors: Detectors
    model: str
    version: int

    def columns_of(self, finding: Finding) -> tuple[str, ...]:
        """Return the columns of a finding; '' for the model as a whole."""
        return ("",) if finding.together else self._names_of(finding)

    def signals(
        self, finding: Finding, new_columns: Sequence[str], window: Window, rows: int
    ) -> list[Signal]:
        """Return a signal for each new column of a finding, or one for the model as a whole.

        window  the current one
        rows    observed so far
        """
        onsets = self.detectors.onsets(finding, rows)
        if finding.together:
            return [self._model_signal(finding, onsets[0], window, rows)]
        names = self.columns_of(finding)
        indices = [index for index, name in enumerate(names) if name in new_columns]
        columns = [finding.columns[index] for index in indices]
        reports = self._onset_reports(columns, [onsets[index] for index in indices], window, rows)
        unexplained = [place for place, column in enumerate(reports) if column.words == NONE]
        in_window = self._window_reports(window, [columns[place] for place in unexplained])
        for place, column in zip(unexplained, in_window, strict=True):
            reports[place] = column
        return [
            Signal(
                finding.kind, self.model, self.version, column.name, window.ended, window.rows,
                finding.evidence[index], (), column.statistics, column.words, onsets[index],
            )
            for index, column in zip(indices, reports, strict=True)
        ]  # fmt: skip

    def _model_signal(self, finding: Finding, onset: Onset | None, window: Window, rows: int) -> Signal:
        """Return the signal of the model as a whole.

        It has the statistics of the window's whole rows, and the changes of the columns with most evidence.
        """
        onsets = [onset] * len(finding.columns)
        words = _describe_columns(self._onset_reports(finding.columns, onsets, window, rows))
        if words == NONE:
            words = _describe_columns(self._window_reports(window, finding.columns))
        whole = compare_rows(self.profile.whole, window.rows, window.features, window.comoments)
        return Signal(
            finding.kind, self.model, self.version, "", window.ended, window.rows,
            finding.evidence[0], self._names_of(finding), whole, words, onset,
        )  # fmt: skip

    def _names_of(self, finding: Finding) -> tuple[str, ...]:
        return tuple(self.references[column].name for column in finding.columns)

    def _window_reports(self, window: Window, columns: Sequence[int]) -> list[ColumnReport]:
        """Return reports of a whole window: rows closer to the reference than chance allows have no onset."""
        return report.of_columns([self._window_counts(window, column) for column in columns])

    def _window_counts(self, window: Window, column: int) -> ColumnCounts:
        reference = self.references[column]
        return ColumnCounts(reference, window.counts[reference.name], window.moments.get(reference.name))

    def _onset_reports(
        self, columns: Sequence[int], onsets: Sequence[Onset | None], window: Window, rows: int
    ) -> list[ColumnReport]:
        """Return reports of the rows since each column's onset, or of the window if there is no onset.

        Before the onset, a window may have been normal for long.
        """
        ends = np.cumsum([len(reference.counts) for reference in self.references])[:-1]

        @cache
        def total(onset: Onset) -> tuple[list[np.ndarray], Look]:
            look = self.detectors.looks.total(onset, rows)
            return np.split(look.counts, ends), look

        columns_counts = []
        for column, onset in zip(columns, onsets, strict=True):
            if onset is None:
                columns_counts.append(self._window_counts(window, column))
            else:
                counts, look = total(onset)
                look_moments = look.moments[column] if column < len(look.moments) else None
                columns_counts.append(ColumnCounts(self.references[column], counts[column], look_moments))
        return report.of_columns(columns_counts)


def _describe_columns(columns: Sequence[ColumnReport]) -> str:
    descriptions = [(column.name, column.words) for column in columns[:MAX_DESCRIBED]]
    return describe_all(descriptions, [column.statistics for column in columns])
