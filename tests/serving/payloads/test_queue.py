"""The queue between the event loop and the threads that log."""

from __future__ import annotations

import threading
from time import monotonic

from driftline.serving.payloads.queue import Asked, Exchange, Queue

ASKED = Asked("m", b"application/json", b"", None)


def exchange(number: int, size: int = 1000) -> Exchange:
    return Exchange(float(number), ASKED, b"q" * size, 200, b"", b"a", None)


def test_for_more_than_it_may_hold_the_oldest_go() -> None:
    queue = Queue(10 * exchange(0).size)
    for number in range(25):
        queue.put(exchange(number))
    counts = queue.counts
    assert (counts.queued, counts.dropped, counts.sent) == (20, 30, 0)
    assert counts.queued_bytes == 10 * exchange(0).size
    assert [found.time for _ in range(10) if (found := queue.take(0))] == list(range(15, 25))
    assert queue.take(0) is None


def test_one_that_is_too_large_leaves_nothing() -> None:
    queue = Queue(1000)
    queue.put(exchange(0, 5000))
    assert queue.take(0) is None
    assert queue.counts.dropped == 2
    assert queue.counts.queued_bytes == 0


def test_what_waits_is_taken_after_closing_until_it_is_too_late() -> None:
    queue = Queue(10**6)
    queue.put(exchange(1))
    queue.put(exchange(2))
    queue.close(60)
    assert queue.take(60) is not None
    queue.close(0)
    assert queue.late
    assert queue.take(60) is None
    assert queue.counts.queued == 4  # of two nobody has said what became of them


def test_several_threads_take_each_one_once() -> None:
    queue = Queue(10**9)
    found: list[float] = []

    def take() -> None:
        while (one := queue.take(60)) is not None:
            found.append(one.time)
            queue.done(sent=one.halves)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(5000):
        queue.put(exchange(number, 10))
    queue.close(60)
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(5000))
    counts = queue.counts
    assert (counts.sent, counts.dropped, counts.queued, counts.queued_bytes) == (10000, 0, 0, 0)


def test_nobody_is_waited_for_longer_than_was_said() -> None:
    queue = Queue(1000)
    begin = monotonic()
    assert queue.take(0.05) is None
    assert monotonic() - begin >= 0.05


def test_halves_have_one_id_and_what_their_heads_said() -> None:
    asked = Asked("m", b"application/json", b"", 3)
    answer = b"content-type: x\r\ninference-header-content-length: 2\r\n"
    request, response = Exchange(1.0, asked, b"{} ", 200, answer, b"{}", None).payloads()
    assert request.id == response.id
    assert (request.type, request.json_length, request.body) == ("request", 3, b"{} ")
    assert (response.type, response.json_length, response.body) == ("response", 2, b"{}")
    assert {request.content_type, response.content_type} == {"application/json"}
    (alone,) = Exchange(1.0, Asked("m", b"", b"seven", None), None, 200, b"", b"{}", None).payloads()
    assert (alone.id, alone.type) == ("seven", "response")
