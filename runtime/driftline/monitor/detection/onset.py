"""Since when columns differ, and what has come since: looks that are remembered, older ones together.

Bets say when it is certain that something has changed, which is later than it did. The estimate of when is
the usual one of a CUSUM (Page 1954; Hinkley 1971), in hindsight: the start from which on all rows together
speak most for what the column is now, against what the reference says. What it is now is what the detector
remembers of its last 500 rows or so. A spell that clearly speaks against it ends the search: what was before
is another story, an incident that is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

import numpy as np

from driftline.tensors import Array
from driftline_kernels import moments

LOOKS_OF_A_SIZE = 4
"""That are remembered: the age of any is known to a third, and to a look."""

LARGEST = 2**12
"""Looks that are merged into one, at the most, but for the oldest: that one is of all that came before."""

MANY_BINS = 2**13
"""Of more bins, fewer looks of each size: what is remembered stays within some megabytes."""

CONTRADICTED = 14.0
"""Log likelihood ratio: a spell that speaks against a change by so much, a million to one, is before it."""


class Look(NamedTuple):
    """What has come since the look before.

    counts   (natural bins,) of all columns, one behind the other
    moments  (numeric columns, 5)
    rows     that had been observed by then
    when     that was, in seconds since 1970
    """

    counts: Array
    moments: Array
    rows: int
    when: float


@dataclass(frozen=True, slots=True)
class Onset:
    """Since when a column differs, about.

    when   of the look before its first rows that do, in UTC
    rows   from there to the signal
    first  whether that is before the first row watched: it may have begun earlier still
    """

    when: datetime
    rows: int
    first: bool

    def to_dict(self) -> dict[str, Any]:
        """As what JSON knows; `when` is ISO 8601."""
        return {"when": self.when.isoformat(), "rows": self.rows, "first": self.first}

    @classmethod
    def of_dict(cls, fields: Mapping[str, Any]) -> Self:
        """What `to_dict` has written."""
        return cls(datetime.fromisoformat(fields["when"]), fields["rows"], fields["first"])


def since_when(onsets: Iterable[Onset | None]) -> str:
    """', since about 2026-03-01 02:14:10 UTC, 900 rows before', of signals told together; '' if unknown."""
    known = sorted({one for one in onsets if one is not None}, key=lambda one: one.when)
    if not known:
        return ""
    first, last = (f"{one.when:%Y-%m-%d %H:%M:%S}" for one in (known[0], known[-1]))
    if all(one.first for one in known):
        return f", since the first rows watched ({first} UTC) or before"
    or_before = " or before" if any(one.first for one in known) else ""
    if first != last:
        return f", since about {first}{or_before} to {last} UTC"
    rows = {one.rows for one in known}  # signals of different looks count from different ends
    before = f", {rows.pop():,} rows before" if len(rows) == 1 else ""
    return f", since about {first} UTC{or_before}{before}"


class Looks:
    """Looks, older ones merged by two, then by four, and so on.

    An exponential histogram (Datar, Gionis, Indyk, Motwani 2002): of n looks it keeps about LOOKS_OF_A_SIZE
    log2 n, and no more than of LARGEST LOOKS_OF_A_SIZE.

    bins     natural ones, of all columns
    numeric  columns that have moments
    """

    def __init__(self, bins: int, numeric: int) -> None:
        self._shapes = {"counts": (bins,), "moments": (numeric, moments.FIELDS)}
        self._of_a_size = max(2, LOOKS_OF_A_SIZE * MANY_BINS // max(bins, MANY_BINS))
        self._looks: list[Look] = []
        self._sizes: list[int] = []

    def add(self, look: Look) -> None:
        """Remember a look."""
        self._looks.append(Look(look.counts.astype(np.float32), *look[1:]))
        self._sizes.append(1)
        size = 1
        while self._sizes.count(size) > self._of_a_size:
            first = self._sizes.index(size)
            _merge(self._looks[first], self._looks.pop(first + 1))
            del self._sizes[first + 1]
            size = min(2 * size, LARGEST)
            self._sizes[first] = size

    def counts(self, bins: slice) -> Array:
        """(looks, some natural bins): what each look has counted in these."""
        return np.array([look.counts[bins] for look in self._looks])

    def onset(self, gained: Array, rows: int) -> Onset | None:
        """Since when a change is there; None if all rows came in one look, which tells nothing of when.

        gained  (looks,) how much each speaks for it
        rows    observed by now
        """
        if len(self._looks) < 2:
            return None
        so_far = np.cumsum(gained[::-1])  # backwards from now
        contradicted = np.maximum.accumulate(so_far) - so_far > CONTRADICTED
        reach = int(contradicted.argmax()) if contradicted.any() else len(so_far)
        found = len(so_far) - 1 - int(so_far[:reach].argmax())
        look = self._looks[found]
        first = look.rows == 0 and self._sizes[found] == 1
        return Onset(datetime.fromtimestamp(look.when, UTC), rows - look.rows, first)

    def total(self, onset: Onset, rows: int) -> Look:
        """All that has come since an onset; `rows` are observed by now."""
        later = [look for look in self._looks if look.rows >= rows - onset.rows]
        found = later[0]._replace(counts=later[0].counts.copy(), moments=later[0].moments.copy())
        for look in later[1:]:
            _merge(found, look)
        return found

    def snapshot(self) -> dict[str, Array]:
        """All of them, as arrays; none of nothing."""
        if not self._looks:
            return {}
        columns = zip(Look._fields, zip(*self._looks, strict=True), strict=True)
        return {"looks.sizes": np.array(self._sizes)} | {
            f"looks.{name}": np.array(all_) for name, all_ in columns
        }

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        """Go on from a snapshot; from nothing, if it was made before there were looks in it. ValueError if it
        can't be, and then nothing has changed."""
        sizes = [int(size) for size in snapshot.get("looks.sizes", ())]
        found = {name: np.asarray(snapshot.get(f"looks.{name}", ())) for name in Look._fields}
        for name, shape in self._shapes.items():
            if sizes and found[name].shape[1:] != shape:
                raise ValueError(f"looks.{name}: expected {shape} of each, got {found[name].shape[1:]}")
        looks = [
            Look(counts.copy(), moment.copy(), int(rows), float(when))
            for counts, moment, rows, when, _ in zip(*found.values(), sizes, strict=True)
        ]
        self._looks, self._sizes = looks, sizes


def _merge(look: Look, other: Look) -> None:
    """Add another, in place."""
    look.counts[:] += other.counts
    moments.merge(look.moments, other.moments)
