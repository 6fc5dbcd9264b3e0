"""The search for the highest rate."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from driftline.load.knee import MAX_RATE, MIN_RATE, knee


@given(
    capacity=st.floats(MIN_RATE, MAX_RATE),
    first=st.floats(0, 2 * MAX_RATE),
    factor=st.floats(1.1, 4),
    precision=st.floats(0.01, 0.3),
)
def test_it_is_found_from_wherever_one_begins(
    capacity: float, first: float, factor: float, precision: float
) -> None:
    asked: list[float] = []

    def meets(rate: float) -> bool:
        asked.append(rate)
        return rate <= capacity

    found = knee(meets, first, factor, precision)
    assert found is not None
    assert found in asked
    assert found <= capacity <= found * (1 + precision) or found == MAX_RATE
    assert all(MIN_RATE <= rate <= MAX_RATE for rate in asked)


def test_none_if_nothing_is_borne() -> None:
    asked: list[float] = []
    assert knee(lambda rate: bool(asked.append(rate)), 8) is None
    assert asked == [8, 8, 4, 4, 2, 2, 1, 1]


def test_one_miss_may_be_chance() -> None:
    asked: dict[float, int] = {}

    def meets(rate: float) -> bool:
        asked[rate] = asked.get(rate, 0) + 1
        return rate <= 100 and asked[rate] == 2

    found = knee(meets, 10)
    assert found is not None
    assert 95 < found <= 100
