"""A minute of bench/soak.py; half an hour is a benchmark."""

from __future__ import annotations

from bench.soak import soak


def test_no_answer_is_wrong_or_lost_while_versions_swap_and_workers_are_killed() -> None:
    seen = soak(60)
    assert seen.wrong == []
    assert seen.broken <= seen.held
    assert seen.swaps >= 5
    assert seen.kills >= 1
    assert len(seen.answers) > 1
