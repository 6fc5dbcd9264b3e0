from driftline.batching.counters import BatchSize, Counters
from driftline.errors import BadRequest, Cancelled, ModelError, Unavailable


def test_batches_add_up_by_size() -> None:
    counters = Counters()
    counters.record_batch(4, 1, 10, 100)
    counters.record_batch(4, 2, 20, 200)
    counters.record_batch(1, 3, 30, 300)
    assert (counters.executions, counters.inferences) == (3, 9)
    assert (counters.input_ns, counters.infer_ns, counters.output_ns) == (6, 60, 600)
    assert counters.batches == {4: BatchSize(2, 3, 30, 300), 1: BatchSize(1, 3, 30, 300)}


def test_failures_count_by_whose_fault_they_are() -> None:
    counters = Counters()
    for error in (BadRequest("a"), Unavailable("b"), Unavailable("c"), ModelError("d"), Cancelled("e")):
        counters.record_failure(error, 7)
    assert counters.failures == {"OTHER": 1, "REJECTED": 2, "BACKEND": 1, "CANCELED": 1}
    assert counters.failure_ns == 35
    assert counters.requests == 0


def test_totals_of_several_processes_add_up() -> None:
    first, second, total = Counters(), Counters(), Counters()
    for part in (first, second):
        for counters in (part, total):
            counters.record_batch(4, 1, 10, 100)
            counters.record_batch(1 if part is first else 2, 3, 30, 300)
            counters.record_failure(ModelError("x"), 5)
            counters.requests += 2
            counters.request_ns += 7
            counters.queue_ns += 3
            counters.last_inference = 1.0 if part is first else 2.0
    first.add(second)
    assert first == total
