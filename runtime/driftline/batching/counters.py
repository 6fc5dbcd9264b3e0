"""Counters of a batcher: plain numbers, written on the event loop."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from driftline.errors import DriftlineError


@dataclass(slots=True)
class BatchSize:
    """The batches of one size: their number, and the nanoseconds that they took."""

    count: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


@dataclass(slots=True)
class Counters:
    """Running totals of one version, in the terms of Triton's statistics extension.

    A request is what a client sent, an inference is a row, an execution is a batch that ran. A request
    waits in the queue, its rows are gathered (input), run (infer) and split again (output). Times are in
    nanoseconds; `last_inference` is in seconds since 1970; `failures` are by reason, `batches` by rows.
    """

    requests: int = 0
    request_ns: int = 0
    queue_ns: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    failure_ns: int = 0
    inferences: int = 0
    executions: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    last_inference: float = 0.0
    batches: dict[int, BatchSize] = field(default_factory=dict)

    def record_failure(self, error: DriftlineError, ns: int) -> None:
        """Count a request that failed `ns` nanoseconds after it arrived."""
        self.failures[error.reason] += 1
        self.failure_ns += ns

    def record_batch(self, rows: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """Count a batch that ran."""
        self.executions += 1
        self.inferences += rows
        self.input_ns += input_ns
        self.infer_ns += infer_ns
        self.output_ns += output_ns
        size = self.batches.get(rows)
        if size is None:
            size = self.batches[rows] = BatchSize()
        size.count += 1
        size.input_ns += input_ns
        size.infer_ns += infer_ns
        size.output_ns += output_ns

    def add(self, other: Counters) -> None:
        """Add the totals of another process."""
        for name in _TOTALS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures.update(other.failures)
        self.last_inference = max(self.last_inference, other.last_inference)
        for rows, size in other.batches.items():
            total = self.batches.setdefault(rows, BatchSize())
            total.count += size.count
            total.input_ns += size.input_ns
            total.infer_ns += size.infer_ns
            total.output_ns += size.output_ns


_TOTALS = (
    "requests", "request_ns", "queue_ns", "failure_ns",
    "inferences", "executions", "input_ns", "infer_ns", "output_ns",
)  # fmt: skip
