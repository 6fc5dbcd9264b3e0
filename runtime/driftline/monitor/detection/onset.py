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

OF_A_SIZE, SMALL, OF_A_SMALL_SIZE = 2, 8, 3
"""How many are kept of each size: OF_A_SMALL_SIZE where up to SMALL looks are merged, else OF_A_SIZE."""

LARGEST = 2**8
"""The most looks merged into one, except for the oldest, which covers all that came before."""

ROUNDED = 0.01
"""The error, due to rounding, of the share of merged looks that is after an onset."""

CONTRADICTED = 14.0
"""Log likelihood ratio, a million to one: rows that contradict a change by more are before it."""

TINY = 1e-9
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
    known = sorted({one for one in onsets if one is not None}, key=lambda one: one.when)
    if not known:
        return ""
    first, last = (f"{one.when:%Y-%m-%d %H:%M:%S}" for one in (known[0], known[-1]))
    if all(one.first for one in known):
        return f", since the first rows watched ({first} UTC) or before"
    or_before = " or before" if any(one.first for one in known) else ""
    if first != last:
        return f", since about {first}{or_before} to {last} UTC"
    rows = {one.rows for one in known}  # different looks count back from different rows
    before = f", {rows.pop():,} rows before" if len(rows) == 1 else ""
    return f", since about {first} UTC{or_before}{before}"


class Kept(NamedTuple):
    """A look in less memory, or several merged into one.

    counts   (natural bins,), of the smallest unsigned type that holds them all
    moments  (numeric columns, 5) float64; `shorter`, float32
    """

    counts: Array
    moments: Array
    rows: int
    when: float

    @classmethod
    def of(cls, look: Look) -> Kept:
        """Return a copy of a look."""
        return cls(_small(look.counts), np.array(look.moments, np.float64), look.rows, look.when)

    def look(self) -> Look:
        """Return the look."""
        return Look(self.counts.astype(np.int64), self.moments.astype(np.float64), self.rows, self.when)

    def plus(self, later: Kept) -> Kept:
        """Return both, merged."""
        both, other = self.look(), later.look()
        moments.merge(both.moments, other.moments)
        return Kept(_small(both.counts + other.counts), both.moments, self.rows, self.when)

    def shorter(self) -> Kept:
        """Return this with rounded moments; of values beyond 1e18, M2 and a mean's interval are infinite."""
        with np.errstate(over="ignore"):
            return self._replace(moments=self.moments.astype(np.float32))


class Looks:
    """Looks, older ones merged in twos, then in fours, and so on.

    An exponential histogram (Datar, Gionis, Indyk, Motwani 2002): of n looks it keeps up to OF_A_SIZE log2 n
    and a few, and no more once they are merged by LARGEST. Counts are exact. Moments are rounded, except for
    those of the newest, of which signals tell, and of the oldest: it is merged again and again, and rounding
    would in time lose all that is added.

    bins     number of natural bins, of all columns
    numeric  number of columns with moments
    """

    def __init__(self, bins: int, numeric: int) -> None:
        self._shapes = {"counts": (bins,), "moments": (numeric, moments.FIELDS)}
        self._kept: list[Kept] = []
        self._sizes: list[int] = []

    def add(self, look: Look) -> None:
        """Remember a look."""
        if len(self._kept) > 1:
            self._kept[-1] = self._kept[-1].shorter()
        self._kept.append(Kept.of(look))
        self._sizes.append(1)
        size = 1
        while self._thin(size):
            size = min(2 * size, LARGEST)

    def _thin(self, size: int) -> bool:
        """Merge the two oldest of a size if there are too many; return whether there were."""
        if self._sizes.count(size) <= (OF_A_SMALL_SIZE if size <= SMALL else OF_A_SIZE):
            return False
        first = self._sizes.index(size)
        both = self._kept[first].plus(self._kept.pop(first + 1))
        self._kept[first] = both.shorter() if first else both
        del self._sizes[first + 1]
        self._sizes[first] = min(2 * size, LARGEST)
        return True

    def counts(self, bins: slice) -> Array:
        """Return (looks, some natural bins) float64: the counts of each kept look in these bins."""
        return np.array([kept.counts[bins] for kept in self._kept], np.float64)

    def begin(self, gained: Array) -> int:
        """Return which kept look a change begins with; `gained` (looks,) is the evidence of each for it."""
        so_far = np.cumsum(gained[::-1])  # backwards from now
        contradicted = np.maximum.accumulate(so_far) - so_far > CONTRADICTED
        reach = int(contradicted.argmax()) if contradicted.any() else len(so_far)
        return len(so_far) - 1 - int(so_far[:reach].argmax())

    def onset(self, evidence: Array, rows: int) -> Onset | None:
        """Return when a change began; None if all rows came in one look, which says nothing about when.

        evidence  (3, looks): of each kept look for the change; expected if all its rows were before it;
                  expected if all were after it
        rows      observed so far
        """
        if len(self._kept) < 2:
            return None
        gained, before, after = evidence
        apart = np.maximum(after - before, TINY)
        share = np.clip((gained - before) / apart * (1 + 2 * ROUNDED) - ROUNDED, 0, 1)
        sizes = np.array(self._sizes)
        several = sizes > 1
        place = self.begin(gained)
        passed = (1 - share[place]) * sizes[place] * several[place]
        if place and several[place - 1] and share[place - 1] * sizes[place - 1] > passed:
            place -= 1
            passed = (1 - share[place]) * sizes[place]
        kept = self._kept[place]
        # Within two standard errors: a row's log likelihood ratio varies by about `apart`.
        whole = not several[place] or (1 - share[place]) * np.sqrt(apart[place]) <= 2
        if kept.rows == 0 and whole:
            return Onset(datetime.fromtimestamp(kept.when, UTC), rows, True)
        part = round(passed) / sizes[place]
        then = self._kept[place + 1] if part else kept
        when = kept.when + part * (then.when - kept.when)
        begun = kept.rows + round(part * (then.rows - kept.rows))
        return Onset(datetime.fromtimestamp(when, UTC), rows - begun, False)

    def total(self, onset: Onset, rows: int) -> Look:
        """Return the sum of the kept looks wholly after an onset; `rows` are observed so far."""
        first, *later = (kept for kept in self._kept if kept.rows >= rows - onset.rows)
        found = first.look()
        for kept in later:
            one = kept.look()
            found.counts[:] += one.counts
            moments.merge(found.moments, one.moments)
        return found

    def snapshot(self) -> dict[str, Array]:
        """Return the looks as arrays; no arrays if there are no looks."""
        if not self._kept:
            return {}
        fields = zip(*(kept.look() for kept in self._kept), strict=True)
        found = {f"looks.{name}": np.array(each) for name, each in zip(Look._fields, fields, strict=True)}
        found["looks.counts"] = _small(found["looks.counts"])
        return {"looks.sizes": np.array(self._sizes)} | found

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        """Continue from a snapshot; from no looks, if it is of a version that did not save them.

        Raises ValueError if its shapes differ; then nothing has changed.
        """
        sizes = [min(int(size), LARGEST) for size in snapshot.get("looks.sizes", ())]
        found = {name: np.asarray(snapshot.get(f"looks.{name}", ())) for name in Look._fields}
        for name, shape in self._shapes.items():
            if sizes and found[name].shape[1:] != shape:
                raise ValueError(f"looks.{name}: expected {shape} of each, got {found[name].shape[1:]}")
        kept = [
            Kept.of(Look(np.rint(counts), moment, int(rows), float(when)))  # once they were float32
            for counts, moment, rows, when, _ in zip(*found.values(), sizes, strict=True)
        ]
        kept[1:-1] = [one.shorter() for one in kept[1:-1]]
        self._kept = kept
        self._sizes = sizes
        for size in sorted(set(sizes)):  # more were kept in older checkpoints
            while self._thin(size):
                pass


def _small(counts: Array) -> Array:
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))))
