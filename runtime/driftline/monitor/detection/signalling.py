"""Signals made from the detectors' findings: since when, and what has changed since then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from driftline.monitor.comparison.comparing import Counted, compare_rows
from driftline.monitor.comparison.wording import NONE, describe_all
from driftline.monitor.detection.detector import Detectors, Finding
from driftline.monitor.detection.onset import Look, Onset
from driftline.monitor.detection.signals import TOLD, Signal
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

    def named(self, finding: Finding) -> tuple[str, ...]:
        """Return the columns of a finding; '' for the model as a whole."""
        return ("",) if finding.together else self._ranked(finding)

    def signals(self, finding: Finding, fresh: Sequence[str], window: Window, rows: int) -> list[Signal]:
        """Return a signal for each fresh column of a finding, or one for the model as a whole.

        window  the current one
        rows    observed so far
        """
        onsets = self.detectors.onsets(finding, rows)
        if finding.together:
            return [self._of_all(finding, onsets[0], window, rows)]
        names = self.named(finding)
        some = [index for index, name in enumerate(names) if name in fresh]
        columns = [finding.columns[index] for index in some]
        reports = self._reports(columns, [onsets[index] for index in some], window, rows)
        untold = [place for place, one in enumerate(reports) if one.words == NONE]
        for place, one in zip(untold, self._within(window, [columns[at] for at in untold]), strict=True):
            reports[place] = one
        return [
            Signal(
                finding.kind, self.model, self.version, one.name, window.ended, window.rows,
                finding.evidence[index], (), one.statistics, one.words, onsets[index],
            )
            for index, one in zip(some, reports, strict=True)
        ]  # fmt: skip

    def _of_all(self, finding: Finding, onset: Onset | None, window: Window, rows: int) -> Signal:
        """Return the signal of the model as a whole.

        It has the statistics of the window's whole rows, and the changes of the columns with most evidence.
        """
        onsets = [onset] * len(finding.columns)
        words = _of_all(self._reports(finding.columns, onsets, window, rows))
        if words == NONE:
            words = _of_all(self._within(window, finding.columns))
        whole = compare_rows(self.profile.whole, window.rows, window.features, window.comoments)
        return Signal(
            finding.kind, self.model, self.version, "", window.ended, window.rows,
            finding.evidence[0], self._ranked(finding), whole, words, onset,
        )  # fmt: skip

    def _ranked(self, finding: Finding) -> tuple[str, ...]:
        return tuple(self.references[column].name for column in finding.columns)

    def _within(self, window: Window, columns: Sequence[int]) -> list[ColumnReport]:
        """Return reports of a whole window: rows closer to the reference than chance allows have no onset."""
        return report.of_columns([self._in_window(window, column) for column in columns])

    def _in_window(self, window: Window, column: int) -> Counted:
        reference = self.references[column]
        return Counted(reference, window.counts[reference.name], window.moments.get(reference.name))

    def _reports(
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

        counted = []
        for column, onset in zip(columns, onsets, strict=True):
            if onset is None:
                counted.append(self._in_window(window, column))
            else:
                counts, look = total(onset)
                moment = look.moments[column] if column < len(look.moments) else None
                counted.append(Counted(self.references[column], counts[column], moment))
        return report.of_columns(counted)


def _of_all(columns: Sequence[ColumnReport]) -> str:
    told = [(one.name, one.words) for one in columns[:TOLD]]
    return describe_all(told, [one.statistics for one in columns])
