"""The two detectors of every column: `change`, however small, and `alarm`, beyond what is harmless.

Both are Shiryaev-Roberts e-detectors on rank bins (see driftline_kernels.detector). M of a column is the sum
of its bets; it grows by at most one for every row on average while nothing has changed. A signal takes at
least columns x A from the sum over the columns, so the expected rows to the first are at least A, and it
comes within n rows with a chance of at most n / A, whatever depends on what among the columns, and however
often one looks. After a signal its columns begin anew. For `alarm` the same holds again; for `change` it
would only if the signal had told nothing of the reference's own error. In simulations there were 0.3 to 0.8
n / A.

A bet is made of what came before, so rows that are looked at all at once would never be evidence: those of
a nightly batch, say. A look at many rows is therefore as several looks, the first at some hundred rows, each
other at as many as were before it. Which row is in which of them is drawn by lot, so that their counts are
all that must be known. While nothing changes the order of rows tells nothing, so these bets are as fair as
any; what they come to is judged behind the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftline.monitor.comparison.distributions import chi_square_above
from driftline.monitor.detection.onset import Look, Looks, Onset
from driftline.monitor.reference.column import Numeric, Reference
from driftline.monitor.reference.ranks import CUTS, seed_of
from driftline.tensors import Array
from driftline_kernels import detector

HALF_LIVES = np.array([500.0, 5000.0])
"""Rows after which bets have forgotten half: a short memory for sudden drifts, a long one for slow ones."""

FLOOR = 0.005
"""The least share of a rank bin that `alarm` bets against: what was never seen alarms at about 2 %."""

LEAST = 1e-9
"""A share to divide by where a rank bin has no gap, as in references of hardly any rows."""

DELTA = 0.01
"""How likely the true distribution of any column is further from the reference than its radius allows for."""

BINS = CUTS + 1

FEW_ROWS = 100
"""A look at fewer than twice as many is one."""


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """A detector's signal.

    kind      'change' or 'alarm'
    columns   those whose M has passed; or, if none has on its own, all, the likeliest first
    together  whether only the columns together have
    evidence  log M: of each column, or of all together
    recent    (n, BINS) rows of the columns' rank bins lately, as the short memory has them; of all together,
              of the first n columns: of those that have as much evidence as the mean must
    """

    kind: str
    columns: tuple[int, ...]
    together: bool
    evidence: tuple[float, ...]
    recent: Array


class Detectors:
    """Bets on the columns of a reference, look by look.

    references       of the columns, with rows
    false_alarm_rows A: on average so many rows pass at least before a false signal
    tolerance        the distance, as a PSI, that is harmless
    """

    def __init__(self, references: Sequence[Reference], false_alarm_rows: float, tolerance: float) -> None:
        self._threshold = float(np.log(false_alarm_rows))
        self._columns = len(references)
        self._gaps = np.array([reference.gaps for reference in references])
        ranks = self._gaps.sum(axis=1, keepdims=True)
        floored = np.maximum(self._gaps / ranks, FLOOR)
        self._floored = floored / floored.sum(axis=1, keepdims=True)
        self._radius = radius(ranks[:, 0] - 1, tolerance, self._columns)
        self._ranks = RankBins(references)
        self._state = detector.start(self._columns, len(HALF_LIVES), BINS)
        bins = sum(len(reference.counts) for reference in references)
        self.looks = Looks(bins, sum(isinstance(reference, Numeric) for reference in references))

    def look(self, look: Look, rows: int) -> list[Finding]:
        """Bet once more; what has passed its threshold.

        look  what has come since the last one
        rows  how many these are; a column may have fewer
        """
        for part in self._ranks.parts(look.counts, rows):
            detector.look(part, self._gaps, self._floored, self._radius, HALF_LIVES, self._state)
        if rows:
            self.looks.add(look)
        found = []
        for which, (kind, log_m) in enumerate((("change", self._state.change), ("alarm", self._state.alarm))):
            # A maximum first: M is far from its threshold at nearly every look.
            if log_m.max() >= self._threshold:
                found += self._judge(which, kind, log_m)
        return found

    def _judge(self, which: int, kind: str, log_m: Array) -> list[Finding]:
        mean = np.logaddexp.reduce(log_m, axis=1) - np.log(len(HALF_LIVES))
        together = float(np.logaddexp.reduce(mean) - np.log(self._columns))
        if together < self._threshold:
            return []
        order = np.argsort(-mean)
        named = [int(column) for column in order if mean[column] >= self._threshold + np.log(self._columns)]
        if named:
            columns, evidence = named, [float(mean[column]) for column in named]
            telling = len(named)
        else:
            columns, evidence = [int(column) for column in order], [together]
            telling = max(1, int((mean >= self._threshold).sum()))
        recent = self._state.recent[columns[:telling], which, 0]
        self._restart(which, log_m, named or slice(None))
        return [Finding(kind, tuple(columns), not named, tuple(evidence), recent)]

    def onsets(self, finding: Finding, rows: int) -> list[Onset | None]:
        """Since when each column of a finding differs, or all together, if that can be told; `rows` are
        observed by now.

        Together, columns are taken for independent.
        """
        telling = finding.columns[: len(finding.recent)]
        if finding.together:
            return [self._onset(telling, finding.recent, rows)]
        return [
            self._onset((column,), recent[np.newaxis], rows)
            for column, recent in zip(telling, finding.recent, strict=True)
        ]

    def _onset(self, columns: tuple[int, ...], recent: Array, rows: int) -> Onset | None:
        """Of some columns together; `recent` (columns, BINS) is what they are now."""
        counts = [self.looks.counts(self._ranks.bins(column)) for column in columns]

        def evidence(now: Iterable[Array]) -> Array:
            return np.asarray(np.sum(list(map(self._evidence, columns, counts, now)), axis=0))

        begin = self.looks.begin(evidence(recent)[0])
        since = (
            each[begin:].sum(axis=0) @ self._ranks.split(column)
            for column, each in zip(columns, counts, strict=True)
        )
        return self.looks.onset(evidence(since), rows)

    def _evidence(self, column: int, counts: Array, now: Array) -> Array:
        """(3, looks): how much a column's counts (looks, bins) speak for what it is now, (BINS,) rows: their
        log likelihood ratio; what it would be if they were as the reference is, and if they were as now."""
        shares = np.maximum(self._gaps[column] / self._gaps[column].sum(), LEAST)
        bet = now + detector.KAPPA * shares
        bet /= bet.sum()
        gains = np.log(bet / shares)
        rows = counts.sum(axis=1)
        return np.array(
            [counts @ (self._ranks.split(column) @ gains), rows * (shares @ gains), rows * (bet @ gains)]
        )

    def _restart(self, which: int, log_m: Array, columns: list[int] | slice) -> None:
        log_m[columns] = -np.inf
        self._state.recent[columns, which] = 0
        if which == 0:
            self._state.seen[columns] = 0

    def snapshot(self) -> dict[str, Any]:
        """All that they remember, as arrays, and what is drawn next, to go on from with `restore`."""
        arrays = {name: array.copy() for name, array in self._state._asdict().items()}
        return {**arrays, **self.looks.snapshot(), "random": self._ranks.random.bit_generator.state}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from a snapshot, by the same references; ValueError if it was of others."""
        for name, array in self._state._asdict().items():
            if array.shape != snapshot[name].shape:
                raise ValueError(f"{name}: expected {array.shape}, got {snapshot[name].shape}")
        self.looks.restore(snapshot)
        for name, array in self._state._asdict().items():
            array[:] = snapshot[name]
        self._ranks.random.bit_generator.state = snapshot["random"]


def radius(rows: Array, tolerance: float, columns: int) -> Array:
    """(columns,): how far a column may be from its reference, as sqrt(sum (p - b)^2 / b), and be harmless.

    What is tolerated, and what a sample of so many rows may itself be off by: Pearson's statistic of m rows
    is about chi-square with BINS - 1 degrees of freedom.
    """
    return np.asarray(np.sqrt(chi_square_above(DELTA / columns, BINS - 1) / rows) + np.sqrt(tolerance))


class RankBins:
    """Splits rows that were counted in natural bins over the rank bins of their columns.

    Most natural bins lie within one rank bin. Those that don't hold equal values: each of their rows goes to
    a rank bin by a share that was drawn when the reference was made, so a group is split multinomially.
    """

    def __init__(self, references: Sequence[Reference]) -> None:
        splits = np.concatenate([reference.split for reference in references])
        column = np.repeat(np.arange(len(references)), [len(reference.split) for reference in references])
        self._columns = len(references)
        self._references = tuple(references)
        self._ends = np.cumsum([len(reference.split) for reference in references])
        self._tied = np.flatnonzero(splits.max(axis=1) != 1.0)
        target = column * BINS + splits.argmax(axis=1)
        target[self._tied] = self._columns * BINS  # theirs are drawn
        self._target = target.astype(np.min_scalar_type(self._columns * BINS))
        self._shares = splits[self._tied] / splits[self._tied].sum(axis=1, keepdims=True)
        self._drawn, self._first = np.unique(column[self._tied], return_index=True)
        self.random = np.random.default_rng(seed_of(splits, *(one.counts for one in references)))

    def of(self, counts: Array) -> Array:
        """(columns, BINS) int64: the rows of each rank bin."""
        size = self._columns * BINS
        ranks = np.bincount(self._target, counts, size + 1)[:size].astype(np.int64)
        ranks = ranks.reshape(self._columns, BINS)
        tied = counts[self._tied]
        if tied.any():
            ranks[self._drawn] += np.add.reduceat(self.random.multinomial(tied, self._shares), self._first)
        return ranks

    def bins(self, column: int) -> slice:
        """A column's natural bins among those of all."""
        return slice(self._ends[column] - len(self.split(column)), self._ends[column])

    def split(self, column: int) -> Array:
        """(bins, BINS): the shares of a column's natural bins that are in each of its rank bins."""
        return self._references[column].split

    def parts(self, counts: Array, rows: int) -> Array:
        """(parts, columns, BINS) int64: the rows of each rank bin, in parts that are bet on in turn.

        rows  how many there are; a column may have fewer
        """
        ranks = self.of(counts)
        if rows < 2 * FEW_ROWS:
            return ranks[np.newaxis]
        shares = shares_of(int(ranks.sum(axis=1).max(initial=0)))
        if len(shares) == 1:
            return ranks[np.newaxis]
        return np.ascontiguousarray(np.moveaxis(self.random.multinomial(ranks, shares), -1, 0))


def shares_of(rows: int) -> Array:
    """(parts,): the shares of a look's rows that are bet on in turn, each as large as all before it.

    The first is of FEW_ROWS, and of up to twice as many.
    """
    doublings = max(rows // FEW_ROWS, 1).bit_length() - 1
    return 0.5 ** np.array([doublings, *range(doublings, 0, -1)], np.float64)
