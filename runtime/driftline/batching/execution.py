"""A batch, and how it runs: on the event loop or in a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

from driftline.batching.rows import Slice, gather, split
from driftline.blocks import arrays_of
from driftline.errors import DriftlineError, ModelError
from driftline.tensors import Tensors

Run = Callable[[Tensors, Sequence[str]], Tensors]
"""Computes the outputs of these names from input tensors. Must be thread safe."""


@dataclass(slots=True)
class Batch:
    """Rows of requests that run together, and their results.

    results    the outputs or the error of each slice, once the batch has run
    input_ns   nanoseconds to gather its rows,
    infer_ns   to run it, 0 if it failed, and
    output_ns  to split its outputs
    spent_ns   nanoseconds for all of this, by the clock that `Cost` learns from
    """

    slices: list[Slice]
    rows: int
    results: Sequence[Tensors | DriftlineError] = ()
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    spent_ns: int = 0

    @property
    def size(self) -> int:
        """The number of elements of its inputs; see Cost."""
        for request, _, _ in self.slices:
            if request.rows:
                break
        return self.rows * sum(array.size for array in arrays_of(request.inputs)) // max(request.rows, 1)


def execute(batch: Batch, run: Run, clock: Callable[[], int]) -> list[Batch]:
    """Run a batch; if it fails, run its slices one by one, so that a bad one fails alone.

    clock  of `Batch.spent_ns`, in nanoseconds

    `Batcher.try_inline` does the same for one request without a queue: change both together.
    """
    clock_start = clock()
    begin = perf_counter_ns()
    names = tuple({name: None for request, _, _ in batch.slices for name in request.outputs})
    try:
        inputs = gather(batch.slices)
        gather_end = perf_counter_ns()
        outputs = run(inputs, names)
        infer_end = perf_counter_ns()
        batch.results = split(batch.slices, outputs)
    except Exception as error:
        if len(batch.slices) > 1:
            singles = [Batch([(request, start, stop)], stop - start) for request, start, stop in batch.slices]
            return [executed for single in singles for executed in execute(single, run, clock)]
        error = as_driftline_error(error)
        # Its frames refer to this batch; see Request.outcome.
        error.__traceback__ = error.__cause__ = error.__context__ = None
        batch.results = [error]
        return [batch]
    batch.input_ns = gather_end - begin
    batch.infer_ns = infer_end - gather_end
    batch.output_ns = perf_counter_ns() - infer_end
    batch.spent_ns = clock() - clock_start
    return [batch]


def as_driftline_error(error: Exception) -> DriftlineError:
    """Return a model's error as a DriftlineError."""
    return error if isinstance(error, DriftlineError) else ModelError(f"{type(error).__name__}: {error}")
