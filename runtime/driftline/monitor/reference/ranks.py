"""Rank bins: cuts at fixed ranks of the reference, whose true masses have a known Dirichlet distribution.

If nothing has changed, a live row is equally likely to fall into each of the m + 1 gaps between m ordered
reference rows. So the masses of bins cut at fixed ranks are Dirichlet distributed, with the number of gaps in
each bin as parameters, whatever the column's distribution: no estimate, no asymptotics. Equal values are
ordered by an imagined jitter; a cut within them is a share of them, drawn once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from driftline.tensors import Array

CUTS = 16
"""Number of bins that the reference is cut into; one more lies beyond its last row."""

MIN_GAP = 1e-9
"""The gap of a bin that a reference of less than 16 rows leaves empty."""


@dataclass(frozen=True, slots=True)
class Group:
    """The reference rows of one natural bin; groups are in the column's fixed order.

    rows    how many there are
    single  whether all have the same value, so that cuts may fall within them
    """

    rows: int
    single: bool


def cut_ranks(rows: int, bins: int = CUTS) -> list[int]:
    """Return the ranks, from 1, of the reference rows that cut it into `bins` bins of equal size."""
    return [min(round(k * (rows + 1) / bins), rows) for k in range(1, bins)]


def seed_of(*parts: str | Array) -> int:
    """Return a random seed: the same for the same data, a different one for any other.

    A single seed could be unlucky for all columns with about as many equal values.
    """
    digest = sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
    return int.from_bytes(digest.digest()[:8], "little")


def split(groups: Sequence[Group], seed: int) -> tuple[Array, Array]:
    """Return how the rows of each group are shared among the rank bins, and the gaps of each rank bin.

    groups  in the column's order; their rows are the reference
    seed    of the random draws; see `seed_of`

    Shares are (groups, CUTS + 1) float64 and sum to 1 for each group; gaps are (CUTS + 1,) float64, the last
    one beyond all rows. A cut within a group of different values, of which a sketch has not kept all, moves
    to the nearer border of the group, and the gaps are those at its new place: at the intended rank, they
    would be off by more than chance, and unchanged data would seem changed.
    """
    random = np.random.default_rng(seed)
    total = sum(group.rows for group in groups)
    ranks = np.array([*cut_ranks(total), total])
    shares = np.zeros((len(groups), CUTS + 1))
    below = 0
    for index, group in enumerate(groups):
        first, stop = np.searchsorted(ranks, [below, below + group.rows], side="right")
        cuts = ranks[first:stop] - below
        if group.single and len(cuts):
            cut_gaps = np.diff([0, *cuts, group.rows + 1])
            shares[index, first : stop + 1] = random.dirichlet(np.maximum(cut_gaps, MIN_GAP))
        else:
            # The last cut does not move: nothing beyond the last row has been seen.
            stop = min(stop, CUTS - 1)
            target = first + np.count_nonzero(2 * (ranks[first:stop] - below - 1) < group.rows)
            ranks[first:target] = below + 1
            ranks[target:stop] = min(below + group.rows + 1, total)
            shares[index, target] = 1.0
        below += group.rows
    gaps: Array = np.diff([0, *ranks, total + 1]).astype(np.float64)
    return shares, np.maximum(gaps, MIN_GAP)
