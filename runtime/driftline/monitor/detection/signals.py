"""What a detector reports when it is certain, and its log line."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Any, Self

from driftline.monitor.comparison.statistics import Statistic, number
from driftline.monitor.detection.onset import Onset, since_when

log = logging.getLogger("driftline.monitor")

MAX_DESCRIBED = 3
"""How many columns are described in words when several have changed, or only all together for certain."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Signal:
    """A change or an alarm, of a column or of the model as a whole.

    kind        'change': no longer the reference's distribution; 'alarm': further from it than is harmless
    model       its name; '' outside a server
    version     of the model; 0 outside a server
    column      its name; '' for the model as a whole
    when        in UTC
    rows        since the window began
    evidence    log M of the detector
    columns     of the model as a whole: its columns, most evidence first
    statistics  by name, of the column's rows since its onset, or of the window's whole rows
    words       the change since the onset in words
    onset       since when, about; None if all rows came in one look, or in an older checkpoint
    """

    kind: str
    model: str
    version: int
    column: str
    when: datetime
    rows: int
    evidence: float
    columns: tuple[str, ...]
    statistics: Mapping[str, Statistic]
    words: str
    onset: Onset | None = None

    def __repr__(self) -> str:
        subject = repr(self.column) if self.column else "the model as a whole"
        return f"Signal({self.kind} of {subject} after {self.rows:,} rows: {self.words})"

    @property
    def since(self) -> str:
        """The onset in words, after a comma; '' if unknown."""
        return since_when([self.onset])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types; a number that is not finite is None, `when` is ISO 8601."""
        return {
            "kind": self.kind,
            "model": self.model,
            "version": self.version,
            "column": self.column,
            "when": self.when.isoformat(),
            "rows": self.rows,
            "evidence": number(self.evidence),
            "columns": list(self.columns),
            "statistics": {name: statistic.to_dict() for name, statistic in self.statistics.items()},
            "words": self.words,
            "onset": self.onset.to_dict() if self.onset is not None else None,
        }

    @classmethod
    def of_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Return the signal that `to_dict` wrote."""
        statistics = {name: Statistic.of_dict(statistic) for name, statistic in fields["statistics"].items()}
        evidence, onset = fields["evidence"], fields.get("onset")
        return cls(
            **{key: fields[key] for key in ("kind", "model", "version", "column", "rows", "words")},
            when=datetime.fromisoformat(fields["when"]),
            evidence=inf if evidence is None else evidence,
            columns=tuple(fields["columns"]),
            statistics=statistics,
            onset=Onset.of_dict(onset) if onset is not None else None,
        )


def log_signals(signals: Sequence[Signal], columns: int) -> None:
    """Log one line for the signals of a look at a model, all of one kind: alarms as WARNING, changes as INFO.

    columns  how many the model has

    JSON logs have a line for each signal, see `logs`: their readers handle each separately.
    """
    first = signals[0]
    entries = [{"message": _log_line(signal), "signal": signal.to_dict()} for signal in signals]
    level = logging.WARNING if first.kind == "alarm" else logging.INFO
    if len(signals) == 1:
        log.log(level, "%s", entries[0]["message"], extra={"signal": entries[0]["signal"]})
        return
    log.log(
        level, "%s%s of %d of %d columns after %d rows%s: %s",
        _model_prefix(first), first.kind, len(signals), columns, first.rows,
        since_when(signal.onset for signal in signals), describe_changes(signals), extra={"each": entries},
    )  # fmt: skip


def log_acknowledged(signals: Sequence[Signal]) -> None:
    """Log one line for acknowledged signals, if there were any."""
    if signals:
        alarms_first = sorted(signals, key=lambda signal: signal.kind)
        names = join_first(
            [f"{signal.kind} of {signal.column or 'the model as a whole'}" for signal in alarms_first]
        )
        count = f"{len(signals)} signal{'s are' if len(signals) > 1 else ' is'}"
        log.info("%s%s acknowledged: %s", _model_prefix(signals[0]), count, names)


def describe_changes(signals: Sequence[Signal]) -> str:
    """Return what changed in the first MAX_DESCRIBED columns, and how many more there are."""
    return join_first([f"{signal.column} ({_psi_prefix(signal)}{signal.words})" for signal in signals])


def join_first(texts: Sequence[str]) -> str:
    """Return the first MAX_DESCRIBED, and how many more there are."""
    more = [f"{len(texts) - MAX_DESCRIBED} more"] if len(texts) > MAX_DESCRIBED else []
    return ", ".join([*texts[:MAX_DESCRIBED], *more])


def _log_line(signal: Signal) -> str:
    subject = (
        f"column {signal.column}" if signal.column else f"the model as a whole ({join_first(signal.columns)})"
    )
    when = f"after {signal.rows} rows{signal.since}"
    return f"{_model_prefix(signal)}{signal.kind} of {subject} {when}: {signal.words}"


def _model_prefix(signal: Signal) -> str:
    version = f" {signal.version}" if signal.version else ""
    return f"{signal.model}{version}: " if signal.model else ""


def _psi_prefix(signal: Signal) -> str:
    psi = signal.statistics.get("psi")
    return f"PSI {psi.value:.2g}: " if psi is not None else ""
