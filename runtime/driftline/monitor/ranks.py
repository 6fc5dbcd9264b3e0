"""Rank bins: cuts at fixed ranks of the reference, whose true masses are known to be Dirichlet.

If nothing has changed, a live row is as likely to fall into any of the m + 1 gaps between m reference rows
in order as into any other. So the masses of bins that are cut at fixed ranks are Dirichlet distributed, with
the number of gaps in each as parameters, whatever the column's distribution: no estimate, no asymptotics.
Equal values are ordered by an imagined jitter; a cut within them is a share of them, drawn once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


def gaps(rows: int) -> Array:
    """(CUTS + 1,) float64: the gaps of each rank bin between `rows` reference rows, the last beyond all."""
    ranks = np.array([0, *cut_ranks(rows), rows, rows + 1])
    each: Array = np.diff(ranks).astype(np.float64)
    return np.maximum(each, NEVER)


def split(groups: Sequence[Group], seed: int = 0) -> Array:
    """(groups, CUTS + 1) float64: the share of each group's rows that each rank bin gets; rows sum to 1.

    groups  in the column's order; their rows are the reference
    """
    random = np.random.default_rng(seed)
    total = sum(group.rows for group in groups)
    ranks = np.array([*cut_ranks(total), total])
    shares = np.zeros((len(groups), CUTS + 1))
    below = 0
    for index, group in enumerate(groups):
        within = ranks[(ranks > below) & (ranks <= below + group.rows)] - below
        first = int(np.searchsorted(ranks, below, side="right"))
        if group.single and len(within):
            parts = np.diff([0, *within, group.rows + 1])
            shares[index, first : first + len(parts)] = random.dirichlet(np.maximum(parts, NEVER))
        else:
            # A cut at a group's border: before its first row, or, the last of all, behind it.
            passed = np.count_nonzero(2 * within <= group.rows) if below + group.rows < total else 0
            shares[index, first + passed] = 1.0
        below += group.rows
    return shares
