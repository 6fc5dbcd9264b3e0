"""Rows counted as they come, in the bins of a profile."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from datetime import UTC, datetime
from itertools import accumulate

import numpy as np

from driftline.monitor.reading import Codes
from driftline.monitor.reference.column import Categorical, Numeric, Reference
from driftline.monitor.reference.profile import Profile
from driftline.monitor.window import Window
from driftline.tensors import Array
from driftline_kernels import bins, categories, moments, rows
from driftline_kernels.rows import State

FEW_ROWS = 16
"""Rows that come one by one wait for so many, to be counted together: a call costs what a row does."""


class Counter:
    """What was counted, in the bins of a profile.

    profile  whose bins they are
    memory   (words,) int64 to count in, as another Counter of the profile says, which may be another
             process's too, and is as `reset` leaves it; its own if None
    """

    def __init__(self, profile: Profile, memory: Array | None = None) -> None:
        self.numeric = [one for one in profile.references if isinstance(one, Numeric)]
        self.categorical = [one for one in profile.references if isinstance(one, Categorical)]
        self.references: list[Reference] = [*self.numeric, *self.categorical]
        self._names = tuple(reference.name for reference in self.numeric)
        self._width = len(self.numeric)
        edges = max((len(reference.edges) for reference in self.numeric), default=0)
        state = profile.whole.state(_padded([reference.edges for reference in self.numeric], edges))
        self._lengths = [state.counts.size, state.sums.size, *(len(one.counts) for one in self.categorical)]
        self.words: int = sum(self._lengths)
        self._state = state
        self._count_in(np.zeros(self.words, np.int64) if memory is None else memory)
        self._no_moments = moments.start(self._width)
        self._waiting = np.empty((FEW_ROWS, self._width), np.float32)
        self._held = 0
        self._places = _places([len(reference.edges) for reference in self.numeric], edges)
        if memory is None:
            self.reset()

    def _count_in(self, memory: Array) -> None:
        self._memory = memory
        counts, sums, *self._categories = np.split(memory, list(accumulate(self._lengths))[:-1])
        shape = self._state.counts.shape
        self._state = self._state._replace(counts=counts.reshape(shape), sums=sums.view(np.float64))

    def another(self) -> Counter:
        """One of the same profile that has counted nothing; for one thread at a time, since the two share
        their bins and the room to work in."""
        found = copy(self)
        found._count_in(np.zeros(self.words, np.int64))
        found._waiting = np.empty_like(self._waiting)
        found.reset()
        return found

    def add(self, matrix: Array, codes: Codes) -> None:
        """Count rows; one thread at a time."""
        number = len(matrix)
        if self._held + number > FEW_ROWS:
            self.settle()
        if number > FEW_ROWS:
            rows.observe(matrix, self._state)
        else:
            self._waiting[self._held : self._held + number] = matrix
            self._held += number
        if codes:
            self.add_codes(codes)

    def add_codes(self, codes: Codes) -> None:
        """Count categories, of rows whose numbers are counted elsewhere."""
        for own, counts in zip(codes, self._categories, strict=True):
            categories.count(own, counts)

    def settle(self) -> None:
        """Count the rows that wait; that loads what is compiled, even if there are none."""
        rows.observe(self._waiting[: self._held], self._state)
        self._held = 0

    def merge(self, other: Counter) -> None:
        """Add what another has counted by the same profile, and settled: moments to rounding."""
        self._state.counts[:] += other._state.counts
        for own, counts in zip(self._categories, other._categories, strict=True):
            own += counts
        moments.merge(self._state.moments, other._state.moments)
        rest = moments.FIELDS * self._width
        self._state.sums[rest:] += other._state.sums[rest:]

    def reset(self) -> None:
        """Begin anew."""
        self._held = 0
        self._state.counts[:] = 0
        self._state.sums[:] = 0
        self._state.moments[:] = self._no_moments
        for counts in self._categories:
            counts[:] = 0

    @property
    def state(self) -> State:
        """What the kernels compare numbers with, and what they count into; see driftline_kernels.rows."""
        return self._state

    @property
    def memory(self) -> Array:
        """(words,) int64, a view: all that is counted; another Counter of the profile can go on from it."""
        self.settle()
        return self._memory

    @property
    def counts(self) -> Array:
        """(natural bins,) int64, a copy: of the numeric columns, then of the categorical ones, one behind the
        other, each as long as its reference's counts."""
        self.settle()
        return np.concatenate([self._state.counts.take(self._places), *self._categories])

    @property
    def moments(self) -> Array:
        """(numeric columns, 5) float64, a copy; of rows that are settled."""
        return np.array(self._state.moments)

    def window(self, rows: int, began: datetime) -> Window:
        """A copy of all that was counted."""
        self.settle()
        ends = np.cumsum([len(reference.counts) for reference in self.references])[:-1]
        names = [reference.name for reference in self.references]
        return Window(
            began,
            datetime.now(UTC),
            rows,
            dict(zip(names, np.split(self.counts, ends) if names else (), strict=True)),
            dict(zip(self._names, self._state.moments.copy(), strict=True)),
            self._state.features.copy(),
            self._state.comoments.copy(),
        )


def _padded(edges: Sequence[Array], width: int) -> Array:
    """(columns, width) float32: each column's edges, then +inf."""
    padded = np.full((len(edges), width), np.inf, np.float32)
    for row, own in zip(padded, edges, strict=True):
        row[: len(own)] = own
    return padded


def _places(edges: Sequence[int], width: int) -> Array:
    """Where each column's own bins are among (columns, width + 4) counts: padded edges have none."""
    places = [
        column * (width + 4) + np.concatenate([np.arange(own + 1), width + 1 + np.arange(bins.SPECIAL)])
        for column, own in enumerate(edges)
    ]
    return np.concatenate(places).astype(np.int32) if places else np.empty(0, np.int32)
