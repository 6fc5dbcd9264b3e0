"""Since when columns differ, and the counts since then: looks are remembered, older ones merged.

Bets become certain of a change later than it begins. Its onset is the usual estimate of a CUSUM (Page 1954;
Hinkley 1971), in hindsight: the start from which all rows together are the strongest evidence for the
column's present distribution, against the reference's. The present distribution is at first what the detector
remembers, the last 500 rows or so; then, in a second pass, that of all rows since the start found by the
first. A run of rows that clearly contradicts the change ends the search: an earlier incident that is over is
not part of it. A merged look may begin before the onset: the evidence that it lacks tells how far before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

import numpy as np

from driftline.tensors import Array
from driftline_kernels import moments

PER_SIZE, SMALL_SIZE, PER_SMALL_SIZE = 2, 8, 3
"""How many are kept of each size: PER_SMALL_SIZE where up to SMALL_SIZE looks are merged, else PER_SIZE."""

MAX_SIZE = 2**8
"""The most looks merged into one, except for the oldest, which covers all that came before."""

ROUNDING_ERROR = 0.01
"""The error, due to rounding, of the share of merged looks that is after an onset."""

CONTRADICTION = 14.0
"""Log likelihood ratio, a million to one: rows that contradict a change by more are before it."""

MIN_DIVISOR = 1e-9
"""The divisor where looks have no rows, and so no evidence."""


class Look(NamedTuple):
    """The counts and moments of the rows since the previous look.

    counts   (natural bins,) of all columns, concatenated
    moments  (numeric columns, 5)
    rows     observed by the previous look
    when     the previous look was, in seconds since 1970
    """

    counts: Array
    moments: Array
    rows: int
    when: float


@dataclass(frozen=True, slots=True)
class Onset:
    """About when a column began to differ.

    when   the time of the look before its first rows that differ, in UTC
    rows   from there to the signal
    first  whether that is before the first watched row: the drift may have begun even earlier
    """

    when: datetime
    rows: int
    first: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types; `when` is ISO 8601."""
        return {"when": self.when.isoformat(), "rows": self.rows, "first": self.first}

    @classmethod
    def of_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Return the onset that `to_dict` wrote."""
        return cls(datetime.fromisoformat(fields["when"]), fields["rows"], fields["first"])


def since_when(onsets: Iterable[Onset | None]) -> str:
    """Return ', since about 2026-03-01 02:14:10 UTC, 900 rows before' for several signals; '' if unknown."""
    dated = sorted({onset for onset in onsets if onset is not None}, key=lambda onset: onset.when)
    if not dated:
        return ""
    first, last = (f"{onset.when:%Y-%m-%d %H:%M:%S}" for onset in (dated[0], dated[-1]))
    if all(onset.first for onset in dated):
        return f", since the first rows watched ({first} UTC) or before"
    or_before = " or before" if any(onset.first for onset in dated) else ""
    if first != last:
        return f", since about {first}{or_before} to {last} UTC"
    rows = {onset.rows for onset in dated}  # different looks count back from different rows
    before = f", {rows.pop():,} rows before" if len(rows) == 1 else ""
    return f", since about {first} UTC{or_before}{before}"


class StoredLook(NamedTuple):
    """A look in less memory, or several merged into one.

    counts   (natural bins,), of the smallest unsigned type that holds them all
    moments  (numeric columns, 5) float64; `rounded`, float32
    """

    counts: Array
    moments: Array
    rows: int
    when: float

    @classmethod
    def of(cls, look: Look) -> StoredLook:
        """Return a copy of a look."""
        return cls(_smallest_unsigned(look.counts), np.array(look.moments, np.float64), look.rows, look.when)

    def look(self) -> Look:
        """Return the look."""
        return Look(self.counts.astype(np.int64), self.moments.astype(np.float64), self.rows, self.when)

    def merge(self, later: StoredLook) -> StoredLook:
        """Return both, merged."""
        both, other = self.look(), later.look()
        moments.merge(both.moments, other.moments)
        return StoredLook(
            _smallest_unsigned(both.counts + other.counts),
            both.moments,
            self.rows,
            self.when,
        )

    def rounded(self) -> StoredLook:
        """Return this with rounded moments; of values beyond 1e18, M2 and a mean's interval are infinite."""
        with np.errstate(over="ignore"):
            return self._replace(moments=self.moments.astype(np.float32))


class Looks:
    """Looks, older ones merged in twos, then in fours, and so on.

    An exponential histogram (Datar, Gionis, Indyk, Motwani 2002): of n looks it keeps up to PER_SIZE log2 n
    and a few, and no more once they are merged by MAX_SIZE. Counts are exact. Moments are rounded, except for
    those of the newest, of which signals tell, and of the oldest: it is merged again and again, and rounding
    would in time lose all that is added.

    bins     number of natural bins, of all columns
    numeric  number of columns with moments
    """

    def __init__(self, bins: int, numeric: int) -> None:
        self._shapes = {"counts": (bins,), "moments": (numeric, moments.FIELDS)}
        self._looks: list[StoredLook] = []
        self._sizes: list[int] = []

    def add(self, look: Look) -> None:
        """Remember a look."""
        if len(self._looks) > 1:
            self._looks[-1] = self._looks[-1].rounded()
        self._looks.append(StoredLook.of(look))
        self._sizes.append(1)
        size = 1
        while self._thin(size):
            size = min(2 * size, MAX_SIZE)

    def _thin(self, size: int) -> bool:
        """Merge the two oldest of a size if there are too many; return whether there were."""
        if self._sizes.count(size) <= (PER_SMALL_SIZE if size <= SMALL_SIZE else PER_SIZE):
            return False
        oldest = self._sizes.index(size)
        merged = self._looks[oldest].merge(self._looks.pop(oldest + 1))
        self._looks[oldest] = merged.rounded() if oldest else merged
        del self._sizes[oldest + 1]
        self._sizes[oldest] = min(2 * size, MAX_SIZE)
        return True

    def counts(self, bins: slice) -> Array:
        """Return (looks, some natural bins) float64: the counts of each kept look in these bins."""
        return np.array([look.counts[bins] for look in self._looks], np.float64)

    def start_index(self, evidence: Array) -> int:
        """Return which kept look a change begins with; `evidence` (looks,) is the evidence of each for it."""
        total = np.cumsum(evidence[::-1])  # backwards from now
        is_contradicted = np.maximum.accumulate(total) - total > CONTRADICTION
        end = int(is_contradicted.argmax()) if is_contradicted.any() else len(total)
        return len(total) - 1 - int(total[:end].argmax())

    def onset(self, evidence: Array, rows: int) -> Onset | None:
        """Return when a change began; None if all rows came in one look, which says nothing about when.

        evidence  (3, looks): of each kept look for the change; expected if all its rows were before it;
                  expected if all were after it
        rows      observed so far
        """
        if len(self._looks) < 2:
            return None
        actual, before, after = evidence
        difference = np.maximum(after - before, MIN_DIVISOR)
        share = np.clip((actual - before) / difference * (1 + 2 * ROUNDING_ERROR) - ROUNDING_ERROR, 0, 1)
        sizes = np.array(self._sizes)
        is_merged = sizes > 1
        index = self.start_index(actual)
        looks_before = (1 - share[index]) * sizes[index] * is_merged[index]
        if index and is_merged[index - 1] and share[index - 1] * sizes[index - 1] > looks_before:
            index -= 1
            looks_before = (1 - share[index]) * sizes[index]
        first = self._looks[index]
        # Within two standard errors: a row's log likelihood ratio varies by about `difference`.
        is_whole = not is_merged[index] or (1 - share[index]) * np.sqrt(difference[index]) <= 2
        if first.rows == 0 and is_whole:
            return Onset(datetime.fromtimestamp(first.when, UTC), rows, True)
        fraction = round(looks_before) / sizes[index]
        following = self._looks[index + 1] if fraction else first
        when = first.when + fraction * (following.when - first.when)
        onset_rows = first.rows + round(fraction * (following.rows - first.rows))
        return Onset(datetime.fromtimestamp(when, UTC), rows - onset_rows, False)

    def total(self, onset: Onset, rows: int) -> Look:
        """Return the sum of the kept looks wholly after an onset; `rows` are observed so far."""
        first, *later = (stored for stored in self._looks if stored.rows >= rows - onset.rows)
        total = first.look()
        for stored in later:
            look = stored.look()
            total.counts[:] += look.counts
            moments.merge(total.moments, look.moments)
        return total

    def snapshot(self) -> dict[str, Array]:
        """Return the looks as arrays; no arrays if there are no looks."""
        if not self._looks:
            return {}
        fields = zip(*(stored.look() for stored in self._looks), strict=True)
        arrays = {
            f"looks.{name}": np.array(values) for name, values in zip(Look._fields, fields, strict=True)
        }
        arrays["looks.counts"] = _smallest_unsigned(arrays["looks.counts"])
        return {"looks.sizes": np.array(self._sizes)} | arrays

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        """Continue from a snapshot; from no looks, if it is of a version that did not save them.

        Raises ValueError if its shapes differ; then nothing has changed.
        """
        sizes = [min(int(size), MAX_SIZE) for size in snapshot.get("looks.sizes", ())]
        arrays = {name: np.asarray(snapshot.get(f"looks.{name}", ())) for name in Look._fields}
        for name, shape in self._shapes.items():
            if sizes and arrays[name].shape[1:] != shape:
                raise ValueError(f"looks.{name}: expected {shape} of each, got {arrays[name].shape[1:]}")
        looks = [
            StoredLook.of(
                Look(np.rint(counts), look_moments, int(rows), float(when))
            )  # once they were float32
            for counts, look_moments, rows, when, _ in zip(*arrays.values(), sizes, strict=True)
        ]
        looks[1:-1] = [look.rounded() for look in looks[1:-1]]
        self._looks = looks
        self._sizes = sizes
        for size in sorted(set(sizes)):  # more were kept in older checkpoints
            while self._thin(size):
                pass


def _smallest_unsigned(counts: Array) -> Array:
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))))
