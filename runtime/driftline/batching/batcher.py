"""Dynamic batching without a timer: requests that arrive while the model is busy form the next batch.

The life of a request: `submit` puts it in the queue -> `_flush` takes a batch from the queue ->
`execute` gathers the rows, runs them and splits the outputs, on the event loop if that is predicted to be
short, else in a thread -> `_complete` gives each request its part. A request that is cancelled, or whose
deadline passes, is settled at once, wherever it is. A short request skips the queue if nothing waits and
nothing runs: `try_inline`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter_ns, thread_time_ns, time

from driftline.batching.cost import Cost
from driftline.batching.counters import Counters
from driftline.batching.execution import Batch, Run, as_driftline_error, execute
from driftline.batching.request import Request
from driftline.batching.rows import Slice, join
from driftline.blocks import arrays_of
from driftline.config import Batching
from driftline.errors import DeadlineExceeded, DriftlineError, Stopping, TooLarge, Unavailable
from driftline.machine import available_cores
from driftline.tensors import Signature, Tensors

log = logging.getLogger("driftline.batching")

LEARN_EVERY = 8
"""One in this many inline requests is timed for `Cost`, since reading the thread's clock is slow."""

INLINE_NS = 1_000_000 if available_cores() > 1 else 5_000_000
"""Batches predicted to be shorter than this run on the event loop. In a thread, a batch may wait 5 ms for the
GIL if the loop is busy; and on one core, nothing else could run meanwhile anyway."""

TIMER_ERROR_SECONDS = 0.0015
"""How early a timer may fire: uvloop rounds to milliseconds, and so does its clock."""

INLINE_QUEUE_BYTES = 2**22
"""If `max_queue_bytes` is lower, no request runs inline, since `try_inline` does not count bytes."""


class Batcher:
    """The queue in front of one version. Belongs to one event loop; only `run` is called in threads.

    run             computes a batch
    signature       says whether requests may be concatenated
    limits          of the rows in a batch, and of the rows and bytes in the queue
    instances       how many batches run at the same time
    cost            the service times that are already known
    runs_elsewhere  whether `run` waits for another process or a GPU: then it never runs on the loop, and its
                    cost is elapsed time, not the CPU time of its thread

    queue_rows, queue_bytes  in the queue
    pending    requests that are not settled
    running    batches that are running
    """

    def __init__(
        self,
        run: Run,
        signature: Signature,
        limits: Batching,
        instances: int = 1,
        cost: Cost | None = None,
        runs_elsewhere: bool = False,
    ) -> None:
        self.limits = limits
        self.counters = Counters()
        self.queue_rows = 0
        self.queue_bytes = 0
        self.pending = 0
        self._run = run
        self._max_rows = limits.max_batch_rows if signature.batched else 1
        self._max_inline_rows = min(self._max_rows, limits.max_queue_rows)
        self._delay_ns = limits.max_delay_us * 1000 if signature.batched else 0
        self._instances = instances
        self._group_by_shape = signature.batched and any(-1 in spec.shape[1:] for spec in signature.inputs)
        self._signature = signature
        self._cost = cost or Cost()
        self._runs_elsewhere = runs_elsewhere
        self._clock = perf_counter_ns if runs_elsewhere else thread_time_ns
        self._groups: OrderedDict[Hashable, OrderedDict[Request, None]] = OrderedDict()
        self.running = 0
        self._flush_handle: asyncio.Handle | None = None
        self._delayed = False
        self._closed = False
        self._inline = not (self._delay_ns or runs_elsewhere or limits.max_queue_bytes < INLINE_QUEUE_BYTES)
        self._idle = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._threads: ThreadPoolExecutor | None = None
        self._in_threads: list[Batch] = []

    # -- requests arrive --------------------------------------------------------------------------

    def submit(
        self, inputs: Tensors, outputs: Sequence[str], timeout_us: int = 0, client_requests: int = 1
    ) -> Request:
        """Put a request in the queue.

        inputs           arrays that fit the signature
        outputs          the names of the outputs wanted
        timeout_us       its deadline from now, in microseconds; 0 for none
        client_requests  how many it stands for

        Raises BadRequest if its tensors differ in rows, TooLarge if it could never be queued,
        Unavailable if the queue is full or closed.
        """
        rows, group_key = self._signature.rows(inputs), _row_shapes(inputs) if self._group_by_shape else None
        request = Request(inputs, outputs, rows, group_key, client_requests, self.settle)
        self._admit(request)
        group = self._groups.get(group_key)
        if group is None:
            group = self._groups[group_key] = OrderedDict()
        group[request] = None
        self.queue_rows += request.rows
        self.queue_bytes += request.nbytes
        self.pending += 1
        if timeout_us:
            request.deadline_ns = request.arrived_ns + timeout_us * 1000
            request.timer = self._loop.call_later(
                timeout_us / 1e6 + TIMER_ERROR_SECONDS, self._expire, request
            )
        self._schedule()
        return request

    def try_inline(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors | None:
        """Run a short request at once and return its outputs, if nothing waits and nothing runs.

        Return None, with nothing done, if it has to be submitted instead. Raises DriftlineError if the model
        fails.

        This does for a single request what `execute`, `_complete` and `settle` do for a batch: it runs and
        times the request, learns the cost (of some requests only), translates errors and counts.
        """
        if self._groups or self.running or self._closed or not self._inline:
            return None
        rows = self._signature.rows(inputs)
        size = sum([array.size for array in arrays_of(inputs)])
        if not 0 < rows <= self._max_inline_rows or self._cost.predict(size) >= INLINE_NS:
            return None
        counters = self.counters
        timed = counters.executions % LEARN_EVERY == 0
        clock_start, begin = self._clock() if timed else 0, perf_counter_ns()
        try:
            results = self._run(inputs, outputs)
        except Exception as error:
            raise as_driftline_error(error) from None
        infer_ns = perf_counter_ns() - begin
        if timed:
            self._cost.learn(size, self._clock() - clock_start)
        counters.record_batch(rows, 0, infer_ns, 0)
        counters.last_inference = time()
        counters.requests += 1
        counters.request_ns += infer_ns
        return results

    def _admit(self, request: Request) -> None:
        if self._closed:
            raise Stopping()
        limits = self.limits
        if request.rows > limits.max_queue_rows or request.nbytes > limits.max_queue_bytes:
            raise TooLarge(
                f"request of {request.rows} rows and {request.nbytes} bytes: expected at most "
                f"{limits.max_queue_rows} rows and {limits.max_queue_bytes} bytes"
            )
        if (
            self.queue_rows + request.rows > limits.max_queue_rows
            or self.queue_bytes + request.nbytes > limits.max_queue_bytes
        ):
            raise Unavailable(f"the queue is full: {self.queue_rows} rows wait", self._retry_after())

    def _retry_after(self) -> int:
        """Predict the time until everything in the queue has run, in whole seconds."""
        counters = self.counters
        ns_per_row = counters.infer_ns / counters.inferences if counters.inferences else 0.0
        return 1 + int(self.queue_rows * ns_per_row / 1e9)

    # -- batches run ------------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Schedule `_flush`: in the next iteration of the event loop, or at the end of `max_delay_us`."""
        full = self.queue_rows >= self._max_rows
        if self._flush_handle is not None:
            if not (self._delayed and full):
                return
            self._flush_handle.cancel()
        if self.running >= self._instances:
            self._flush_handle = None
            return
        self._delayed = self._delay_ns > 0 and not full
        if self._delayed:
            oldest = min(next(iter(group)).arrived_ns for group in self._groups.values())
            delay_ns = oldest + self._delay_ns - perf_counter_ns()
            self._flush_handle = self._loop.call_later(max(delay_ns, 0) / 1e9, self._flush)
        else:
            self._flush_handle = self._loop.call_soon(self._flush)

    def flush_now(self) -> None:
        """Run the next batch now instead of in the next iteration of the event loop."""
        if self._flush_handle is not None and not self._delayed:
            self._flush_handle.cancel()
            self._flush()

    def _flush(self) -> None:
        """Run one batch from the queue."""
        self._flush_handle = None
        while self._groups:
            batch = self._take_batch()
            if batch.slices:
                break
        else:
            return
        self.running += 1
        if not self._runs_elsewhere and self._cost.predict(batch.size) < INLINE_NS:
            self._complete(execute(batch, self._run, self._clock))
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._instances, "driftline-batch")
        self._in_threads.append(batch)
        self._threads.submit(self._run_in_thread, batch)
        if self._groups:
            self._schedule()

    def _take_batch(self) -> Batch:
        """Take a batch of one group from the queue: its oldest requests, up to the maximum number of rows.

        Only a request with more rows than that is split. The batch is empty if all their deadlines have
        passed: timers can't fire while the event loop is busy running batches.
        """
        group_key, group = next(iter(self._groups.items()))
        max_rows = self._max_rows
        slices: list[Slice] = []
        rows = 0
        now = perf_counter_ns()
        while group:
            request = next(iter(group))
            if 0 < request.deadline_ns <= now:
                self._expire(request)
                continue
            start = request.rows_taken
            count = request.rows - start
            if rows + count > max_rows:
                if request.rows <= max_rows or rows == max_rows:
                    break
                count = max_rows - rows
            request.started_ns = request.started_ns or now
            request.rows_taken += count
            self.queue_rows -= count
            slices.append((request, start, start + count))
            rows += count
            if request.rows_taken == request.rows:
                self._dequeue(request)
        if group_key in self._groups:
            self._groups.move_to_end(group_key)
        return Batch(slices, rows)

    def _dequeue(self, request: Request) -> None:
        """Take a request out of the queue."""
        group = self._groups[request.group_key]
        del group[request]
        if not group:
            del self._groups[request.group_key]
        self.queue_rows -= request.rows - request.rows_taken
        self.queue_bytes -= request.nbytes

    def _run_in_thread(self, batch: Batch) -> None:
        """In a thread: run a batch, and complete it on the event loop."""
        self._loop.call_soon_threadsafe(
            self._completed_in_thread, batch, execute(batch, self._run, self._clock)
        )

    # -- requests leave ---------------------------------------------------------------------------

    def _completed_in_thread(self, batch: Batch, batches: list[Batch]) -> None:
        """On the event loop: complete batches that a thread has run."""
        self._in_threads.remove(batch)
        self._complete(batches)

    def _complete(self, batches: list[Batch]) -> None:
        """Give requests their outputs, and schedule the next batch."""
        for batch in batches:
            if batch.infer_ns:
                self.counters.record_batch(batch.rows, batch.input_ns, batch.infer_ns, batch.output_ns)
                self.counters.last_inference = time()
                self._cost.learn(batch.size, batch.spent_ns)
            for (request, start, stop), result in zip(batch.slices, batch.results, strict=True):
                if request.done:
                    continue
                if isinstance(result, DriftlineError) or stop - start == request.rows:
                    self.settle(request, result)
                    continue
                request.parts += ((start, result),)
                request.rows_done += stop - start
                if request.rows_done == request.rows:
                    self.settle(request, join(request.parts))
        self.running -= 1
        if self._groups:
            self._schedule()
        elif not self.running:
            self._idle.set()

    def settle(self, request: Request, result: Tensors | DriftlineError) -> None:
        """Give a request its outputs or its error, whether it waits or runs; do nothing if it has them."""
        if request.done:
            return
        request.done = True
        request.result = result
        if request.rows_taken < request.rows or not request.started_ns:
            self._dequeue(request)
        if request.timer is not None:
            request.timer.cancel()
        now = perf_counter_ns()
        counters = self.counters
        client_requests = request.client_requests
        if not isinstance(result, DriftlineError):
            counters.requests += client_requests
            counters.request_ns += client_requests * (now - request.arrived_ns)
            counters.queue_ns += client_requests * (request.started_ns - request.arrived_ns)
        elif client_requests == 1:
            counters.record_failure(result, now - request.arrived_ns)
        self.pending -= 1
        if not self.pending:
            self._idle.set()
        on_done, request.on_done = request.on_done, None
        if on_done is not None:
            try:
                on_done()
            except Exception:  # the caller's fault: other requests of the batch must still be settled
                log.exception("a callback for the result of a request failed")

    def _expire(self, request: Request) -> None:
        timeout_us = (request.deadline_ns - request.arrived_ns) // 1000
        error = DeadlineExceeded(f"the request's timeout of {timeout_us} microseconds has passed")
        self.settle(request, error)

    def use_cost(self, cost: Cost) -> None:
        """Replace the learnt service times."""
        self._cost = cost

    async def drain(self) -> None:
        """Wait until every request is settled and nothing runs."""
        while self.pending or self.running:
            self._idle.clear()
            await self._idle.wait()

    def close(self) -> None:
        """Fail requests that wait, run or arrive later; threads end when their batch has run."""
        self._closed = True
        waiting = [request for group in self._groups.values() for request in group]
        running = [request for batch in self._in_threads for request, _, _ in batch.slices]
        for request in (*waiting, *running):
            self.settle(request, Stopping())
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        if self._threads is not None:
            self._threads.shutdown(wait=False)


def _row_shapes(inputs: Tensors) -> Hashable:
    """Return the shapes of a row: equal for requests that may be concatenated."""
    return tuple(array.shape[1:] for array in inputs.values())
