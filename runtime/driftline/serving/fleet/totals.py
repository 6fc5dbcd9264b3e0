"""A worker's totals, and their sum over several workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from driftline.batching.counters import Counters
from driftline.serving.latency import Latency
from driftline.serving.payloads.log import Counts as Payloads
from driftline.serving.served import Served


@dataclass(slots=True)
class VersionTotals:
    """Totals of a version: counts that only grow and, from `pending` on, current values."""

    counters: Counters = field(default_factory=Counters)
    skipped_rows: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    pending: int = 0
    queue_rows: int = 0
    queue_bytes: int = 0
    waiting_rows: int = 0
    loading_watches: int = 0
    """Workers whose row counter is still being loaded."""

    @classmethod
    def of(cls, served: Served) -> VersionTotals:
        """Return the totals of a version in this process."""
        batcher, watch = served.batcher, served.watch
        return cls(
            batcher.counters,
            watch.observer.skipped_rows if watch else 0,
            Counter(served.model.unreadable),
            batcher.pending,
            batcher.queue_rows,
            batcher.queue_bytes,
            watch.observer.waiting_rows if watch else 0,
            int(watch is not None and watch.observer.monitor is None and not watch.observer.failure),
        )

    def add(self, other: VersionTotals) -> None:
        """Add another worker's totals."""
        self.counters.add(other.counters)
        self.skipped_rows += other.skipped_rows
        self.unreadable.update(other.unreadable)
        self.pending += other.pending
        self.queue_rows += other.queue_rows
        self.queue_bytes += other.queue_bytes
        self.waiting_rows += other.waiting_rows
        self.loading_watches += other.loading_watches

    def end(self) -> None:
        """Zero the current values: the worker has ended, and rows that waited there are skipped."""
        self.skipped_rows += self.waiting_rows
        self.pending = self.queue_rows = self.queue_bytes = self.waiting_rows = self.loading_watches = 0


@dataclass(slots=True)
class WorkerTotals:
    """Totals of a worker: of versions by key, of models by name, and of payloads."""

    versions: dict[int, VersionTotals] = field(default_factory=dict)
    models: dict[str, Latency] = field(default_factory=dict)
    payloads: Payloads = field(default_factory=Payloads)

    @property
    def pending(self) -> int:
        """Requests in flight."""
        return sum(totals.pending for totals in self.versions.values())

    def add(self, other: WorkerTotals) -> None:
        """Add another worker's totals."""
        for key, totals in other.versions.items():
            self.versions.setdefault(key, VersionTotals()).add(totals)
        for name, latency in other.models.items():
            self.models.setdefault(name, Latency()).add(latency)
        self.payloads.add(other.payloads)

    def end(self) -> None:
        """See VersionTotals.end."""
        for totals in self.versions.values():
            totals.end()
        self.payloads.end()


def total(parts: Iterable[WorkerTotals]) -> WorkerTotals:
    """Return the sum."""
    result = WorkerTotals()
    for part in parts:
        result.add(part)
    return result
