"""Counting rows as they arrive, in the bins of a profile."""

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

NO_MOMENTS = moments.start(1)

FEW_ROWS = 16
"""How many rows of small batches may wait to be counted in one call: a call costs as much as a row."""


class Counter:
    """Counts of rows in the bins of a profile.

    profile  whose bins they are
    memory   (words,) int64 to count in, in the state that `reset` leaves; `words` as in another Counter of
             the profile; other processes may map it, too. None: its own
    """

    def __init__(self, profile: Profile, memory: Array | None = None) -> None:
        self.numeric = [item for item in profile.references if isinstance(item, Numeric)]
        self.categorical = [item for item in profile.references if isinstance(item, Categorical)]
        self.references: list[Reference] = [*self.numeric, *self.categorical]
        self._width = len(self.numeric)
        state = profile.whole.state(profile.tables)
        category_bins = [len(reference.counts) for reference in self.categorical]
        self._lengths = [state.counts.size, state.sums.size, *category_bins]
        self.words: int = sum(self._lengths)
        self._state = state
        self._use_memory(np.zeros(self.words, np.int64) if memory is None else memory)
        self._waiting = np.empty((FEW_ROWS, self._width), np.float32)
        self._waiting_rows = 0
        edge_counts = [len(reference.edges) for reference in self.numeric]
        self._is_real_bin = _real_bins(edge_counts, profile.tables.edges)
        if memory is None:
            self.reset()

    def _use_memory(self, memory: Array) -> None:
        self._memory = memory
        counts, sums, *self._categories = np.split(memory, list(accumulate(self._lengths))[:-1])
        shape = self._state.counts.shape
        self._state = self._state._replace(counts=counts.reshape(shape), sums=sums.view(np.float64))

    def empty_copy(self) -> Counter:
        """Return an empty counter of the same profile.

        The two share their bins and scratch memory: use them in one thread at a time.
        """
        counter = copy(self)
        counter._use_memory(np.zeros(self.words, np.int64))
        counter._waiting = np.empty_like(self._waiting)
        counter.reset()
        return counter

    def add(self, matrix: Array, codes: Codes) -> None:
        """Count rows; one thread at a time."""
        number = len(matrix)
        if self._waiting_rows + number > FEW_ROWS:
            self.settle()
        if number > FEW_ROWS:
            rows.observe(matrix, self._state)
        else:
            self._waiting[self._waiting_rows : self._waiting_rows + number] = matrix
            self._waiting_rows += number
        if codes:
            self.add_codes(codes)

    def add_codes(self, codes: Codes) -> None:
        """Count the categories of rows whose numbers are counted elsewhere."""
        for column_codes, counts in zip(codes, self._categories, strict=True):
            categories.count(column_codes, counts)

    def settle(self) -> None:
        """Count the waiting rows; this loads compiled code, even if there are none."""
        rows.observe(self._waiting[: self._waiting_rows], self._state)
        self._waiting_rows = 0

    def merge(self, other: Counter) -> None:
        """Add the settled counts of another counter of the same profile; moments are exact up to rounding."""
        self._state.counts[:] += other._state.counts
        for counts, other_counts in zip(self._categories, other._categories, strict=True):
            counts += other_counts
        moments.merge(self._state.moments, other._state.moments)
        whole_rows = moments.FIELDS * self._width
        self._state.sums[whole_rows:] += other._state.sums[whole_rows:]

    def reset(self) -> None:
        """Clear everything."""
        self._state.sums[:] = 0
        self._clear()

    def _clear(self) -> None:
        """Clear the counts and moments."""
        self._waiting_rows = 0
        self._state.counts[:] = 0
        self._state.moments[:] = NO_MOMENTS
        for counts in self._categories:
            counts[:] = 0

    def take(self) -> tuple[Array, Array]:
        """Return the counts and moments, and clear them; sums over whole rows continue."""
        result = self.counts, self.moments
        self._clear()
        return result

    def put(self, counts: Array, column_moments: Array) -> None:
        """Set the counts and moments to those that `take` returned."""
        lengths = [int(self._is_real_bin.sum()), *map(len, self._categories)]
        numeric, *categories = np.split(counts, list(accumulate(lengths))[:-1])
        self._state.counts.reshape(-1)[self._is_real_bin] = numeric
        self._state.moments[:] = column_moments
        for current, new in zip(self._categories, categories, strict=True):
            current[:] = new

    @property
    def state(self) -> State:
        """What the kernels compare numbers with, and count into; see driftline_kernels.rows."""
        return self._state

    @property
    def memory(self) -> Array:
        """(words,) int64, a view: all that is counted; another Counter of the profile can resume from it."""
        self.settle()
        return self._memory

    @property
    def counts(self) -> Array:
        """(natural bins,) int64, a copy: of the numeric columns, then of the categorical ones, concatenated,
        each as long as its reference's counts."""
        self.settle()
        return np.concatenate([self._state.counts.reshape(-1)[self._is_real_bin], *self._categories])

    @property
    def moments(self) -> Array:
        """(numeric columns, 5) float64, a copy; of settled rows."""
        return np.array(self._state.moments)


class WindowCounts:
    """Counts and moments that looks have taken from a counter in the current window.

    Sums over whole rows stay in the counter until the window ends: no look needs them, and they are large.

    counter  that is taken from
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._counts, self._moments = counter.take()

    def add(self, counts: Array, column_moments: Array) -> None:
        """Add counts and moments that were taken."""
        self._counts += counts
        moments.merge(self._moments, column_moments)

    def reset(self) -> None:
        """Clear everything, in the counter, too."""
        self._counts[:] = 0
        self._moments[:] = NO_MOMENTS
        self._counter.reset()

    def window(self, rows: int, began: datetime) -> Window:
        """Return a copy of all that was counted up to the last look, which was just now."""
        references, state = self._counter.references, self._counter.state
        ends = np.cumsum([len(reference.counts) for reference in references])[:-1]
        names = [reference.name for reference in references]
        return Window(
            began,
            datetime.now(UTC),
            rows,
            dict(zip(names, np.split(self._counts.copy(), ends) if names else (), strict=True)),
            dict(zip(names, self._moments.copy(), strict=False)),  # of numeric columns, which come first
            state.features.copy(),
            state.comoments.copy(),
        )

    @property
    def memory(self) -> Array:
        """(words,) int64, a copy: like that of a counter from which nothing was taken."""
        counter = self._counter.empty_copy()
        counter.memory[:] = self._counter.memory
        counter.put(self._counts, self._moments)
        return counter.memory

    def restore(self, memory: Array) -> None:
        """Continue from a copy of `memory`."""
        self._counter.memory[:] = memory
        self._counts, self._moments = self._counter.take()


def _real_bins(edge_counts: Sequence[int], width: int) -> Array:
    """Return (columns (width + 4),) bool: which counts are of columns' own bins, not of padded edges."""
    bin_ = np.arange(width + 1 + bins.SPECIAL)
    return np.concatenate([(bin_ <= count) | (bin_ > width) for count in edge_counts] or [np.empty(0, bool)])
