"""The two detectors of every column: `change`, however small, and `alarm`, beyond what is harmless.

Both are Shiryaev-Roberts e-detectors on rank bins (see driftline_kernels.detector). M of a column is the sum
of its bets; while nothing has changed, it grows by at most one for every row on average. A signal removes at
least columns x A from the sum over the columns. So the expected number of rows to the first signal is at
least A, and it comes within n rows with a probability of at most n / A, however the columns depend on each
other and however often the detectors look. After a signal, its columns start afresh. The guarantee then holds
again for `alarm`; for `change` it would only if the signal had revealed nothing of the reference's own error.
Simulations gave 0.3 to 0.8 n / A.

A bet uses only earlier rows, so rows in a single look, such as those of a nightly batch, would never be
evidence. A look at many rows is therefore split into several: the first at some hundred rows, each later one
at as many as came before it. Rows are assigned to them at random, so only the counts are needed. While
nothing changes, the order of rows carries no information, so these bets are as fair as any. M is compared
with its threshold after the last of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftline.monitor.comparison.distributions import chi_square_upper_quantile
from driftline.monitor.detection.onset import Look, Looks, Onset
from driftline.monitor.reference.column import Numeric, Reference
from driftline.monitor.reference.ranks import CUTS, seed_of
from driftline.tensors import Array
from driftline_kernels import detector

HALF_LIVES = np.array([500.0, 5000.0])
"""Rows after which bets have forgotten half: a short memory for sudden drifts, a long one for slow ones."""

FLOOR = 0.005
"""The least share of a rank bin that `alarm` bets against: values never seen before alarm at about 2 %."""

DELTA = 0.01
"""How likely some column's true distribution is further from its reference than its radius allows for."""

BINS = CUTS + 1

FEW_ROWS = 100
"""A look at fewer than twice as many rows is not split."""


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """A detector's signal.

    kind      'change' or 'alarm'
    columns   those whose M has passed its threshold; if none has alone, all of them; most evidence first
    together  whether only the columns together have passed it
    evidence  log M: of each column, or of all together
    recent    (n, BINS) recent rows in the columns' rank bins, from the short memory; if together, of the
              first n columns: those whose own evidence reaches the threshold of the mean, at least one
    """

    kind: str
    columns: tuple[int, ...]
    together: bool
    evidence: tuple[float, ...]
    recent: Array


class Detectors:
    """Bets on the columns of a reference, look by look.

    references       of the columns, with rows
    false_alarm_rows A: on average, at least so many rows pass before a false signal
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
        """Bet on the rows since the last look; return what has passed its threshold.

        look  their counts and moments
        rows  how many there are; a column may have fewer
        """
        for part in self._ranks.parts(look.counts, rows):
            detector.look(part, self._gaps, self._floored, self._radius, HALF_LIVES, self._state)
        if rows:
            self.looks.add(look)
        findings = []
        for index, (kind, log_m) in enumerate((("change", self._state.change), ("alarm", self._state.alarm))):
            # The maximum first: at nearly every look, M is far from its threshold.
            if log_m.max() >= self._threshold:
                findings += self._judge(index, kind, log_m)
        return findings

    def _judge(self, index: int, kind: str, log_m: Array) -> list[Finding]:
        mean = np.logaddexp.reduce(log_m, axis=1) - np.log(len(HALF_LIVES))
        together = float(np.logaddexp.reduce(mean) - np.log(self._columns))
        if together < self._threshold:
            return []
        order = np.argsort(-mean)
        certain = [int(column) for column in order if mean[column] >= self._threshold + np.log(self._columns)]
        if certain:
            columns, evidence = certain, [float(mean[column]) for column in certain]
            telling_count = len(certain)
        else:
            columns, evidence = [int(column) for column in order], [together]
            telling_count = max(1, int((mean >= self._threshold).sum()))
        recent = self._state.recent[columns[:telling_count], index, 0]
        self._restart(index, log_m, certain or slice(None))
        return [Finding(kind, tuple(columns), not certain, tuple(evidence), recent)]

    def onsets(self, finding: Finding, rows: int) -> list[Onset | None]:
        """Return since when each column of a finding differs, or all together; None where this is unknown.

        rows  observed so far

        Together, columns are treated as independent.
        """
        columns = finding.columns[: len(finding.recent)]
        if finding.together:
            return [self._onset(columns, finding.recent, rows)]
        return [
            self._onset((column,), recent[np.newaxis], rows)
            for column, recent in zip(columns, finding.recent, strict=True)
        ]

    def _onset(self, columns: tuple[int, ...], recent: Array, rows: int) -> Onset | None:
        """Return the onset of some columns together; `recent` (columns, BINS) are their latest rows."""
        counts = [self.looks.counts(self._ranks.bins(column)) for column in columns]

        def evidence(distributions: Iterable[Array]) -> Array:
            return np.asarray(np.sum(list(map(self._evidence, columns, counts, distributions)), axis=0))

        first = self.looks.start_index(evidence(recent)[0])
        rows_since = (
            rows_in_bins[first:].sum(axis=0) @ self._ranks.split(column)
            for column, rows_in_bins in zip(columns, counts, strict=True)
        )
        return self.looks.onset(evidence(rows_since), rows)

    def _evidence(self, column: int, counts: Array, present: Array) -> Array:
        """Return (3, looks): the log likelihood ratio of a column's counts (looks, bins) for its `present`
        distribution, (BINS,) rows, against the reference; its expectation under the reference, and under
        `present`."""
        shares = self._gaps[column] / self._gaps[column].sum()
        bet = present + detector.KAPPA * shares
        bet /= bet.sum()
        gains = np.log(bet / shares)
        rows = counts.sum(axis=1)
        return np.array(
            [counts @ (self._ranks.split(column) @ gains), rows * (shares @ gains), rows * (bet @ gains)]
        )

    def _restart(self, index: int, log_m: Array, columns: list[int] | slice) -> None:
        log_m[columns] = -np.inf
        self._state.recent[columns, index] = 0
        if index == 0:
            self._state.seen[columns] = 0

    def snapshot(self) -> dict[str, Any]:
        """Return the state, as arrays, and that of the random generator, to continue from with `restore`."""
        arrays = {name: array.copy() for name, array in self._state._asdict().items()}
        return {**arrays, **self.looks.snapshot(), "random": self._ranks.random.bit_generator.state}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continue from a snapshot made with the same references.

        Raises ValueError, or whatever a damaged one causes; then nothing has changed.
        """
        for name, array in self._state._asdict().items():
            if array.shape != snapshot[name].shape:
                raise ValueError(f"{name}: expected {array.shape}, got {snapshot[name].shape}")
        random = np.random.default_rng()
        random.bit_generator.state = snapshot["random"]
        self.looks.restore(snapshot)
        for name, array in self._state._asdict().items():
            array[:] = snapshot[name]
        self._ranks.random = random


def radius(rows: Array, tolerance: float, columns: int) -> Array:
    """Return (columns,): each column's harmless distance from its reference, as sqrt(sum (p - b)^2 / b).

    It is the tolerated distance plus what a sample of so many rows may itself be off by: Pearson's statistic
    of m rows is about chi-square with BINS - 1 degrees of freedom.
    """
    return np.asarray(
        np.sqrt(chi_square_upper_quantile(DELTA / columns, BINS - 1) / rows) + np.sqrt(tolerance)
    )


class RankBins:
    """Distributes rows counted in natural bins over the rank bins of their columns.

    Most natural bins lie within one rank bin. Those that don't hold equal values: each of their rows goes to
    a rank bin with a probability drawn when the reference was made, so a group is split multinomially.
    """

    def __init__(self, references: Sequence[Reference]) -> None:
        splits = np.concatenate([reference.split for reference in references])
        column = np.repeat(np.arange(len(references)), [len(reference.split) for reference in references])
        self._columns = len(references)
        self._references = tuple(references)
        self._ends = np.cumsum([len(reference.split) for reference in references])
        self._tied = np.flatnonzero(splits.max(axis=1) != 1.0)
        target = column * BINS + splits.argmax(axis=1)
        target[self._tied] = self._columns * BINS  # left out: `count` draws theirs
        self._target = target.astype(np.min_scalar_type(self._columns * BINS))
        self._shares = splits[self._tied] / splits[self._tied].sum(axis=1, keepdims=True)
        self._tied_columns, self._first_tied = np.unique(column[self._tied], return_index=True)
        self.random = np.random.default_rng(seed_of(splits, *(reference.counts for reference in references)))

    def count(self, counts: Array) -> Array:
        """Return (columns, BINS) int64: the rows in each rank bin."""
        size = self._columns * BINS
        ranks = np.bincount(self._target, counts, size + 1)[:size].astype(np.int64)
        ranks = ranks.reshape(self._columns, BINS)
        tied_counts = counts[self._tied]
        if tied_counts.any():
            ranks[self._tied_columns] += np.add.reduceat(
                self.random.multinomial(tied_counts, self._shares), self._first_tied
            )
        return ranks

    def bins(self, column: int) -> slice:
        """Return where a column's natural bins are among those of all columns."""
        return slice(self._ends[column] - len(self.split(column)), self._ends[column])

    def split(self, column: int) -> Array:
        """Return (bins, BINS): the shares of a column's natural bins that are in each of its rank bins."""
        return self._references[column].split

    def parts(self, counts: Array, rows: int) -> Array:
        """Return (parts, columns, BINS) int64: the rows in each rank bin, in parts to bet on in turn.

        rows  how many there are; a column may have fewer
        """
        ranks = self.count(counts)
        if rows < 2 * FEW_ROWS:
            return ranks[np.newaxis]
        shares = shares_of(int(ranks.sum(axis=1).max(initial=0)))
        if len(shares) == 1:
            return ranks[np.newaxis]
        return np.ascontiguousarray(np.moveaxis(self.random.multinomial(ranks, shares), -1, 0))


def shares_of(rows: int) -> Array:
    """Return (parts,): the shares of a look's rows to bet on in turn, each as large as all before it.

    The first stands for at least FEW_ROWS rows, if there are as many, and fewer than twice as many.
    """
    doublings = max(rows // FEW_ROWS, 1).bit_length() - 1
    return 0.5 ** np.array([doublings, *range(doublings, 0, -1)], np.float64)
