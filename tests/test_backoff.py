"""Waits between tries."""

from __future__ import annotations

from driftline.backoff import MAX_SECONDS, backoff, jittered


def test_tries_come_later_and_later_and_never_stop() -> None:
    waits = [backoff(failures) for failures in range(5000)]
    assert waits[:5] == [0, 1, 2, 4, 8]
    assert waits == sorted(waits)
    assert waits[-1] == MAX_SECONDS


def test_the_first_wait_and_the_longest_are_the_callers() -> None:
    assert [backoff(failures, 0.25, 0.9) for failures in range(4)] == [0, 0.25, 0.5, 0.9]


def test_many_do_not_try_again_together() -> None:
    waits = {jittered(8.0) for _ in range(100)}
    assert len(waits) > 90
    assert 4.0 <= min(waits) <= max(waits) <= 8.0
