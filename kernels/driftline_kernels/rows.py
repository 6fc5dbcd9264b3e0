"""Update all statistics of rows of numbers in one call: for one row, the call is most of the cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline_kernels import bins as binning
from driftline_kernels import moments
from driftline_kernels.bins import Bins, count_column
from driftline_kernels.comoments import add_products
from driftline_kernels.device import BLOCK, driver, on_cpu
from driftline_kernels.fourier import add_features
from driftline_kernels.moments import FIELDS, add, summary
from driftline_kernels.standard import ROW_STEP, standardise


class State(NamedTuple):
    """The reference that rows are compared with, and their statistics; all arrays on one device.

    The arrays are few, since each adds 50 ns to a call.

    edges    of the prepared bins, in the values' dtype
    first    of the prepared bins
    scaling  (columns, 2) float64; mean and 1 / sd of the reference, 0 for a column that never varied
    weights  (columns + 1, D) float32; Fourier weights, and phases as the last row; D = 0 for no features
    counts   (columns, E + 4) int64; see bins.count
    sums     1-D float64; moments, comoments and features, concatenated
    scratch  1-D float64; working memory, so that nothing is allocated: one thread at a time
    """

    edges: Any
    first: Any
    scaling: Any
    weights: Any
    counts: Any
    sums: Any
    scratch: Any

    @property
    def moments(self) -> Any:
        """Moments (columns, 5), a view; see moments.update. Merged by moments.merge."""
        columns = len(self.scaling)
        return self.sums[: FIELDS * columns].reshape(columns, FIELDS)

    @property
    def comoments(self) -> Any:
        """Comoments (columns + 1, columns + 1), a view, or (0, 0); see comoments.update."""
        columns, features = len(self.scaling), self.weights.shape[1]
        products = self.sums[FIELDS * columns : len(self.sums) - features]
        return products.reshape(columns + 1, columns + 1) if len(products) else products.reshape(0, 0)

    @property
    def features(self) -> Any:
        """Sums of features (D,), a view; see fourier.update."""
        return self.sums[len(self.sums) - self.weights.shape[1] :]


class Parts(NamedTuple):
    """A state with its views, made once for all batches.

    centres  (columns,) float64, if the state is on a GPU: the origins of the distances that are summed
    """

    state: State
    moments: Any
    comoments: Any
    features: Any
    centres: Any

    @classmethod
    def of(cls, state: State) -> Parts:
        """Return the parts of a state."""
        centres = state.scratch[: len(state.scaling)]
        return cls(state, state.moments, state.comoments, state.features, centres)


def start(
    bins: Bins, edges: int, scaling: NDArray[np.float64], weights: NDArray[np.float32], correlate: bool = True
) -> State:
    """Return the state before the first row, on the CPU, for columns of `edges` edges each.

    Without `correlate`, comoments are left out: they take columns^2 operations a row.
    """
    columns, features = len(scaling), weights.shape[1]
    products = (columns + 1) ** 2 if correlate else 0
    state = State(
        *bins,
        scaling,
        weights,
        counts=np.zeros((columns, edges + 1 + binning.SPECIAL), np.int64),
        sums=np.zeros(FIELDS * columns + products + features),
        scratch=np.empty(2 * (BLOCK + columns) + ROW_STEP * (columns + 1) + ROW_STEP * features // 2),
    )
    state.moments[:] = moments.start(columns)
    return state


def to_device(state: State, send: Callable[[Any], Any]) -> State:
    """Return the state on a GPU, where `send` copies arrays. Its first centres are the reference's means."""
    scratch = state.scratch.copy()
    scratch[: len(state.scaling)] = state.scaling[:, 0]
    return State(*map(send, state._replace(scratch=scratch)))


def observe(values: Any, state: State) -> None:
    """Add the rows of `values` to all statistics of `state`, in place, as the single kernels do.

    values  (rows, columns) float32 or float64, rows or columns contiguous
    """
    _observe(values, *state)


def observe_on_device(values: Any, rows: int, parts: Parts) -> None:
    """As `observe`, for the first rows of values on the device that the state is on.

    On a GPU, one launch updates all statistics of all columns; call `settle` afterwards.
    """
    if on_cpu(values):  # instead of a GPU
        _observe(values[:rows], *parts.state)
        return
    from driftline_kernels import rows_cuda  # only a GPU needs it

    rows_cuda.observe(values, rows, parts)


def settle(parts: Parts) -> None:
    """Turn the sums of `observe_on_device` into moments; once, after all rows.

    A GPU keeps sums of distances until then, to which blocks can add without waiting for others.
    """
    if not on_cpu(parts.moments):
        from driftline_kernels import rows_cuda

        rows_cuda.settle(parts)


@driver
def _observe(
    values: Any, edges: Any, first: Any, scaling: Any, weights: Any, counts: Any, sums: Any, scratch: Any
) -> None:
    columns, width, dimensions = len(scaling), len(scaling) + 1, weights.shape[1]
    moments = sums[: FIELDS * columns].reshape(columns, FIELDS)
    products = sums[FIELDS * columns : len(sums) - dimensions]
    side = width if len(products) > 0 else 0
    comoments = products.reshape(side, side)
    features = sums[len(sums) - dimensions :]
    block_values, cells = scratch[:BLOCK].view(values.dtype), scratch[BLOCK : 2 * BLOCK].view(np.int32)
    means, scales = scratch[2 * BLOCK :][:columns], scratch[2 * BLOCK + columns :][:columns]
    means[:], scales[:] = scaling[:, 0], scaling[:, 1]
    remaining = scratch[2 * (BLOCK + columns) :]
    z = remaining[: ROW_STEP * width].reshape(ROW_STEP, width)
    singles = remaining[ROW_STEP * width :].view(np.float32)
    phases = singles[: ROW_STEP * dimensions].reshape(ROW_STEP, dimensions)
    for start in range(0, len(values), BLOCK):
        block_rows = min(BLOCK, len(values) - start)
        for column in range(columns):
            for row in range(block_rows):
                block_values[row] = values[start + row, column]
            count_column(block_values, block_rows, column, edges, first, counts, cells)
            number, mean, squares, least, greatest = summary(block_values, 0, block_rows)
            add(moments, column, number, mean, squares, least, greatest)
        if side + dimensions > 0:
            for row in range(start, start + block_rows, ROW_STEP):
                standardise(values, row, start + block_rows, means, scales, z)
                add_products(z, comoments)
                add_features(z, start + block_rows - row, weights, phases, features)
