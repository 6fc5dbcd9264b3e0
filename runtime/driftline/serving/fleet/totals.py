"""What a worker says of itself, and the sum of what several have said."""

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
    """What is counted of a version; the lower half is of this moment."""

    counters: Counters = field(default_factory=Counters)
    skipped_rows: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    pending: int = 0
    queue_rows: int = 0
    queue_bytes: int = 0
    waiting_rows: int = 0
    unwatched: int = 0
    """Workers in which what counts rows is still being loaded."""

    @classmethod
    def of(cls, served: Served) -> VersionTotals:
        """Of a version in this process."""
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
        """Add another worker's."""
        self.counters.add(other.counters)
        self.skipped_rows += other.skipped_rows
        self.unreadable.update(other.unreadable)
        self.pending += other.pending
        self.queue_rows += other.queue_rows
        self.queue_bytes += other.queue_bytes
        self.waiting_rows += other.waiting_rows
        self.unwatched += other.unwatched

    def end(self) -> None:
        """Forget what was of the moment: rows that waited with a worker have gone with it."""
        self.skipped_rows += self.waiting_rows
        self.pending = self.queue_rows = self.queue_bytes = self.waiting_rows = self.unwatched = 0


@dataclass(slots=True)
class WorkerTotals:
    """What a worker says of all that it holds: of versions by the supervisor's number, of models by name, and
    of payloads."""

    versions: dict[int, VersionTotals] = field(default_factory=dict)
    models: dict[str, Latency] = field(default_factory=dict)
    payloads: Payloads = field(default_factory=Payloads)

    @property
    def pending(self) -> int:
        """Requests that are not answered."""
        return sum(totals.pending for totals in self.versions.values())

    def add(self, other: WorkerTotals) -> None:
        """Add what another has said."""
        for key, totals in other.versions.items():
            self.versions.setdefault(key, VersionTotals()).add(totals)
        for name, latency in other.models.items():
            self.models.setdefault(name, Latency()).add(latency)
        self.payloads.add(other.payloads)

    def end(self) -> None:
        """Forget what was of the moment: the worker has gone."""
        for totals in self.versions.values():
            totals.end()
        self.payloads.end()


def total(parts: Iterable[WorkerTotals]) -> WorkerTotals:
    """The sum."""
    found = WorkerTotals()
    for one in parts:
        found.add(one)
    return found
