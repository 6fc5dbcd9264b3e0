"""Groups of signals: one fault upstream changes many columns, and is reported once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from driftline.monitor.detection.onset import since_when
from driftline.monitor.detection.signals import Signal, describe_changes, join_first

MIN_COLUMNS = 3
"""The fewest columns that get a hint, if they are at least half of all."""


@dataclass(frozen=True, slots=True)
class Group:
    """Signals of one kind, in order of time."""

    kind: str
    signals: tuple[Signal, ...]

    def describe(self, columns: int) -> str:
        """Describe the group in words; `columns` is how many the model has."""
        if len(self.signals) == 1:
            return _describe_single(self.signals[0])
        names = {signal.column for signal in self.signals}
        subject = (
            f"{len(names - {''}):,} of {columns:,} columns{' and of the model as a whole' * ('' in names)}"
        )
        worst = sorted(self.signals, key=lambda signal: -_psi(signal))
        return f"{subject}, {self._when()}: {describe_changes(worst)}{self._hint(len(names - {''}), columns)}"

    def _when(self) -> str:
        first, last = self.signals[0], self.signals[-1]
        until = f" to {last.when:%Y-%m-%d %H:%M:%S}" if last.when != first.when else ""
        when = f"{first.when:%Y-%m-%d %H:%M:%S}{until} UTC, after {first.rows:,} rows"
        return when + since_when(signal.onset for signal in self.signals)

    def _hint(self, changed: int, columns: int) -> str:
        onsets = [signal.onset for signal in self.signals if signal.onset is not None]
        if changed < MIN_COLUMNS or 2 * changed < columns or len(onsets) < len(self.signals):
            return ""
        if all(onset.first for onset in onsets):
            return "; so many from the first row on: is the profile of data like this?"
        return "; so many about at once mostly have one cause: look first at where the data comes from"


def _describe_single(signal: Signal) -> str:
    subject = signal.column or "the model as a whole"
    columns = f" ({join_first(signal.columns)})" if signal.columns else ""
    when = Group(signal.kind, (signal,))._when()
    return f"{subject}{columns}, {when}" + (f": {signal.words}" if signal.words else "")


def groups(signals: Sequence[Signal]) -> list[Group]:
    """Return signals in groups: all groups of alarms, then those of changes, each in order of time.

    A group has one kind. Its first signal opens it; a later one belongs to it if it had begun by the time
    the first was raised. A change of a column that has an alarm is left out: the alarm covers it.
    """
    columns_with_alarms = {signal.column for signal in signals if signal.kind == "alarm"}
    grouped: list[list[Signal]] = []
    for kind in ("alarm", "change"):
        members = [
            signal
            for signal in signals
            if signal.kind == kind and (kind == "alarm" or signal.column not in columns_with_alarms)
        ]
        group: list[Signal] = []
        for signal in sorted(members, key=lambda signal: signal.when):
            start = signal.when if signal.onset is None else signal.onset.when
            if not group or start > group[0].when:
                group = []
                grouped.append(group)
            group.append(signal)
    return [Group(members[0].kind, tuple(members)) for members in grouped]


def _psi(signal: Signal) -> float:
    psi = signal.statistics.get("psi")
    return psi.value if psi is not None else 0.0
