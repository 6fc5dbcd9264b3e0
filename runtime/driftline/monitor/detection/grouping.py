"""Groups of signals: one fault upstream changes many columns, and is reported once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from driftline.monitor.detection.onset import since_when
from driftline.monitor.detection.signals import Signal, first_of, told_of

MANY = 3
"""The fewest columns that get a hint, if they are at least half of all."""


@dataclass(frozen=True, slots=True)
class Group:
    """Signals of one kind, in order of time."""

    kind: str
    signals: tuple[Signal, ...]

    def told(self, columns: int) -> str:
        """Describe the group in words; `columns` is how many the model has."""
        if len(self.signals) == 1:
            return _alone(self.signals[0])
        names = {one.column for one in self.signals}
        what = f"{len(names - {''}):,} of {columns:,} columns{' and of the model as a whole' * ('' in names)}"
        worst = sorted(self.signals, key=lambda one: -_psi(one))
        return f"{what}, {self._when()}: {told_of(worst)}{self._hint(len(names - {''}), columns)}"

    def _when(self) -> str:
        first, last = self.signals[0], self.signals[-1]
        until = f" to {last.when:%Y-%m-%d %H:%M:%S}" if last.when != first.when else ""
        when = f"{first.when:%Y-%m-%d %H:%M:%S}{until} UTC, after {first.rows:,} rows"
        return when + since_when(one.onset for one in self.signals)

    def _hint(self, named: int, columns: int) -> str:
        onsets = [one.onset for one in self.signals if one.onset is not None]
        if named < MANY or 2 * named < columns or len(onsets) < len(self.signals):
            return ""
        if all(onset.first for onset in onsets):
            return "; so many from the first row on: is the profile of data like this?"
        return "; so many about at once mostly have one cause: look first at where the data comes from"


def _alone(signal: Signal) -> str:
    what = signal.column or "the model as a whole"
    named = f" ({first_of(signal.columns)})" if signal.columns else ""
    when = Group(signal.kind, (signal,))._when()
    return f"{what}{named}, {when}" + (f": {signal.words}" if signal.words else "")


def groups(signals: Sequence[Signal]) -> list[Group]:
    """Return signals in groups: all groups of alarms, then those of changes, each in order of time.

    A group has one kind. Its first signal opens it; a later one belongs to it if it had begun by the time
    the first was raised. A change of a column that has an alarm is left out: the alarm covers it.
    """
    alarming = {one.column for one in signals if one.kind == "alarm"}
    found: list[list[Signal]] = []
    for kind in ("alarm", "change"):
        some = [
            one for one in signals if one.kind == kind and (kind == "alarm" or one.column not in alarming)
        ]
        opened: list[Signal] = []
        for one in sorted(some, key=lambda one: one.when):
            begun = one.when if one.onset is None else one.onset.when
            if not opened or begun > opened[0].when:
                opened = []
                found.append(opened)
            opened.append(one)
    return [Group(some[0].kind, tuple(some)) for some in found]


def _psi(signal: Signal) -> float:
    psi = signal.statistics.get("psi")
    return psi.value if psi is not None else 0.0
