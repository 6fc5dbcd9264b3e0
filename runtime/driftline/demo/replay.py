"""Sends flights to a server as live traffic, one request for each, and keeps the responses."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
import orjson
from yarl import URL

_CONNECTIONS = 16
_IDLE_SECONDS = 2
"""An idle connection is closed after this: before the server closes it, which could cross a request."""
_TIMEOUT = aiohttp.ClientTimeout(total=30)
_HEADERS = {"Content-Type": "application/json"}
_DATATYPES = {"O": "BYTES", "i": "FP64", "f": "FP64"}
_THROTTLED_SHARE = 0.05
"""The part of the remaining flights that one second may take while the replay is throttled."""

ANSWER = np.dtype(
    [
        ("row", np.int64),
        ("finished", np.float64),
        ("latency", np.float64),
        ("throttled", np.bool_),
        ("version", np.int64),
        ("probability", np.float32),
    ]
)
"""A response: the flight; when it arrived and its latency, in seconds of `time.perf_counter`; whether the
replay was throttled then; the version; and the predicted probability of a late arrival."""


Columns = Mapping[str, npt.NDArray[Any]]
"""Raw columns of one length by name: strings as objects, or numbers."""


def request(columns: Columns, row: int) -> bytes:
    """Return one flight as an Open Inference Protocol request for its probabilities, one tensor per column.

    NaN becomes null.
    """
    tensors = [
        {"name": name, "shape": [1], "datatype": _DATATYPES[values.dtype.kind], "data": [values[row]]}
        for name, values in columns.items()
    ]
    body = {"inputs": tensors, "outputs": [{"name": "probabilities"}]}
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


class Replay:
    """Sends flights in the order given, on a bounded number of connections, as fast as the server answers.

    url          where to post the requests
    columns      of the flights, to send
    throttle_at  the flight from which on it is throttled, until the first response from another version. So
                 a short replay still has flights to send while that version is trained and takes over; a
                 long one hardly slows down.
    """

    def __init__(self, url: URL, columns: Columns, throttle_at: int) -> None:
        self.rows = len(next(iter(columns.values())))
        self.throttle_at = throttle_at
        self.failures: Counter[str] = Counter()
        self.throttling = asyncio.Event()
        self._new_version = asyncio.Event()
        self._until = self.rows
        self._going = asyncio.Event()
        self._url = url
        self._columns = columns
        self._next_turn = 0.0
        self._answers = np.empty(self.rows, ANSWER)
        self._answered = 0

    @property
    def answers(self) -> npt.NDArray[np.void]:
        """The responses so far, in the order of their arrival, as records of type ANSWER."""
        return self._answers[: self._answered]

    @property
    def done(self) -> int:
        """The number of flights that were answered or failed."""
        return self._answered + self.failures.total()

    @property
    def has_new_version(self) -> bool:
        """Whether a version other than the first has answered."""
        return self._new_version.is_set()

    def go_until(self, row: int) -> None:
        """Send the flights before this one, and pause until the next call. Without any call, all are sent."""
        self._until = row
        self._going.set()
        self._going = asyncio.Event()

    async def run(self) -> None:
        """Send all flights. Failures are counted in `failures` by reason, and not raised."""
        rows = iter(range(self.rows))
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_IDLE_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, headers=_HEADERS) as session:
            await asyncio.gather(*(self._send(session, rows) for _ in range(_CONNECTIONS)))

    async def _send(self, session: aiohttp.ClientSession, rows: Iterator[int]) -> None:
        for row in rows:
            while row >= self._until:
                await self._going.wait()
            if row == self.throttle_at:
                self.throttling.set()
            throttled = self.throttling.is_set() and not self._new_version.is_set()
            if throttled:
                await self._wait_for_turn(row)
            try:
                await self._ask(session, row, throttled)
            except (aiohttp.ClientError, TimeoutError) as error:
                self.failures[f"{type(error).__name__} {error}".strip()] += 1

    async def _wait_for_turn(self, row: int) -> None:
        """Wait for a flight's turn, or for the end of the throttling."""
        now = time.perf_counter()
        turn = max(now, self._next_turn)
        self._next_turn = turn + 1 / (_THROTTLED_SHARE * (self.rows - row))
        if turn > now:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._new_version.wait(), turn - now)

    async def _ask(self, session: aiohttp.ClientSession, row: int, throttled: bool) -> None:
        body = request(self._columns, row)
        start = time.perf_counter()
        async with session.post(self._url, data=body) as response:
            content = await response.read()
        finished = time.perf_counter()
        try:
            answer = orjson.loads(content)
            version = int(answer["model_version"])
            _, probability = answer["outputs"][0]["data"]
        except (ValueError, KeyError, IndexError, TypeError):
            self.failures[f"{response.status} {content[:200].decode(errors='replace')}".strip()] += 1
            return
        self._answers[self._answered] = (row, finished, finished - start, throttled, version, probability)
        self._answered += 1
        if version != self._answers["version"][0]:
            self._new_version.set()
