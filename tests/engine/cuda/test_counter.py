"""What is counted of batches on a GPU: their categories, here."""

from __future__ import annotations

import logging
from threading import Timer

import numpy as np
import pytest

from driftline.engine.cuda import counter as module
from driftline.engine.cuda.counter import CategoryCounts
from driftline.monitor.counting import Counter
from driftline.monitor.reading import Reader
from driftline.monitor.reference.profile import Profile


@pytest.fixture
def profile() -> Profile:
    return Profile.fit({"s": np.array(list("ab") * 50, object)})


def counts_of(profile: Profile) -> CategoryCounts:
    return CategoryCounts(profile, Reader((), Counter(profile).categorical))


def counted(counter: Counter) -> int:
    return int(counter.counts.sum())


A, B = ({"s": np.array([letter] * 3, object)} for letter in "ab")


def test_categories_wait_for_all_batches(profile: Profile) -> None:
    counts, counter = counts_of(profile), Counter(profile)
    counts.open()
    counts.open().settle(A)
    timer = Timer(0.05, counts.settle, (B,))
    timer.start()
    counts.move(counter)
    timer.join()
    assert counted(counter) == 6


def test_a_batch_that_is_late_is_counted_the_next_time(
    profile: Profile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.01)
    counts, first, second = counts_of(profile), Counter(profile), Counter(profile)
    counts.open()
    counts.open().settle(A)
    with caplog.at_level(logging.WARNING, "driftline.device"):
        counts.move(first)
    assert "1 batches on a GPU were not computed within 0.01 s" in caplog.text
    counts.settle(B)
    counts.move(second)
    assert (counted(first), counted(second)) == (3, 3)


def test_a_batch_that_failed_is_settled_and_not_counted(profile: Profile) -> None:
    counts, counter = counts_of(profile), Counter(profile)
    counts.open().settle({})
    counts.move(counter)
    assert counted(counter) == 0
