"""Halves that come late, twice, never, and more of them than there is room for."""

from __future__ import annotations

import json
import random

from hypothesis import given
from hypothesis import strategies as st

from driftline.protocols.payloads import Payload
from driftline.sidecar.logs.halves import RECORD_BYTES, Halves


def half(kind: str, name: str = "1", size: int = 2) -> Payload:
    return Payload(name, kind, 0.0, "m", "1", "application/json", None, None, b"x" * size)


REQUEST, RESPONSE = half("request"), half("response")


def test_either_may_come_first() -> None:
    halves = Halves(10**6, 60)
    assert halves.add("a", REQUEST, 0) is None
    assert halves.add("b", RESPONSE, 0) is None
    assert halves.add("a", RESPONSE, 0) == (REQUEST, RESPONSE)
    assert (halves.unpaired, halves.known_ids) == (1, 2)
    assert halves.add("b", REQUEST, 0) == (REQUEST, RESPONSE)
    assert halves.unpaired == 0
    assert (halves.counts["joined"], halves.counts["late"]) == (4, 1)


def test_what_comes_twice_counts_once() -> None:
    halves = Halves(10**6, 60)
    for payload in (REQUEST, REQUEST, RESPONSE, RESPONSE, REQUEST):
        halves.add("a", payload, 0)
    assert (halves.counts["joined"], halves.counts["duplicate"]) == (2, 3)


def test_an_id_is_known_for_so_long_only() -> None:
    halves = Halves(10**6, 60)
    halves.add("a", REQUEST, 0)
    halves.add("b", RESPONSE, 30)
    assert halves.unpaired == 2
    assert halves.expire(59) == []
    assert halves.expire(60) == []
    assert (halves.known_ids, halves.counts["expired"]) == (1, 1)
    assert halves.expire(90) == []
    assert (halves.known_ids, halves.bytes, halves.counts["expired"]) == (0, 0, 2)


def test_where_no_answers_are_logged_requests_stand_alone() -> None:
    halves = Halves(10**6, 60)
    halves.add("a", REQUEST, 0)
    assert halves.expire(60) == [(REQUEST, None)]
    assert halves.counts["alone"] == 1


def test_for_want_of_room_the_oldest_are_dropped() -> None:
    halves = Halves(10 * (RECORD_BYTES + 130), 60)  # 130: the body and texts
    for number in range(100):
        halves.add(str(number), half("request", str(number), 100), number)
    assert (halves.known_ids, halves.counts["dropped"]) == (10, 90)
    assert halves.add("95", RESPONSE, 100) is not None
    assert halves.add("5", RESPONSE, 100) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(0, 300)), max_size=60), st.data())
def test_room_is_never_exceeded_and_nothing_is_lost_uncounted(
    moves: list[tuple[int, bool, int]], data: st.DataObject
) -> None:
    halves = Halves(3000, 20)
    alone = 0
    for now, (name, asked, size) in enumerate(moves):
        halves.add(str(name), half("request" if asked else "response", str(name), size), now)
        alone += len(halves.expire(now))
        assert 0 <= halves.bytes <= 3000
    waiting = len(halves.snapshot())
    assert sum(halves.counts.values()) - halves.counts["late"] + waiting == len(moves)
    assert halves.counts["alone"] == alone


def test_any_order_of_many_joins_all_and_gives_back_their_room() -> None:
    halves = Halves(10**7, 60)
    events = [(str(n), half(kind, str(n))) for n in range(1000) for kind in ("request", "response")]
    random.Random(0).shuffle(events)
    pairs = [pair for key, payload in events if (pair := halves.add(key, payload, 0.0))]
    assert len(pairs) == 1000
    assert all(answer is not None and request.id == answer.id for request, answer in pairs)
    assert halves.expire(60) == []
    assert (halves.unpaired, halves.bytes) == (0, 0)


def test_what_waits_outlives_a_restart() -> None:
    halves, after = Halves(10**6, 60), Halves(10**6, 60)
    halves.add("a", REQUEST, 0)
    halves.add("b", REQUEST, 0)
    halves.add("b", RESPONSE, 0)
    after.restore(json.loads(json.dumps(halves.snapshot())), 0)
    assert after.add("a", RESPONSE, 0) == (REQUEST, RESPONSE)


def test_long_texts_take_room() -> None:
    halves = Halves(10 * RECORD_BYTES, 60)
    for number in range(10):
        halves.add(f"{number}" + "s" * 5_000, REQUEST, 0)
    assert (halves.known_ids, halves.counts["dropped"]) == (1, 9)
    assert halves.add("9" + "s" * 5_000, RESPONSE, 0) is not None
    assert halves.bytes > 5_000
    halves.expire(60)
    assert halves.bytes == 0
