"""A request in the queue of a batcher."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Hashable, Sequence
from copy import copy
from functools import partial
from time import perf_counter_ns
from typing import Any

from driftline.blocks import size_in_bytes
from driftline.errors import Cancelled, DriftlineError
from driftline.tensors import Tensors

REQUEST_BYTES = 1_000
"""The approximate size of a request in memory, without its tensors."""


class Request:
    """A request in a batcher. `await` returns its outputs or raises its error.

    inputs           arrays that fit the signature
    outputs          the names of the outputs wanted
    rows             how many rows its inputs have
    group_key        equal for requests that may be concatenated
    client_requests  how many this one stands for; if it fails, each is retried alone
    nbytes           bytes that it takes in the queue
    arrived_ns       when it was created; this and the next two are times of perf_counter_ns
    started_ns       when its first rows were taken from the queue; 0 until then
    deadline_ns      when `timer` fails it with DeadlineExceeded; 0 for never
    rows_taken       rows that were taken from the queue
    rows_done        rows whose outputs are in `parts`, if the request runs in several batches
    parts            the outputs of these rows, each part with the number of its first row
    done             whether it is settled: it has its outputs or its error, see `outcome`
    on_done          called once it is done, for callers that do not await it
    """

    __slots__ = (
        "_settle", "arrived_ns", "client_requests", "deadline_ns", "done", "group_key", "inputs", "nbytes",
        "on_done", "outputs", "parts", "result", "rows", "rows_done", "rows_taken", "started_ns", "timer",
    )  # fmt: skip

    def __init__(
        self,
        inputs: Tensors,
        outputs: Sequence[str],
        rows: int,
        group_key: Hashable,
        client_requests: int,
        settle: Callable[[Request, DriftlineError], None],
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.rows = rows
        self.group_key = group_key
        self.client_requests = client_requests
        self._settle = settle
        self.nbytes = REQUEST_BYTES + size_in_bytes(inputs)
        self.arrived_ns = perf_counter_ns()
        self.deadline_ns = self.started_ns = self.rows_taken = self.rows_done = 0
        self.parts: tuple[tuple[int, Tensors], ...] = ()
        self.done = False
        self.result: Tensors | DriftlineError | None = None
        self.on_done: Callable[[], None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Fail it with Cancelled, since nobody waits for the response any more."""
        if not self.done:
            self._settle(self, Cancelled("the client has gone"))

    def __await__(self) -> Generator[Any, None, Tensors]:
        if not self.done:
            waiter = asyncio.get_running_loop().create_future()
            self.on_done = partial(_wake, waiter)
            try:
                yield from waiter
            finally:
                self.cancel()
        return self.outcome()

    def outcome(self) -> Tensors:
        """Return its outputs or raise its error. To be called only once it is done."""
        if isinstance(self.result, DriftlineError):
            # A copy: a raised error refers to its frames, and they to this request. If the request referred
            # to that error, its tensors and its version would stay in memory until garbage is collected.
            raise copy(self.result)
        assert self.result is not None, "it is done"
        return self.result


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
