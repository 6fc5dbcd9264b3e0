"""What is counted of batches on a card: their categories, here."""

from __future__ import annotations

import logging
from threading import Timer

import numpy as np
import pytest

from driftline.engine import tally
from driftline.engine.tally import Page
from driftline.monitor.counting import Counter
from driftline.monitor.profile import Profile
from driftline.monitor.reading import Reader


@pytest.fixture
def profile() -> Profile:
    return Profile.fit({"s": np.array(list("ab") * 50, object)})


def page_of(profile: Profile) -> Page:
    return Page(profile, Reader((), Counter(profile).categorical))


def counted(counter: Counter) -> int:
    return int(counter.counts.sum())


A, B = ({"s": np.array([letter] * 3, object)} for letter in "ab")


def test_categories_wait_for_all_batches(profile: Profile) -> None:
    page, counter = page_of(profile), Counter(profile)
    page.open()
    page.open().settle(A)
    timer = Timer(0.05, page.settle, (B,))
    timer.start()
    page.move(counter)
    timer.join()
    assert counted(counter) == 6


def test_a_batch_that_is_late_is_counted_the_next_time(
    profile: Profile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tally, "SETTLE_SECONDS", 0.01)
    page, first, second = page_of(profile), Counter(profile), Counter(profile)
    page.open()
    page.open().settle(A)
    with caplog.at_level(logging.WARNING, "driftline.device"):
        page.move(first)
    assert "1 batches on a card were not answered in 0.01 s" in caplog.text
    page.settle(B)
    page.move(second)
    assert (counted(first), counted(second)) == (3, 3)


def test_a_batch_that_failed_is_settled_and_not_counted(profile: Profile) -> None:
    page, counter = page_of(profile), Counter(profile)
    page.open().settle({})
    page.move(counter)
    assert counted(counter) == 0
