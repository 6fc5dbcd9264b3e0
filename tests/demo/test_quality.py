from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.demo.quality import Speed, accuracy, auc
from driftline.demo.replay import ANSWER


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.9]), st.booleans()), min_size=1, max_size=30))
def test_auc_counts_the_pairs_in_the_right_order(flights: list[tuple[float, bool]]) -> None:
    probability, late = (np.array(column) for column in zip(*flights, strict=True))
    pairs = [(p > q) + (p == q) / 2 for p in probability[late] for q in probability[~late]]
    expected = sum(pairs) / len(pairs) if pairs else float("nan")
    assert auc(probability, late) == pytest.approx(expected, nan_ok=True)


def test_accuracy_is_the_share_of_right_guesses() -> None:
    assert accuracy(np.float32([0.9, 0.2, 0.6, 0.1]), np.array([True, True, False, False])) == 0.5


def test_speed_counts_from_the_first_request_to_the_last_answer() -> None:
    answers = np.zeros(100, ANSWER)
    answers["latency"] = np.linspace(0.001, 0.1, 100)
    answers["finished"] = 50 + np.linspace(0.001, 2, 100)
    speed = Speed.of(answers)
    assert speed.per_second == pytest.approx(100 / 2)
    assert speed.p50 == pytest.approx(50.5)
    assert speed.p99 == pytest.approx(99.01)
