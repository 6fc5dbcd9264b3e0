"""Runs many rows through a model on all cores, in batches of the size that proves fastest."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from time import perf_counter_ns, thread_time_ns
from typing import Self

import numpy as np

from driftline.engine.model import Model
from driftline.tensors import Tensors

MAX_ROWS = 8_192
"""The largest batch that is tried, unless `max_batch_rows` is larger."""

_BATCHES_PER_SIZE = 3
"""Batches of each size that are measured."""

_MAX_COST_RATIO = 1.1
"""The search ends at a size whose rows cost more than this factor times the cheapest."""


class ParallelRunner:
    """Runs blocks of rows through a model on several threads, which share the batches of a block.

    For a model that uses one thread per run: then no core waits for another within a run, and many rows
    take less time than with several threads per batch.
    """

    def __init__(self, model: Model, threads: int) -> None:
        self._model = model
        self._threads = threads
        rows = max(1, model.settings.batching.max_batch_rows)
        # TensorRT's engines are built for a server's batch sizes.
        self._sizes = BatchSizeSearch(rows, rows if model.settings.engine.tensorrt else MAX_ROWS)
        self._pool = ThreadPoolExecutor(threads, "driftline-score")
        self._stopped = False

    def start(self, inputs: Tensors, wanted: Sequence[str], rows: int) -> Block:
        """Start running a block of rows, after those that were started before."""
        block = Block(inputs, wanted, rows)
        block.workers = [self._pool.submit(self._work, block) for _ in range(self._threads)]
        return block

    def _work(self, block: Block) -> None:
        """In a thread: run batches of a block until no rows are left."""
        is_whole = not self._model.signature.batched
        clock = perf_counter_ns if self._model.runs_elsewhere else thread_time_ns
        while not self._stopped and (bounds := block.take(block.rows if is_whole else self._sizes.next())):
            start, stop = bounds
            inputs = {name: array[start:stop] for name, array in block.inputs.items()}
            begin = clock()
            outputs = self._model.run(block.inputs if is_whole else inputs, block.wanted)
            self._sizes.learn(stop - start, clock() - begin)
            block.parts.append((start, outputs))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped = True
        self._pool.shutdown(cancel_futures=True)


class Block:
    """Rows in progress, and the outputs so far."""

    def __init__(self, inputs: Tensors, wanted: Sequence[str], rows: int) -> None:
        self.inputs = inputs
        self.wanted = wanted
        self.rows = rows
        self.parts: list[tuple[int, Tensors]] = []
        self.workers: list[Future[None]] = []
        self._taken = 0
        self._lock = Lock()

    def take(self, max_rows: int) -> tuple[int, int] | None:
        """Return the range of the next rows to run, `max_rows` at most; None if none are left."""
        with self._lock:
            start = self._taken
            self._taken = min(start + max_rows, self.rows)
            return (start, self._taken) if self._taken > start else None

    def result(self) -> Tensors:
        """Wait for the outputs of all rows and return them in order; raises what a run has raised."""
        for worker in self.workers:
            worker.result()
        parts = [outputs for _, outputs in sorted(self.parts, key=lambda part: part[0])]
        return {name: np.concatenate([outputs[name] for outputs in parts]) for name in self.wanted}


class BatchSizeSearch:
    """Finds the batch size with the least time per row.

    The size doubles as long as rows don't take longer; then the cheapest is kept. A size is judged by its
    fastest batch, in CPU time of its thread, so that other work on the machine does not count.

    rows      of the first batch
    max_rows  rows of a batch that is tried
    """

    def __init__(self, rows: int, max_rows: int = MAX_ROWS) -> None:
        self._rows = rows
        self._max_rows = max_rows
        self._ns_per_row: dict[int, list[float]] = {}
        self._settled = False

    def next(self) -> int:
        """Return the size of the next batch."""
        return self._rows

    def learn(self, rows: int, ns: int) -> None:
        """Record that a batch of `rows` rows took `ns` nanoseconds; thread safe."""
        if self._settled or rows != self._rows:
            return
        times = self._ns_per_row.setdefault(rows, [])
        times.append(ns / rows)
        if len(times) < _BATCHES_PER_SIZE:
            return
        best = min(self._ns_per_row, key=lambda size: min(self._ns_per_row[size]))
        is_dearer = min(times) > _MAX_COST_RATIO * min(self._ns_per_row[best])
        self._settled = is_dearer or 2 * rows > self._max_rows
        self._rows = best if self._settled else 2 * rows
