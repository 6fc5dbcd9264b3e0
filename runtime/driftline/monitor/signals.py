"""What a detector says when it is certain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Any, Self

from driftline.monitor.statistics import Statistic, number


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
    columns     of the model as a whole: its columns, that of most evidence first
    statistics  by name, of the column, or of whole rows
    words       the change in words
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

    def __repr__(self) -> str:
        whose = repr(self.column) if self.column else "the model as a whole"
        return f"Signal({self.kind} of {whose} after {self.rows:,} rows: {self.words})"

    def to_dict(self) -> dict[str, Any]:
        """Everything as what JSON knows; a number that is not finite is None, `when` is ISO 8601."""
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
        }

    @classmethod
    def of_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The signal that `to_dict` has written."""
        statistics = {name: Statistic.of_dict(one) for name, one in fields["statistics"].items()}
        evidence = fields["evidence"]
        return cls(
            **{key: fields[key] for key in ("kind", "model", "version", "column", "rows", "words")},
            when=datetime.fromisoformat(fields["when"]),
            evidence=inf if evidence is None else evidence,
            columns=tuple(fields["columns"]),
            statistics=statistics,
        )
