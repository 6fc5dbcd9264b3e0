import pytest

from driftline.serving.latency import BOUNDS_NS, Latency


@pytest.mark.parametrize(
    ("ns", "bucket"),
    [
        (0, 0),
        (100_000, 0),
        (100_001, 1),
        (250_000, 1),
        (1_000_000, 3),
        (10_000_000_000, 15),
        (10_000_000_001, 16),
        (10**15, 16),
    ],
)
def test_a_duration_counts_below_the_bound_that_it_reaches(ns: int, bucket: int) -> None:
    latency = Latency()
    latency.observe(ns)
    assert [index for index, count in enumerate(latency.counts) if count] == [bucket]


def test_durations_add_up() -> None:
    latency = Latency()
    for ns in (1, 2, 300_000):
        latency.observe(ns)
    assert (sum(latency.counts), latency.sum_ns) == (3, 300_003)


def test_bounds_ascend_and_one_bucket_is_above_them() -> None:
    assert list(BOUNDS_NS) == sorted(set(BOUNDS_NS))
    assert BOUNDS_NS[0] == 100_000
    assert len(Latency().counts) == len(BOUNDS_NS) + 1
