import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from time import perf_counter, perf_counter_ns, sleep
from typing import Any

import numpy as np
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.batching.batcher import Batcher
from driftline.batching.cost import Cost
from driftline.batching.request import REQUEST_BYTES, Request
from driftline.config import Batching
from driftline.errors import (
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    ModelError,
    Stopping,
    TooLarge,
    Unavailable,
)
from driftline.tensors import DATATYPES, Signature, Tensors, TensorSpec

FOREVER = 60.0
HOUR_US = 3_600_000_000


def signature(*shape: int, batched: bool = True) -> Signature:
    spec = TensorSpec("x", DATATYPES["FP32"], shape or (-1, 2))
    return Signature((spec,), (spec,), batched)


def cost_of(ns: int) -> Cost:
    """A cost that predicts `ns` for everything small."""
    cost = Cost()
    for size in range(12):
        cost.learn(2**size - 1, ns)
    return cost


INLINE, THREAD = 1_000, 10_000_000


class Doubler:
    """y = 2 x, z = -x. Remembers what it ran; refuses rows below 0; while `gate` is closed, it waits."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.requested: list[tuple[str, ...]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def __call__(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        x = inputs["x"]
        self.batches.append(x[..., 0].tolist())
        self.requested.append(tuple(outputs))
        self.threads.add(threading.get_ident())
        self.entered.release()
        assert self.gate.wait(FOREVER)
        if (x < 0).any():
            raise BadRequest("below 0")
        results = {"y": 2 * x, "z": -x}
        return {name: results[name] for name in outputs}

    async def running(self) -> None:
        """Wait until a run has begun."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=FOREVER)


def rows(*values: float, width: int = 2) -> Tensors:
    return {"x": np.repeat(np.array(values, np.float32)[:, None], width, axis=1)}


def make(
    run: Callable[[Tensors, Sequence[str]], Tensors],
    sig: Signature | None = None,
    *,
    max_rows: int = 4,
    instances: int = 1,
    ns: int = INLINE,
    **limits: int,
) -> Batcher:
    return Batcher(
        run, sig or signature(), Batching(max_batch_rows=max_rows, **limits), instances, cost_of(ns)
    )


@asynccontextmanager
async def blocked(run: Doubler, batcher: Batcher, count: int = 1) -> AsyncIterator[list[Request]]:
    """While inside, `count` requests of one row are running in threads."""
    run.gate.clear()
    requests = []
    for number in range(count):
        requests.append(batcher.submit(rows(100 + number), ("y",)))
        await run.running()
    try:
        yield requests
    finally:
        run.gate.set()


async def empty(batcher: Batcher) -> None:
    """Wait for the end of all work: then nothing may be left on the books."""
    async with asyncio.timeout(FOREVER):
        await batcher.drain()
    assert (batcher.queue_rows, batcher.queue_bytes, batcher.pending) == (0, 0, 0)
    assert not batcher._groups
    assert not batcher.running


async def settled(*requests: Request) -> list[Any]:
    """Each request's y, first column; or its error."""
    async with asyncio.timeout(FOREVER):
        outcomes = await asyncio.gather(*requests, return_exceptions=True)
    return [
        outcome if isinstance(outcome, BaseException) else outcome["y"][..., 0].tolist()
        for outcome in outcomes
    ]


async def test_whoever_fails_with_a_result_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    run = Doubler()
    batcher = make(run)
    first, second = (batcher.submit(rows(1), ("y",)) for _ in range(2))

    def fail() -> None:
        raise RuntimeError("the socket is upside down")

    first.on_done = fail
    assert await settled(second) == [[2]]
    assert "upside down" in caplog.text
    await empty(batcher)


# -- together -------------------------------------------------------------------------------------


async def test_what_waits_for_the_next_turn_of_the_loop_may_run_now() -> None:
    run = Doubler()
    batcher, delayed = make(run), make(run, max_delay_us=HOUR_US)
    batcher.flush_now()
    request = batcher.submit(rows(1), ("y",))
    batcher.flush_now()
    assert request.done
    assert await settled(request) == [[2]]
    queued = delayed.submit(rows(2), ("y",))
    delayed.flush_now()
    assert run.batches == [[1]]
    queued.cancel()
    await empty(batcher)
    await empty(delayed)


async def test_what_runs_now_does_not_run_again_in_the_next_turn_of_the_loop() -> None:
    run = Doubler()
    batcher = make(run, max_rows=1, ns=THREAD)
    run.gate.clear()
    requests = [batcher.submit(rows(number), ("y",)) for number in (1, 2)]
    batcher.flush_now()
    await run.running()
    assert (batcher.running, batcher.queue_rows) == (1, 1)
    run.gate.set()
    assert await settled(*requests) == [[2], [4]]
    await empty(batcher)


async def test_no_more_batches_run_than_there_are_instances() -> None:
    run = Doubler()
    batcher = make(run, max_rows=2, ns=THREAD)
    run.gate.clear()
    requests = [batcher.submit(rows(number, number), ("y",)) for number in (1, 2, 3)]
    await run.running()
    await asyncio.sleep(0)
    assert (batcher.running, batcher.queue_rows) == (1, 4)
    run.gate.set()
    assert await settled(*requests) == [[2, 2], [4, 4], [6, 6]]
    await empty(batcher)


async def test_what_comes_in_one_turn_of_the_loop_runs_together() -> None:
    run = Doubler()
    batcher = make(run)
    requests = [batcher.submit(rows(1), ("y",)), batcher.submit(rows(2, 3), ("y",))]
    assert await settled(*requests) == [[2], [4, 6]]
    assert run.batches == [[1, 2, 3]]
    await empty(batcher)


async def test_what_comes_while_a_batch_runs_is_the_next_one() -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD)
    async with blocked(run, batcher) as first:
        later = [batcher.submit(rows(n), ("y",)) for n in range(6)]
        assert (batcher.queue_rows, batcher.pending) == (6, 7)
    assert await settled(*first, *later) == [[200], *([2 * n] for n in range(6))]
    assert run.batches == [[100], [0, 1, 2, 3], [4, 5]]
    await empty(batcher)


async def test_rows_are_counted_and_requests_are_not_cut_below_the_maximum() -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD)
    async with blocked(run, batcher):
        batcher.submit(rows(1, 2, 3), ("y",))
        batcher.submit(rows(4, 5), ("y",))
        batcher.submit(rows(6), ("y",))
    await empty(batcher)
    assert run.batches == [[100], [1, 2, 3], [4, 5, 6]]


async def test_a_request_above_the_maximum_is_split_and_fills_what_is_free() -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD)
    async with blocked(run, batcher):
        requests = [
            batcher.submit(rows(0), ("y",)),
            batcher.submit(rows(*range(1, 10)), ("y", "z")),
            batcher.submit(rows(10, 11), ("y",)),
        ]
        assert batcher.queue_rows == 12
    outcomes = await settled(*requests)
    assert outcomes == [[0], [2 * n for n in range(1, 10)], [20, 22]]
    assert run.batches == [[100], [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert (await requests[1])["z"][:, 0].tolist() == [-n for n in range(1, 10)]
    await empty(batcher)


async def test_a_split_request_stays_on_the_books_until_its_last_row_is_taken() -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD)
    run.gate.clear()
    request = batcher.submit(rows(*range(10)), ("y",))
    await run.running()
    assert (batcher.queue_rows, batcher.queue_bytes) == (6, REQUEST_BYTES + 10 * 2 * 4)
    run.gate.set()
    assert await settled(request) == [[2 * n for n in range(10)]]
    await empty(batcher)


async def test_only_wanted_outputs_are_computed_and_each_request_gets_its_own() -> None:
    run = Doubler()
    batcher = make(run)
    one, two = batcher.submit(rows(1), ("z",)), batcher.submit(rows(2), ("y", "z"))
    alone = await one
    assert list(alone) == ["z"]
    assert alone["z"].tolist() == [[-1, -1]]
    assert list(await two) == ["y", "z"]
    await batcher.submit(rows(3), ("z",))
    assert run.requested == [("z", "y"), ("z",)]


@pytest.mark.parametrize("values", [(), (7, 8)])
async def test_zero_rows_are_answered(values: tuple[float, ...]) -> None:
    run = Doubler()
    batcher = make(run)
    requests = [batcher.submit(rows(), ("y",)), batcher.submit(rows(*values), ("y",))]
    assert await settled(*requests) == [[], [2 * value for value in values]]
    await empty(batcher)


async def test_zero_rows_leave_the_queue_too() -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD)
    async with blocked(run, batcher):
        cancelled = batcher.submit(rows(), ("y",))
        cancelled.cancel()
        assert batcher.queue_bytes == 0
        expired = batcher.submit(rows(), ("y",), timeout_us=1)
        with pytest.raises(DeadlineExceeded):
            await expired
    await empty(batcher)


async def test_zero_rows_do_not_make_a_long_batch_look_short() -> None:
    run = Doubler()
    batcher = make(run, ns=INLINE, max_rows=4)
    batcher._cost = Cost()
    batcher._cost.learn(0, INLINE)
    batcher._cost.learn(8, THREAD)
    batcher.submit(rows(), ("y",))
    batcher.submit(rows(1, 2, 3, 4), ("y",))
    await empty(batcher)
    assert run.batches == [[1, 2, 3, 4]]
    assert run.threads != {threading.get_ident()}


async def test_varying_dimensions_are_grouped_and_take_turns() -> None:
    run = Doubler()
    batcher = make(run, signature(-1, -1), ns=THREAD)
    async with blocked(run, batcher):
        narrow = [batcher.submit(rows(n, width=1), ("y",)) for n in range(8)]
        wide = [batcher.submit(rows(10 + n, width=3), ("y",)) for n in range(3)]
    assert await settled(*narrow, *wide) == [[2 * n] for n in [*range(8), 10, 11, 12]]
    assert run.batches == [[100], [0, 1, 2, 3], [10, 11, 12], [4, 5, 6, 7]]
    await empty(batcher)


async def test_a_group_that_never_empties_starves_no_other() -> None:
    run = Doubler()
    batcher = make(run, signature(-1, -1))
    other = None
    for turn in range(20):
        for n in range(8):
            batcher.submit(rows(n, width=1), ("y",))
        if turn == 1:
            other = batcher.submit(rows(50, width=3), ("y",))
        await asyncio.sleep(0)
        if other is not None and other.done:
            break
    assert turn < 4
    await empty(batcher)


@pytest.mark.parametrize("sig", [signature(4, 2, batched=False), signature(2, batched=False)])
async def test_models_without_a_free_batch_dimension_run_each_request_alone(sig: Signature) -> None:
    run = Doubler()
    batcher = make(run, sig, max_delay_us=HOUR_US)
    shape = sig.inputs[0].shape
    requests = [batcher.submit({"x": np.full(shape, n, np.float32)}, ("y",)) for n in range(3)]
    async with asyncio.timeout(FOREVER):
        answers = [await request for request in requests]
    assert [answer["y"].tolist() for answer in answers] == [np.full(shape, 2 * n).tolist() for n in range(3)]
    assert len(run.batches) == 3
    assert batcher.counters.inferences == 3
    await empty(batcher)


async def test_instances_run_batches_at_the_same_time() -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD, instances=3)
    async with blocked(run, batcher, 3) as requests:
        queued = batcher.submit(rows(1), ("y",))
        for _ in range(10):
            await asyncio.sleep(0)
        assert batcher.queue_rows == 1  # a fourth has to wait
        assert len(run.threads) == 3
    assert await settled(*requests, queued) == [[200], [202], [204], [2]]
    await empty(batcher)


async def test_a_split_request_runs_on_all_instances() -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD, instances=2)
    run.gate.clear()
    request = batcher.submit(rows(*range(9)), ("y",))
    await run.running()
    await run.running()
    assert batcher.queue_rows == 1
    run.gate.set()
    assert await settled(request) == [[2 * n for n in range(9)]]
    await empty(batcher)


async def test_parts_that_finish_out_of_order_are_joined_in_order() -> None:
    second_is_done = threading.Event()

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        if inputs["x"][0, 0] == 0:
            assert second_is_done.wait(FOREVER)
        return {"y": inputs["x"]}

    batcher = make(run, ns=THREAD, instances=2)
    request = batcher.submit(rows(*range(8)), ("y",))
    async with asyncio.timeout(FOREVER):
        while not request.parts:  # noqa: ASYNC110 - a thread works
            await asyncio.sleep(0.001)
    second_is_done.set()
    assert await settled(request) == [list(range(8))]
    await empty(batcher)


# -- inline or in a thread --------------------------------------------------------------------------


async def test_short_work_runs_on_the_loop_and_long_work_in_a_thread() -> None:
    loop_thread = threading.get_ident()
    for ns, inline in ((INLINE, True), (THREAD, False)):
        run = Doubler()
        batcher = make(run, ns=ns)
        await batcher.submit(rows(1), ("y",))
        assert (run.threads == {loop_thread}) is inline
        await empty(batcher)
        batcher.close()


async def test_what_nothing_is_known_of_runs_in_a_thread_and_its_cost_is_learnt() -> None:
    run, cost = Doubler(), Cost()
    batcher = Batcher(run, signature(), Batching(), 1, cost)
    await batcher.submit(rows(1), ("y",))
    assert run.threads != {threading.get_ident()}
    assert 0 < cost.predict(2) < float("inf")
    assert batcher.counters.last_inference > 0
    await empty(batcher)


# -- the delay --------------------------------------------------------------------------------------


async def test_a_delay_waits_for_a_full_batch_and_no_longer() -> None:
    run = Doubler()
    batcher = make(run, max_delay_us=HOUR_US)
    requests = [batcher.submit(rows(n), ("y",)) for n in range(3)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert not run.batches
    requests.append(batcher.submit(rows(3), ("y",)))
    assert await settled(*requests) == [[0], [2], [4], [6]]
    assert run.batches == [[0, 1, 2, 3]]
    await empty(batcher)


async def test_a_delay_ends() -> None:
    run = Doubler()
    batcher = make(run, max_delay_us=2_000)
    assert await settled(batcher.submit(rows(1), ("y",))) == [[2]]
    cancelled = batcher.submit(rows(2), ("y",))
    cancelled.cancel()
    assert await settled(batcher.submit(rows(3), ("y",))) == [[6]]
    await empty(batcher)


async def test_what_is_left_of_a_full_batch_waits_no_longer_than_the_delay() -> None:
    run = Doubler()
    batcher = make(run, max_delay_us=20_000)
    requests = [batcher.submit(rows(n), ("y",)) for n in range(5)]
    assert await settled(*requests) == [[2 * n] for n in range(5)]
    assert run.batches == [[0, 1, 2, 3], [4]]
    await empty(batcher)


# -- full -------------------------------------------------------------------------------------------


async def test_a_queue_full_of_rows_refuses_and_says_when_to_come_back() -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD, max_queue_rows=5)
    async with blocked(run, batcher):
        batcher.submit(rows(1, 2, 3), ("y",))
        with pytest.raises(Unavailable, match="full: 3 rows wait") as refused:
            batcher.submit(rows(4, 5, 6), ("y",))
        assert refused.value.retry_after >= 1
        batcher.submit(rows(4, 5), ("y",))
        assert batcher.queue_rows == 5
    await empty(batcher)
    assert batcher.counters.requests == 3


async def test_the_time_to_come_back_grows_with_what_waits() -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD)
    batcher.counters.record_batch(4, 0, 4_000_000_000, 0)
    async with blocked(run, batcher):
        for n in range(10):
            batcher.submit(rows(n), ("y",))
        assert batcher._retry_after() == 11
    await empty(batcher)


async def test_a_queue_full_of_bytes_refuses() -> None:
    run = Doubler()
    size = REQUEST_BYTES + 8
    batcher = make(run, ns=THREAD, max_queue_bytes=2 * size)
    async with blocked(run, batcher):
        batcher.submit(rows(1), ("y",))
        batcher.submit(rows(2), ("y",))
        assert batcher.queue_bytes == 2 * size
        with pytest.raises(Unavailable):
            batcher.submit(rows(3), ("y",))
    await empty(batcher)


async def test_what_would_never_fit_is_too_large() -> None:
    batcher = make(Doubler(), max_queue_rows=5, max_queue_bytes=REQUEST_BYTES + 30)
    with pytest.raises(TooLarge, match="6 rows"):
        batcher.submit(rows(*range(6)), ("y",))
    with pytest.raises(TooLarge, match=f"{REQUEST_BYTES + 32} bytes"):
        batcher.submit(rows(*range(4)), ("y",))
    await empty(batcher)


async def test_strings_count_with_their_letters() -> None:
    spec = TensorSpec("x", DATATYPES["BYTES"], (-1,))
    batcher = make(lambda inputs, outputs: {"y": inputs["x"]}, Signature((spec,), (spec,), True))
    request = batcher.submit({"x": np.array(["a" * 1000, "b"], object)}, ("y",))
    assert request.nbytes == REQUEST_BYTES + 2 * 8 + 50 + 1000 + 50 + 1
    assert (await request)["y"].tolist() == ["a" * 1000, "b"]
    await empty(batcher)


async def test_tensors_that_differ_in_rows_are_refused() -> None:
    specs = tuple(TensorSpec(name, DATATYPES["FP32"], (-1, 2)) for name in "ab")
    batcher = make(Doubler(), Signature(specs, specs, True))
    with pytest.raises(BadRequest, match="'b': expected 2 rows as in input 'a', got 3"):
        batcher.submit({"a": rows(1, 2)["x"], "b": rows(1, 2, 3)["x"]}, ("y",))
    await empty(batcher)


# -- late -------------------------------------------------------------------------------------------


async def test_a_request_past_its_deadline_leaves_the_queue() -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD)
    async with blocked(run, batcher):
        expired = batcher.submit(rows(1), ("y",), timeout_us=1_000)
        in_time = batcher.submit(rows(2), ("y",), timeout_us=HOUR_US)
        with pytest.raises(DeadlineExceeded, match="timeout of 1000 microseconds"):
            await expired
        assert batcher.queue_rows == 1
    assert await settled(in_time) == [[4]]
    assert run.batches == [[100], [2]]
    assert batcher.counters.failures == {"REJECTED": 1}
    await empty(batcher)


async def test_a_request_past_its_deadline_does_not_wait_for_its_run() -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD)
    run.gate.clear()
    expired = batcher.submit(rows(1), ("y",), timeout_us=HOUR_US)
    neighbour = batcher.submit(rows(2), ("y",))
    await run.running()
    batcher._expire(expired)
    with pytest.raises(DeadlineExceeded):
        await expired
    assert batcher.pending == 1
    run.gate.set()
    assert await settled(neighbour) == [[4]]
    await empty(batcher)


async def test_what_became_late_while_the_loop_was_busy_never_runs() -> None:
    run = Doubler()
    batcher = make(run)
    expired = [batcher.submit(rows(n), ("y",), timeout_us=1) for n in range(3)]
    in_time = batcher.submit(rows(3), ("y",))
    sleep(0.001)  # noqa: ASYNC251 - the loop is busy
    assert [type(outcome) for outcome in await settled(*expired)] == [DeadlineExceeded] * 3
    assert await settled(in_time) == [[6]]
    assert run.batches == [[3]]
    await empty(batcher)


async def test_a_group_that_is_late_as_a_whole_does_not_stop_the_next() -> None:
    run = Doubler()
    batcher = make(run, signature(-1, -1))
    expired = batcher.submit(rows(1, width=1), ("y",), timeout_us=1)
    in_time = batcher.submit(rows(2, width=2), ("y",))
    sleep(0.001)  # noqa: ASYNC251 - the loop is busy
    assert await settled(in_time) == [[4]]
    assert expired.done
    await empty(batcher)


@pytest.mark.parametrize("timeout_us", [300, 900, 10_000])
def test_no_deadline_comes_early_by_the_servers_coarse_clock(timeout_us: int) -> None:
    """uvloop rounds to milliseconds, and less than half of one to the next turn of the loop."""

    async def main() -> None:
        batcher = make(Doubler(), max_delay_us=HOUR_US)
        for _ in range(20):
            begin = perf_counter()
            with pytest.raises(DeadlineExceeded):
                await batcher.submit(rows(1), ("y",), timeout_us=timeout_us)
            assert perf_counter() - begin >= timeout_us / 1e6
        await empty(batcher)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def test_the_rest_of_a_split_request_that_is_late_never_runs() -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD)
    run.gate.clear()
    expired = batcher.submit(rows(*range(9)), ("y",), timeout_us=HOUR_US)
    await run.running()
    batcher._expire(expired)
    with pytest.raises(DeadlineExceeded):
        await expired
    assert (batcher.queue_rows, batcher.queue_bytes) == (0, 0)
    run.gate.set()
    await empty(batcher)
    assert run.batches == [[0, 1, 2, 3]]


# -- gone -------------------------------------------------------------------------------------------


async def test_a_cancelled_request_leaves_the_queue() -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD)
    async with blocked(run, batcher):
        cancelled, stays = batcher.submit(rows(1), ("y",)), batcher.submit(rows(2), ("y",))
        cancelled.cancel()
        cancelled.cancel()
        assert batcher.queue_rows == 1
        with pytest.raises(Cancelled):
            await cancelled
    assert await settled(stays) == [[4]]
    assert run.batches == [[100], [2]]
    assert batcher.counters.failures == {"CANCELED": 1}
    await empty(batcher)


@pytest.mark.parametrize("where", ["queued", "running", "split"])
async def test_a_cancelled_task_takes_its_request_along(where: str) -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD)

    async def client() -> Tensors:
        return await batcher.submit(rows(*range(9 if where == "split" else 1)), ("y",))

    async def leave() -> None:
        client_task = asyncio.create_task(client())
        if where != "queued":
            await run.running()
        await asyncio.sleep(0)
        client_task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client_task
        assert batcher.queue_rows == 0

    if where == "queued":
        async with blocked(run, batcher):
            await leave()
    else:
        run.gate.clear()
        await leave()
        run.gate.set()
    await empty(batcher)
    assert len(run.batches) == 1
    assert batcher.counters.failures == {"CANCELED": 1}
    assert await settled(batcher.submit(rows(5), ("y",))) == [[10]]


async def test_a_request_that_nobody_awaits_is_answered_all_the_same() -> None:
    batcher = make(Doubler())
    batcher.submit(rows(1), ("y",))
    await empty(batcher)
    assert batcher.counters.requests == 1


async def test_a_queue_whose_last_request_left_takes_new_ones() -> None:
    run = Doubler()
    batcher = make(run)
    batcher.submit(rows(1), ("y",)).cancel()
    await asyncio.sleep(0)
    assert await settled(batcher.submit(rows(2), ("y",))) == [[4]]
    await empty(batcher)


# -- failing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ns", [INLINE, THREAD])
async def test_a_bad_request_fails_alone(ns: int) -> None:
    run = Doubler()
    batcher = make(run, ns=ns)
    requests = [batcher.submit(rows(n), ("y",)) for n in (1, -1, 2)]
    first, bad, last = await settled(*requests)
    assert (first, last) == ([2], [4])
    assert type(bad) is BadRequest
    assert run.batches == [[1, -1, 2], [1], [-1], [2]]
    assert (batcher.counters.requests, batcher.counters.failures) == (2, {"OTHER": 1})
    assert (batcher.counters.executions, batcher.counters.inferences) == (2, 2)
    await empty(batcher)


async def test_a_split_request_fails_as_a_whole_and_its_neighbours_do_not() -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD)
    async with blocked(run, batcher):
        requests = [
            batcher.submit(rows(1), ("y",)),
            batcher.submit(rows(2, 3, 4, 5, -6, 7, 8, 9), ("y",)),
            batcher.submit(rows(10), ("y",)),
        ]
    first, bad, last = await settled(*requests)
    assert (first, last) == ([2], [20])
    assert type(bad) is BadRequest
    await empty(batcher)


async def test_an_unknown_error_is_the_models() -> None:
    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        raise KeyError("nobody expected this")

    batcher = make(run)
    with pytest.raises(ModelError, match="KeyError: 'nobody expected this'"):
        await batcher.submit(rows(1), ("y",))
    assert batcher.counters.failures == {"BACKEND": 1}
    await empty(batcher)


async def test_outputs_without_a_row_for_each_row_are_no_ones_answer() -> None:
    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": inputs["x"].sum(axis=0, keepdims=True)}

    batcher = make(run)
    split = batcher.submit(rows(*range(6)), ("y",))
    with pytest.raises(ModelError, match=r"'y': expected 4 rows, got shape \[1, 2\]"):
        await split
    # Requests that can't be told apart in a batch are run alone, where no rows have to be.
    alone = [batcher.submit(rows(n), ("y",)) for n in range(2)]
    assert await settled(*alone) == [[0], [1]]
    await empty(batcher)


async def test_parts_that_cannot_be_joined_fail_their_request_and_nothing_else() -> None:
    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        x = inputs["x"]
        return {"y": np.zeros((len(x), 1 + int(x[0, 0])), np.float32)}

    batcher = make(run)
    with pytest.raises(ModelError, match="can't be joined"):
        await batcher.submit(rows(*range(8)), ("y",))
    assert await settled(batcher.submit(rows(0), ("y",))) == [[0]]
    await empty(batcher)


# -- the end ----------------------------------------------------------------------------------------


async def test_drain_waits_for_the_last_answer_and_the_last_run() -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD)
    async with blocked(run, batcher) as (running,):
        draining = asyncio.create_task(batcher.drain())
        queued = batcher.submit(rows(1), ("y",))
        running.cancel()
        queued.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not batcher.pending
        assert not draining.done()  # the model still computes
    async with asyncio.timeout(FOREVER):
        await draining
    await empty(batcher)


async def test_closing_refuses_what_waits_and_what_runs() -> None:
    run = Doubler()
    batcher = make(run, ns=THREAD)
    async with blocked(run, batcher) as running:
        queued = batcher.submit(rows(1), ("y",))
        batcher.close()
        with pytest.raises(Stopping, match="stopping"):
            await queued
        with pytest.raises(Stopping, match="stopping"):
            batcher.submit(rows(1), ("y",))
    assert [type(outcome) for outcome in await settled(*running)] == [Stopping]
    await empty(batcher)
    batcher.close()


async def test_closing_before_the_first_batch() -> None:
    batcher = make(Doubler(), max_delay_us=HOUR_US)
    queued = batcher.submit(rows(1), ("y",))
    batcher.close()
    assert [type(outcome) for outcome in await settled(queued)] == [Stopping]
    await empty(batcher)


def test_a_run_that_outlives_its_loop_hurts_nobody() -> None:
    run = Doubler()

    async def main() -> None:
        batcher = make(run, ns=THREAD)
        run.gate.clear()
        batcher.submit(rows(1), ("y",))
        await run.running()
        batcher.close()

    asyncio.run(main())
    run.gate.set()


@pytest.mark.parametrize("value", [1.0, -1.0])
async def test_nothing_keeps_tensors_or_model_once_a_request_is_over(value: float) -> None:
    """Without the garbage collector's help: large tensors and models can't wait for it."""
    gc.collect()
    gc.disable()
    try:
        for ns in (INLINE, THREAD):
            run = Doubler()
            batcher = make(run, ns=ns)
            inputs = rows(*[value] * 9)
            kept = [weakref.ref(run), weakref.ref(inputs["x"])]
            await settled(batcher.submit(inputs, ("y",)))
            cancelled = batcher.submit(rows(1), ("y",))
            cancelled.cancel()
            await settled(cancelled)
            await settled(batcher.submit(rows(1), ("y",), timeout_us=1))
            await empty(batcher)
            batcher.close()
            del run, batcher, inputs, cancelled
            async with asyncio.timeout(FOREVER):
                while any(ref() is not None for ref in kept):  # noqa: ASYNC110 - a thread ends
                    await asyncio.sleep(0.001)
    finally:
        gc.enable()


# -- anything, at any time ---------------------------------------------------------------------------

MOST = 4
plan = st.fixed_dictionaries(
    {
        "rows": st.integers(0, 3 * MOST),
        "width": st.integers(1, 3),
        "outputs": st.sampled_from([("y",), ("z",), ("z", "y")]),
        "bad": st.none() | st.integers(0, 3 * MOST - 1),
        "fate": st.sampled_from(["stay"] * 6 + ["cancel", "drop", "late", "long"]),
        "turns": st.integers(0, 3),
    }
)


@settings(max_examples=150)
@given(
    plans=st.lists(plan, min_size=1, max_size=24),
    instances=st.integers(1, 3),
    delay_us=st.sampled_from([0, 0, 500, 2_000]),
    ns=st.sampled_from([INLINE, THREAD]),
    max_queue_rows=st.sampled_from([16, 10_000]),
    close=st.booleans(),
)
def test_every_request_gets_its_own_answer_or_its_own_error(
    plans: list[dict[str, Any]], instances: int, delay_us: int, ns: int, max_queue_rows: int, close: bool
) -> None:
    asyncio.run(_anything(plans, instances, delay_us, ns, max_queue_rows, close))


async def _anything(
    plans: list[dict[str, Any]], instances: int, delay_us: int, ns: int, max_queue_rows: int, close: bool
) -> None:
    run = Doubler()
    batcher = make(
        run,
        signature(-1, -1),
        max_rows=MOST,
        instances=instances,
        ns=ns,
        max_delay_us=delay_us,
        max_queue_rows=max_queue_rows,
    )
    clients: list[tuple[dict[str, Any], Tensors, asyncio.Task[Any]]] = []
    refused = 0
    for number, plan in enumerate(plans):
        for _ in range(plan["turns"]):
            await asyncio.sleep(0)
        # Every row of every request has a value of its own, so that a row that goes astray shows.
        values = [1000 * number + row for row in range(plan["rows"])]
        if plan["bad"] is not None and plan["bad"] < plan["rows"]:
            values[plan["bad"]] = -1 - values[plan["bad"]]
        inputs = rows(*values, width=plan["width"])
        timeout_us = {"late": 1, "long": HOUR_US}.get(plan["fate"], 0)
        try:
            request = batcher.submit(inputs, plan["outputs"], timeout_us)
        except Unavailable:
            assert batcher.queue_rows + plan["rows"] > max_queue_rows
            refused += 1
            continue
        task = asyncio.ensure_future(_answer(request))
        if plan["fate"] == "cancel":
            asyncio.get_running_loop().call_soon(task.cancel)
        elif plan["fate"] == "drop":
            asyncio.get_running_loop().call_soon(request.cancel)
        clients.append((plan, inputs, task))
    if close:
        batcher.close()
    async with asyncio.timeout(FOREVER):
        outcomes = await asyncio.gather(*(task for _, _, task in clients), return_exceptions=True)
    await empty(batcher)
    batcher.close()

    answered = 0
    for (plan, inputs, _), outcome in zip(clients, outcomes, strict=True):
        x = inputs["x"]
        allowed: set[type[BaseException]] = {Stopping} if close else set()
        allowed |= {
            "cancel": {asyncio.CancelledError, Cancelled},
            "drop": {Cancelled},
            "late": {DeadlineExceeded},
        }.get(plan["fate"], set())
        bad = bool((x < 0).any())
        if bad:
            allowed.add(BadRequest)
        if isinstance(outcome, BaseException):
            assert type(outcome) in allowed, (plan, outcome)
            continue
        assert not bad
        answered += 1
        naive = {"y": 2 * x, "z": -x}
        assert list(outcome) == list(plan["outputs"])
        for name, array in outcome.items():
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, naive[name])
    counters = batcher.counters
    # An answer may be there when its client leaves: then it is counted, though nobody reads it.
    assert answered <= counters.requests
    assert counters.requests + counters.failures.total() == len(clients)
    assert sum(size.count * rows for rows, size in counters.batches.items()) == counters.inferences
    assert sum(size.count for size in counters.batches.values()) == counters.executions
    assert max(counters.batches, default=0) <= MOST
    assert refused + len(clients) == len(plans)


async def _answer(request: Request) -> Tensors:
    return await request


# -- inline ----------------------------------------------------------------------------------------


async def test_a_request_alone_needs_no_queue() -> None:
    run = Doubler()
    batcher = make(run)
    begin = perf_counter_ns()
    outputs = batcher.try_inline(rows(1, 3), ("z", "y"))
    assert outputs is not None
    assert [*outputs] == ["z", "y"]
    assert outputs["y"][:, 0].tolist() == [2, 6]
    counters = batcher.counters
    assert (counters.requests, counters.inferences, counters.executions) == (1, 2, 1)
    assert 0 < counters.request_ns == counters.infer_ns < perf_counter_ns() - begin
    assert counters.queue_ns == counters.input_ns == 0
    assert counters.last_inference > 0
    assert run.threads == {threading.get_ident()}
    await empty(batcher)


async def test_what_a_request_without_a_queue_costs_is_learnt() -> None:
    cost = cost_of(1)
    batcher = Batcher(Doubler(), signature(), Batching(), 1, cost)
    assert batcher.try_inline(rows(1), ("y",)) is not None
    assert cost.predict(2) > 1


async def test_a_request_is_not_run_at_once_that_others_would_notice() -> None:
    run = Doubler()
    closed = make(run)
    closed.close()
    for batcher, values in (
        (make(run, max_rows=1), (1, 2)),  # it would be cut
        (make(run, max_queue_rows=1), (1, 2)),  # it would be refused
        (make(run), ()),
        (make(run, ns=THREAD), (1,)),
        (make(run, max_delay_us=HOUR_US), (1,)),
        (make(run, max_queue_bytes=10_000), (1,)),
        (Batcher(run, signature(), Batching(), 1, cost_of(INLINE), runs_elsewhere=True), (1,)),
        (closed, (1,)),
    ):
        assert batcher.try_inline(rows(*values), ("y",)) is None
    assert not run.batches
    waited = make(run)
    request = waited.submit(rows(1), ("y",))
    assert waited.try_inline(rows(2), ("y",)) is None
    assert await settled(request) == [[2]]
    busy = make(run, ns=THREAD)
    async with blocked(run, busy):
        busy.use_cost(cost_of(INLINE))
        assert busy.try_inline(rows(2), ("y",)) is None
    await empty(busy)


async def test_what_fails_at_once_says_why() -> None:
    def broken(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        raise ValueError("no")

    with pytest.raises(ModelError, match="ValueError: no"):
        make(broken).try_inline(rows(1), ("y",))
    with pytest.raises(BadRequest, match="below 0"):
        make(Doubler()).try_inline(rows(-1), ("y",))
