"""Rank bins: cuts at fixed ranks of the reference, whose true masses are known to be Dirichlet.

If nothing has changed, a live row is as likely to fall into any of the m + 1 gaps between m reference rows
in order as into any other. So the masses of bins that are cut at fixed ranks are Dirichlet distributed, with
the number of gaps in each as parameters, whatever the column's distribution: no estimate, no asymptotics.
Equal values are ordered by an imagined jitter; a cut within them is a share of them, drawn once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from driftline.tensors import Array

CUTS = 16
"""Bins that the reference is cut into; one more lies beyond its last row."""

NEVER = 1e-9
"""The gap of a bin that a reference of less than 16 rows leaves empty."""


@dataclass(frozen=True, slots=True)
class Group:
    """Reference rows that live rows are counted with, in the column's fixed order.

    rows    how many there are
    single  whether they all have one value: then cuts may fall within them
    """

    rows: int
    single: bool


def cut_ranks(rows: int, bins: int = CUTS) -> list[int]:
    """The ranks, from 1, of the reference rows at which to cut it into so many bins of equal size."""
    return [min(round(k * (rows + 1) / bins), rows) for k in range(1, bins)]


def seed_of(*parts: str | Array) -> int:
    """What random numbers begin from: the same for the same data, and another one for every other.

    One for all may be an unlucky one, for all whose equal values are about as many.
    """
    digest = sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
    return int.from_bytes(digest.digest()[:8], "little")


def split(groups: Sequence[Group], seed: int) -> tuple[Array, Array]:
    """How the rows of each group are shared out among the rank bins, and the gaps of each rank bin.

    groups  in the column's order; their rows are the reference
    seed    of what is drawn; see `seed_of`

    Shares are (groups, CUTS + 1) float64 and sum to 1 for each group; gaps are (CUTS + 1,) float64, the last
    one beyond all rows. A cut that falls within a group of different values, since a sketch has not kept all
    of them, moves to the nearer border of the group, and the gaps are those of where it then is: at the rank
    that was meant, they would be off by more than chance, and what nothing has changed would seem changed.
    """
    random = np.random.default_rng(seed)
    total = sum(group.rows for group in groups)
    ranks = np.array([*cut_ranks(total), total])
    shares = np.zeros((len(groups), CUTS + 1))
    below = 0
    for index, group in enumerate(groups):
        first, stop = np.searchsorted(ranks, [below, below + group.rows], side="right")
        within = ranks[first:stop] - below
        if group.single and len(within):
            parts = np.diff([0, *within, group.rows + 1])
            shares[index, first : stop + 1] = random.dirichlet(np.maximum(parts, NEVER))
        else:
            # The last cut is no border: what is beyond the last row has not been seen.
            stop = min(stop, CUTS - 1)
            passed = first + np.count_nonzero(2 * (ranks[first:stop] - below - 1) < group.rows)
            ranks[first:passed] = below + 1
            ranks[passed:stop] = min(below + group.rows + 1, total)
            shares[index, passed] = 1.0
        below += group.rows
    gaps: Array = np.diff([0, *ranks, total + 1]).astype(np.float64)
    return shares, np.maximum(gaps, NEVER)
