from driftline.batching.counters import BatchSize, Counters
from driftline.errors import BadRequest, Cancelled, ModelError, Unavailable


def test_batches_add_up_by_size() -> None:
    counters = Counters()
    counters.executed(4, 1, 10, 100)
    counters.executed(4, 2, 20, 200)
    counters.executed(1, 3, 30, 300)
    assert (counters.executions, counters.inferences) == (3, 9)
    assert (counters.input_ns, counters.infer_ns, counters.output_ns) == (6, 60, 600)
    assert counters.batches == {4: BatchSize(2, 3, 30, 300), 1: BatchSize(1, 3, 30, 300)}


def test_failures_count_by_whose_fault_they_are() -> None:
    counters = Counters()
    for error in (BadRequest("a"), Unavailable("b"), Unavailable("c"), ModelError("d"), Cancelled("e")):
        counters.fail(error, 7)
    assert counters.failures == {"OTHER": 1, "REJECTED": 2, "BACKEND": 1, "CANCELED": 1}
    assert counters.failure_ns == 35
    assert counters.requests == 0
